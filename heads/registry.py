"""Names -> heads, found through entry points."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any, cast

from embedstore.errors import UsageError, did_you_mean
from heads.base import Head, HeadFamily

ENTRY_POINTS = "embedstore.heads"


def head_names() -> list[str]:
    """Return the names of the installed heads.

    Examples
    --------
    >>> heads.head_names()
    ['knn', 'logistic', 'mlp', 'xgboost', 'zeroshot']
    """
    return sorted({entry.name for entry in entry_points(group=ENTRY_POINTS)})


def head_package(name: str) -> str | None:
    """Return the name of the installed package that offers a head, None where none does; imports nothing of it."""
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name and entry.dist is not None:
            return str(entry.dist.name)
    return None


def head_class(name: str) -> type[Head]:
    """Return the head's class; its module, with the libraries it needs, is imported only now.

    Raises
    ------
    UsageError
        If no installed package offers a head of that name.

    Examples
    --------
    >>> heads.head_class("knn").__name__
    'NeighborsHead'
    """
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            found: type[Head] = entry.load()
            return found
    installed = head_names()
    raise UsageError(
        f"`head`: no head named {name!r}; installed: {', '.join(installed) or 'none'}{did_you_mean(name, installed)}"
    )


def head_family(name: str) -> HeadFamily:
    """Return the default grid of a head by name; raises as `head_class`."""
    return head_class(name).family()


def on_device(family: HeadFamily, device: str) -> HeadFamily:
    """Return the grid to be fitted on ``auto``, ``cpu`` or ``cuda``; one without a choice stays as it is."""
    # A grid of another package need not be a dataclass.
    if "device" not in getattr(family, "__dataclass_fields__", {}):
        return family
    moved: HeadFamily = replace(cast(Any, family), device=device)
    return moved
