"""Names -> heads, found through entry points."""

from __future__ import annotations

from embedstore.errors import PluginError, UsageError, did_you_mean
from embedstore.plugins import HEADS, find_plugin, plugin_names, plugins, require_members
from heads.base import FamilyDefaults, Head, HeadDefaults, HeadFamily, HeadNeeds


def head_names() -> list[str]:
    """Return the names of the installed heads.

    Examples
    --------
    >>> heads.head_names()
    ['attention', 'knn', 'logistic', 'mlp', 'xgboost', 'zeroshot']
    """
    return plugin_names(HEADS)


def head_package(name: str) -> str | None:
    """Return the name of the installed package that offers a head, None where none does; imports nothing of it."""
    return next((plugin.package for plugin in plugins(HEADS) if plugin.name == name), None)


def head_class(name: str) -> type[Head]:
    """Return the head's class; its module, with the libraries it needs, is imported only now.

    Raises
    ------
    UsageError
        If no installed package offers a head of that name, or it lacks a part of the contract.
    PluginError
        If the package that offers it cannot be imported.

    Examples
    --------
    >>> heads.head_class("knn").__name__
    'NeighborsHead'
    """
    plugin = find_plugin(HEADS, name)
    if plugin is not None:
        found: type[Head] = plugin.load()
        require_members(found, Head, what=f"head {name!r}", base=HeadDefaults)
        return found
    installed = head_names()
    raise UsageError(
        f"`head`: no head named {name!r}; installed: {', '.join(installed) or 'none'}{did_you_mean(name, installed)}"
    )


def head_needs(name: str) -> HeadNeeds:
    """Return what a head needs beyond vectors and labels; raises as `head_class`."""
    return head_class(name).needs


def head_family(name: str) -> HeadFamily:
    """Return the default grid of a head by name; raises as `head_class`, also for a grid without its contract."""
    found = head_class(name)
    try:
        family = found.family()
    except Exception as error:  # another package may raise anything
        raise PluginError(
            f"head {name!r} has no grid: {type(error).__name__}: {' '.join(str(error).split())}. Update its package"
        ) from error
    require_members(family, HeadFamily, what=f"the grid of head {name!r}", base=FamilyDefaults)
    return family
