"""Names, folders and hub ids -> encoders."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embedstore.encoders.base import Encoder, EncoderDefaults, OfCrops
from embedstore.errors import PluginError, UsageError, did_you_mean
from embedstore.finetuned.encoder_folder import is_encoder_folder
from embedstore.finetuned.trained_patients import FINETUNED
from embedstore.identity import Identity
from embedstore.plugins import ENCODERS, find_plugin, plugin_names, require_members, require_options
from embedstore.tokens.grid import tokens_of

# What has a name of its own in `image_encoder`, and what no caller may change.
_STANDARD = (
    "preset",
    "device",
    "dtype",
    "revision",
    "pooling",
    "pass_rows",
    "execution",
    "square_pixels",
    "tokens",
    "name",
    "origin",
)


def encoder_names() -> list[str]:
    """Return the registered names, sorted.

    Examples
    --------
    >>> es.encoder_names()
    ['hog', 'medgemma-896', 'medsiglip-448']
    """
    return plugin_names(ENCODERS)


def encoder_options(name: str, *, revision: str | None = None) -> frozenset[str]:
    """Return which options of `image_encoder` an encoder takes; raises as `image_encoder`."""
    return frozenset(inspect.signature(_factory(name, revision)).parameters)


def require_encoder_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options of its own that an encoder does not have; raises as `image_encoder`, and builds nothing."""
    if options:
        require_options(_factory(name, None), options, what=f"encoder {name!r}", reserved=_STANDARD)


