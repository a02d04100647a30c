"""Public names of a package, each imported when it is first used: importing the package costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names_of_module: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Parameters
    ----------
    package
        Name of the package.
    names_of_module
        Module -> the names that it has and the package offers.

    Examples
    --------
    >>> get, names = lazy_names("embedstore", {"embedstore.errors": ["DataError"]})
    >>> get("DataError").__name__
    'DataError'
    """
    module_of_name = {name: module for module, names in names_of_module.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of_name:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(module_of_name[name]), name)
        # The next use finds it without coming here.
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of_name})

    return get, names
