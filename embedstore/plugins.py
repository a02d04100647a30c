"""The one check that an installed plug-in fulfils its contract, made where it is loaded."""

from __future__ import annotations

import inspect

from embedstore.errors import UsageError


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
    members = [*vars(contract), *vars(contract).get("__annotations__", {})]
    wanted = [name for name in members if not name.startswith("_") and not name.endswith("_")]
    absent = object()
    lacking = [name for name in wanted if inspect.getattr_static(found, name, absent) is absent]
    if lacking:
        raise UsageError(
            f"{what} lacks {', '.join(lacking)}; let its class inherit {base.__module__}.{base.__qualname__}, "
            "which has a default for what can have one"
        )