def image_encoder(
    name: str,
    *,
    preset: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    pooling: str | None = None,
    pass_rows: int | None = None,
    execution: str | None = None,
    square_pixels: bool | None = None,
    tokens: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Encoder:
    """Build an encoder; nothing is read or loaded yet, except the configuration behind a folder or hub id.

    Parameters
    ----------
    name
        A registered name, the folder of a checkpoint, or a hub id (``google/siglip-base-patch16-224``).
        A registered name wins over a folder, a folder over a hub id.
    preset
        Preprocess preset, or None for the encoder's own default.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
    dtype
        ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    revision
        Branch, tag or commit of a hub id; None for what the cache has, else ``main``.
    pooling
        ``map`` or ``mean``; None for the encoder's own default.
    pass_rows
        Images in one forward pass; None for the device's default (`embedstore.encoders.passes`).
    execution
        ``eager``, ``compile`` or ``graph``; None for the device's default.
    square_pixels
        `PreprocessSpec.square_pixels`; None for the encoder's own default. An encoder without the choice has the
        one of its own, which its identity states.
    tokens
        Numbers to keep of each token beside the vector, in the further array ``tokens``
        (`embedstore.tokens.grid.TokenGrid`); None for no tokens.
    options
        The encoder's own options, plain JSON values; its identity states them (`Identity.options`).

    Raises
    ------
    UsageError
        If no encoder has that name, it lacks a part of the contract, or it does not offer an option or its value.
    PluginError
        If the package that offers it cannot be imported, or its identity leaves one of its own options out.
    MissingWeights
        If a hub id's configuration is neither cached nor to be fetched.
    DataError
        If a folder or hub id holds another architecture.

    Examples
    --------
    >>> encoder = es.image_encoder("hog")
    >>> encoder.identity == store.identity
    True
    >>> encoder.load()
    >>> encoder.encode(np.zeros((2, 444, 444), np.uint8)).shape
    (2, 1152)
    """
    factory = _factory(name, revision)
    own = dict(options or {})
    require_options(factory, own, what=f"encoder {name!r}", reserved=_STANDARD)
    arguments: dict[str, Any] = {"preset": preset, "device": device, "dtype": dtype}
    wanted = {
        "revision": revision,
        "pooling": pooling,
        "pass_rows": pass_rows,
        "execution": execution,
        "tokens": tokens,
    }
    arguments |= _offered(factory, wanted, name)
    if square_pixels is not None and "square_pixels" in inspect.signature(factory).parameters:
        arguments["square_pixels"] = square_pixels
    encoder: Encoder = factory(**arguments, **own)
    require_members(encoder, Encoder, what=f"encoder {name!r}", base=EncoderDefaults)
    if own:
        _require_stated(encoder, own, name)
    return encoder


def encoder_of_identity(
    identity: Identity,
    *,
    holder: str,
    name: str | None = None,
    device: str = "auto",
    say: Callable[[str], None] | None = None,
) -> Encoder:
    """Build the encoder that makes vectors of `identity`, at the commit of the hub that made them.

    How its passes run (`execution`) is no part of an identity, and is the device's default here.

    Parameters
    ----------
    identity
        Of a store or a run.
    holder
        What holds it, for the message (``store mura.store``).
    name
        Where to find the encoder, if not under its own name: the folder or hub id of a checkpoint.
    device
        Where to run it.
    say
        Takes the encoder's notices for people, now and later; without it they are Python warnings.

    Raises
    ------
    IdentityMismatch
        If that encoder makes vectors of another identity, or the vectors were imported.
    UsageError
        If no encoder has that name, or it was fine-tuned and `name` is not its folder.
    """
    identity.require_computed(holder=holder)
    place = name or identity.encoder
    if FINETUNED in identity.options and not is_encoder_folder(place):
        raise UsageError(
            f"{holder} holds vectors of an encoder that was fine-tuned, {identity.encoder!r}: name its folder with "
            f"`encoder`; found {place!r}"
        )
    revision = _commit_of(identity, place)
    offered = encoder_options(place, revision=revision)
    # An encoder with one way of pooling, or without a hub, has no such option.
    wanted: dict[str, Any] = {
        "pooling": identity.pooling,
        "revision": revision,
        "tokens": tokens_of(identity),
    }
    encoder = image_encoder(
        place,
        preset=identity.preprocess["preset"],
        device=device,
        dtype=identity.compute_dtype,
        square_pixels=has_square_pixels(identity),
        options=identity.options,
        **{option: setting for option, setting in wanted.items() if option in offered},
    )
    if identity.crop is not None:
        encoder = OfCrops(encoder, identity.crop)
    if say is not None:
        encoder.report_to(say)
    identity.require_same(encoder.identity, holder=holder)
    return encoder


def has_square_pixels(identity: Identity) -> bool:
    """Return `PreprocessSpec.square_pixels` of an identity; stores from before the choice do not state it."""
    return bool(identity.preprocess.get("square_pixels", False))


def _factory(name: str, revision: str | None) -> Callable[..., Encoder]:
    found = find_plugin(ENCODERS, name)
    if found is not None:
        registered: Callable[..., Encoder] = found.load()
        return registered
    if "/" in name or Path(name).is_dir():
        # Reached only here, so that the names above cost no deep-learning import.
        from embedstore.encoders.checkpoint_encoders import encoder_for_checkpoint

        return encoder_for_checkpoint(name, revision=revision)
    raise UsageError(
        f"`encoder` must be one of {', '.join(encoder_names())}, a folder or a hub id; found {name!r}"
        f"{did_you_mean(name, encoder_names())}"
    )


def _offered(factory: Callable[..., Encoder], wanted: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the options that were given; refuse one that the encoder does not know."""
    given = {option: setting for option, setting in wanted.items() if setting is not None}
    unknown = sorted(given.keys() - inspect.signature(factory).parameters.keys())
    if unknown:
        raise UsageError(f"encoder {name!r} has no {' and no '.join(unknown)}; leave it out")
    return given


def _require_stated(encoder: Encoder, own: Mapping[str, Any], name: str) -> None:
    """Refuse an encoder whose identity does not say which of its own options made its vectors."""
    stated = encoder.identity.options
    silent = sorted(option for option, setting in own.items() if stated.get(option) != setting)
    if silent:
        raise PluginError(
            f"the identity of encoder {name!r} must state its own options, or vectors of two settings would mix; "
            f"it does not state {', '.join(f'{option}={own[option]!r}' for option in silent)}. "
            "Its author should pass Identity(..., options=...)"
        )


_COMMIT = re.compile(r"[0-9a-f]{40}")


def _commit_of(identity: Identity, place: str) -> str | None:
    """Return the commit of the hub that made the vectors; a folder has no commits, whatever it holds."""
    is_folder = place not in encoder_names() and Path(place).is_dir()
    return identity.revision if _COMMIT.fullmatch(identity.revision) and not is_folder else None
