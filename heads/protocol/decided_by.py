"""What decides the result of a probe: vectors, labels, options, grid and versions, and not when or how fast it ran.

The digest of this document is the id of a run: equal inputs give equal ids, before anything is fitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.compute_device import resolve_device
from embedstore.files import canonical_json, sha256_bytes
from embedstore.view import View
from heads.base import HeadFamily
from heads.protocol.options import ProbeOptions
from heads.registry import head_class, head_package

# Their content stands in the view, in the ways and in the grid; a device is the grid's, and a refusal is no result.
_ELSEWHERE = frozenset(
    {
        "targets",
        "cross_validate",
        "shots",
        "with_columns",
        "pooling",
        "select_inputs",
        "select_imbalance",
        "inputs",
        "device",
        "strict_targets",
    }
)
# Digests of their own; where a store lies changes nothing.
_NO_ARRAYS = frozenset({"task", "identity", "excluded", "sources"})
_LIBRARIES = ("embedstore", "numpy", "scipy", "scikit-learn", "torch")


def decided_by(view: View, options: ProbeOptions, grid: HeadFamily) -> dict[str, Any]:
    """Return what decides the result, as plain JSON values.

    Parameters
    ----------
    view
        As the options take it (`ProbeOptions.take`): its own targets, metadata and splits.
    options
        How.
    grid
        The grid that is searched, on its device.

    Returns
    -------
    dict
        ``identity``, ``task`` and ``data`` are sha256 digests; ``options``, ``inputs``, ``grid`` and ``versions`` are
        in words and numbers.
    """
    return {
        **question_of(view, options),
        "inputs": [way.to_json() for way in options.ways(view)],
        "grid": _plain(grid),
        "versions": versions_of([options.head], _LIBRARIES),
    }


def question_of(view: View, options: ProbeOptions) -> dict[str, Any]:
    """Return what decides the result whatever head answers and whatever it gets: a part of `decided_by`."""
    task = {key: entry for key, entry in view.task.to_json().items() if key != "pooling"}
    return {
        "identity": view.identity.sha256,
        "task": sha256_bytes(canonical_json(task)),
        "data": _digest(view),
        "options": {
            field.name: _plain(getattr(options, field.name))
            for field in fields(options)
            if field.name not in _ELSEWHERE
        },
    }


def id_of(decided: Mapping[str, Any]) -> str:
    """Return the id of a run: the sha256 of what `decided_by` returned; 12 digits of it are shown."""
    return sha256_bytes(canonical_json(dict(decided)))


def versions_of(heads: Sequence[str], libraries: Sequence[str]) -> dict[str, str]:
    """Return the versions of libraries, of those that the heads need, and of the packages that have these."""
    named = list(libraries)
    for head in heads:
        package = head_package(head)
        named += [*head_class(head).needs.libraries, *([package] if package else [])]
    found = {}
    for name in named:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # A library can be there under another name (from conda, say); a run is not lost for that.
            found[name] = "unknown"
    return found


def _digest(view: View) -> str:
    """Return the sha256 of all that the view holds, names of stores and folders excepted."""
    digest = hashlib.sha256()
    for name, array in _arrays(view):
        plain = np.ascontiguousarray(array)
        if plain.dtype.kind == "U":
            # The width of a text array is that of its longest entry, here or elsewhere.
            payload: bytes | memoryview = "\0".join(plain.ravel().tolist()).encode()
        else:
            payload = plain.data.cast("B") if plain.size else b""
        digest.update(f"{name} {plain.shape} {plain.dtype.kind}\n".encode())
        digest.update(payload)
    digest.update(canonical_json(dict(view.excluded)))
    return digest.hexdigest()


def _arrays(view: View) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Return every array of a view by a name of its own: a field that a view gets some day is part of it."""
    for field in fields(view):
        value = getattr(view, field.name)
        if field.name in _NO_ARRAYS or value is None:
            continue
        if isinstance(value, Mapping):
            for column in sorted(value):
                yield f"{field.name} {column}", np.asarray(value[column])
        else:
            yield field.name, np.asarray(value)


def _plain(value: Any) -> Any:
    """Return plain JSON values: of a grid its class and fields, of a fitted head its arrays' digest."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.ndarray):
        return sha256_bytes(np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    named: dict[str, Any] = {"class": type(value).__name__}
    if is_dataclass(value):
        for field in fields(value):
            entry = getattr(value, field.name)
            named[field.name] = resolve_device(entry).type if field.name == "device" else _plain(entry)
    elif hasattr(value, "to_arrays"):
        named |= {"params": _plain(value.get_params()), "arrays": _plain(value.to_arrays())}
    if hasattr(value, "points"):
        named["points"] = _plain(value.points)
    return named
