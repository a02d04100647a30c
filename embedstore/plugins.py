"""Encoders, data sets and heads of installed packages: how they are found, loaded and checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from embedstore.errors import PluginError, UsageError, did_you_mean

ENCODERS = "embedstore.encoders"
DATASETS = "embedstore.datasets"
HEADS = "embedstore.heads"
# Group -> what a member of it is called in messages; the words of the options.
KINDS = {ENCODERS: "encoder", DATASETS: "dataset", HEADS: "head"}


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed package; nothing of the package is imported yet.

    Parameters
    ----------
    group
        ``embedstore.encoders``, ``embedstore.datasets`` or ``embedstore.heads``.
    name
        What the options call it.
    package, version
        The installed package that offers it.
    entry
        The entry point.
    """

    group: str
    name: str
    package: str
    version: str
    entry: EntryPoint = field(repr=False)

    def load(self) -> Any:
        """Import what the entry point names.

        Raises
        ------
        PluginError
            If that fails, whatever its module raises; the message names the package.
        """
        try:
            return self.entry.load()
        except Exception as error:  # another package may raise anything
            reason = " ".join(str(error).split())
            raise PluginError(
                f"{KINDS[self.group]} {self.name!r} of package {self.package} {self.version} cannot be loaded: "
                f"{type(error).__name__}: {reason}. Update the package, or uninstall it"
            ) from error


def plugins(group: str) -> list[Plugin]:
    """Return what is installed for a group, by name and package; imports nothing of it."""
    found = []
    # A package's metadata are a long text to parse, and most entries are of one package.
    known: dict[int, tuple[str, str]] = {}
    for entry in entry_points(group=group):
        of_package = id(entry.dist)
        if of_package not in known:
            metadata = entry.dist.metadata if entry.dist else None
            known[of_package] = (metadata["Name"], metadata["Version"]) if metadata else ("unknown", "")
        found.append(Plugin(group, entry.name, *known[of_package], entry))
    return sorted(found, key=lambda plugin: (plugin.name, plugin.package))


def plugin_names(group: str) -> list[str]:
    """Return the names in a group, sorted; imports nothing of the packages."""
    return sorted({entry.name for entry in entry_points(group=group)})


def find_plugin(group: str, name: str) -> Plugin | None:
    """Return the plug-in of that name, or None.

    Raises
    ------
    PluginError
        If two packages offer the name: which of them made a store could not be told.
    """
    found = [plugin for plugin in plugins(group) if plugin.name == name]
    packages = sorted({plugin.package for plugin in found})
    if len(packages) > 1:
        raise PluginError(
            f"{KINDS[group]} {name!r} is offered by the packages {' and '.join(packages)}; uninstall all but one"
        )
    return found[0] if found else None


def own_options(factory: Callable[..., Any], *, reserved: Collection[str] = ()) -> list[str] | None:
    """Return the names of a factory's keyword arguments but for `reserved`, sorted; None if it takes any."""
    parameters = inspect.signature(factory).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return sorted(
        parameter.name
        for parameter in parameters
        if parameter.kind in by_name and parameter.name not in reserved
    )


def require_options(
    factory: Callable[..., Any], options: Mapping[str, Any], *, what: str, reserved: Collection[str] = ()
) -> None:
    """Refuse an option that a factory does not take as a keyword argument.

    Parameters
    ----------
    factory
        A class or function.
    options
        The options that were given.
    what
        The plug-in, for the message (``encoder 'hog'``).
    reserved
        Arguments that have an option of their own.

    Raises
    ------
    UsageError
        With the options that it takes.
    """
    accepted = own_options(factory, reserved=reserved)
    for name in options:
        if name in reserved or (accepted is not None and name not in accepted):
            known = accepted or []
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UsageError(f"{what} has no option {name!r}; {takes}{did_you_mean(name, known)}")


def require_members(found: object, contract: type, *, what: str, base: type) -> None:
    """Refuse a plug-in that lacks a member of its contract.

    Nothing is called and no property is evaluated: an encoder's identity may need weights.

    Parameters
    ----------
    found
        The plug-in: an instance, or a class.
    contract
        The protocol. What is set by fitting (a name that ends in ``_``) is not looked for.
    what
        The plug-in, for the message (``head 'noisy-or'``).
    base
        The class that gives defaults to its subclasses.

    Raises
    ------
    UsageError
        With the members that are missing.
    """
    members = dict.fromkeys(
        name for part in contract.__mro__ for name in (*vars(part), *vars(part).get("__annotations__", {}))
    )
    wanted = [name for name in members if not name.startswith("_") and not name.endswith("_")]
    absent = object()
    lacking = [name for name in wanted if inspect.getattr_static(found, name, absent) is absent]
    if lacking:
        raise UsageError(
            f"{what} lacks {', '.join(lacking)}; let its class inherit {base.__module__}.{base.__qualname__}, "
            "which has a default for what can have one"
        )
