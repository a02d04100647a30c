"""Options that only one reader or encoder has: ``--reader-option`` and ``--encoder-option``."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from embedstore.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def reader_option(function: F) -> F:
    """Add ``--reader-option``."""
    return click.option(
        "--reader-option",
        multiple=True,
        metavar="NAME=VALUE",
        help="An option of the data set's own reader; repeatable.",
    )(function)


def encoder_option(function: F) -> F:
    """Add ``--encoder-option``."""
    return click.option(
        "--encoder-option",
        multiple=True,
        metavar="NAME=VALUE",
        help="An option of the encoder's own, part of the store's identity; repeatable.",
    )(function)


def named_values(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Return what NAME=VALUE options say.

    A value is read as TOML (``16``, ``0.5``, ``true``, ``"text"``, ``["a", "b"]``) and is otherwise the text itself.

    Parameters
    ----------
    texts
        One NAME=VALUE each.
    option
        The option's name, for messages.

    Raises
    ------
    UsageError
        If a text has no name or no ``=``, or a name is given twice.

    Examples
    --------
    >>> named_values(["channels=16", "suffix=.png", "labels=['a', 'b']"], "--reader-option")
    {'channels': 16, 'suffix': '.png', 'labels': ['a', 'b']}
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} takes NAME=VALUE; found {text!r}")
        name = name.replace("-", "_")
        if name in found:
            raise UsageError(f"{option} {name} is given twice; for a list write {name}=[..., ...]")
        found[name] = _value(value)
    return found


def encoder_options_of(encoder: str, texts: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the encoder's own options: those of ``embed.toml``, then those of the command line.

    Parameters
    ----------
    encoder
        The encoder that is used. The options in ``embed.toml`` belong to the encoder there, and to no other.
    texts
        Values of ``--encoder-option``.
    settings
        The settings of ``embed.toml``.
    """
    own = settings.get("encoder_options", {}) if settings.get("encoder", encoder) == encoder else {}
    return {**own, **named_values(texts, "--encoder-option")}


def _value(text: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # More keys: a text with a line break. Dates and infinities are no JSON, so they stay text.
    value = document.get("value")
    return value if set(document) == {"value"} and _is_plain(value) else text


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
