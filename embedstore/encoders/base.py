"""What an encoder is, and how one is found by name, folder or hub id."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError, did_you_mean
from embedstore.identity import Identity
from embedstore.images.preprocess import PreprocessSpec

ENTRY_POINT_GROUP = "embedstore.encoders"


class Encoder(Protocol):
    """Turns a batch of preprocessed images into vectors.

    The constructor stores its arguments; `load` touches weights and devices. `identity` is known
    without `load`, so that a finished store is recognised without loading a model. What an encoder may
    offer beyond this is in `embedstore.encoders.capabilities`.
    """

    name: str

    @property
    def preprocess(self) -> PreprocessSpec:
        """How a decoded image becomes the pixels that `encode` takes."""
        ...

    @property
    def device(self) -> str:
        """Where the arithmetic happens: ``cpu``, ``cuda:0``, ..., or ``auto`` before it is known."""
        ...

    @property
    def identity(self) -> Identity:
        """The identity of the vectors that `encode` returns."""
        ...

    def load(self) -> None:
        """Load weights and move them to the device; may be called more than once."""
        ...

    def encode(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Encode one batch.

        Parameters
        ----------
        pixels
            (n, size, size) grey or (n, size, size, 3) RGB, uint8, as `PreprocessSpec` describes.

        Returns
        -------
        (n, dim) float32, un-normalised. Row i depends on image i alone: the same image gives the same
        bytes in any batch, order or company.
        """
        ...


def encoder_names() -> list[str]:
    """Return the registered names, sorted."""
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
        If no encoder has that name, or it does not offer an option or its value.
    MissingWeights
        If a hub id's configuration is neither cached nor to be fetched.
    DataError
        If a folder or hub id holds another architecture.
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
    return encoder


def _factory(name: str, revision: str | None) -> Callable[..., Encoder]:
    found = [entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == name]
    if found:
        registered: Callable[..., Encoder] = found[0].load()
        return registered
    if "/" in name or Path(name).is_dir():
        # Reached only here, so that the names above cost no deep-learning import.
        from embedstore.encoders.architecture import encoder_for_checkpoint

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
