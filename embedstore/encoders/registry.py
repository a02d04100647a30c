"""Names, folders and hub ids -> encoders."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from embedstore.encoders.base import Encoder, EncoderDefaults
from embedstore.errors import UsageError, did_you_mean
from embedstore.identity import Identity
from embedstore.plugins import require_members

ENTRY_POINT_GROUP = "embedstore.encoders"


def encoder_names() -> list[str]:
    """Return the registered names, sorted.

    Examples
    --------
    >>> es.encoder_names()
    ['hog', 'medgemma-896', 'medsiglip-448']
    """
    return sorted(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))


def encoder_options(name: str, *, revision: str | None = None) -> frozenset[str]:
    """Return which options of `image_encoder` an encoder takes; raises as `image_encoder`."""
    return frozenset(inspect.signature(_factory(name, revision)).parameters)


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

    Raises
    ------
    UsageError
        If no encoder has that name, it lacks a part of the contract, or it does not offer an option or its value.
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
    options: dict[str, Any] = {"preset": preset, "device": device, "dtype": dtype}
    wanted = {
        "revision": revision,
        "pooling": pooling,
        "pass_rows": pass_rows,
        "execution": execution,
    }
    options |= _offered(factory, wanted, name)
    encoder: Encoder = factory(**options)
    require_members(encoder, Encoder, what=f"encoder {name!r}", base=EncoderDefaults)
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
        If that encoder makes vectors of another identity.
    UsageError
        If no encoder has that name.
    """
    place = name or identity.encoder
    revision = _commit_of(identity, place)
    offered = encoder_options(place, revision=revision)
    # An encoder with one way of pooling, or without a hub, has no such option.
    wanted: dict[str, Any] = {"pooling": identity.pooling, "revision": revision}
    encoder = image_encoder(
        place,
        preset=identity.preprocess["preset"],
        device=device,
        dtype=identity.compute_dtype,
        **{option: setting for option, setting in wanted.items() if option in offered},
    )
    if say is not None:
        encoder.report_to(say)
    identity.require_same(encoder.identity, holder=holder)
    return encoder


def _factory(name: str, revision: str | None) -> Callable[..., Encoder]:
    found = [entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == name]
    if found:
        registered: Callable[..., Encoder] = found[0].load()
        return registered
    if "/" in name or Path(name).is_dir():
        # Reached only here, so that the names above cost no deep-learning import.
        from embedstore.encoders.checkpoint_encoders import encoder_for_checkpoint

        return encoder_for_checkpoint(name, revision=revision)
    raise UsageError(
        f"encoder must be one of {', '.join(encoder_names())}, a folder or a hub id; found {name!r}"
        f"{did_you_mean(name, encoder_names())}"
    )


def _offered(factory: Callable[..., Encoder], wanted: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the options that were given; refuse one that the encoder does not know."""
    given = {option: setting for option, setting in wanted.items() if setting is not None}
    unknown = sorted(given.keys() - inspect.signature(factory).parameters.keys())
    if unknown:
        raise UsageError(f"encoder {name!r} has no {' and no '.join(unknown)}; leave it out")
    return given


_COMMIT = re.compile(r"[0-9a-f]{40}")


def _commit_of(identity: Identity, place: str) -> str | None:
    """Return the commit of the hub that made the vectors; a folder has no commits, whatever it holds."""
    is_folder = place not in encoder_names() and Path(place).is_dir()
    return identity.revision if _COMMIT.fullmatch(identity.revision) and not is_folder else None
