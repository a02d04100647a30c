"""What an encoder is, and how one is found by name or folder."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.identity import Identity
from embedstore.images.preprocess import PreprocessSpec

ENTRY_POINT_GROUP = "embedstore.encoders"


class Encoder(Protocol):
    """Turns a batch of preprocessed images into vectors.

    The constructor stores its arguments; `load` touches weights and devices. `identity` is known
    without `load`, so that a finished store is recognised without loading a model.
    """

    name: str
    preprocess: PreprocessSpec
    device: str

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


def image_encoder(
    name: str, *, preset: str | None = None, device: str = "auto", dtype: str = "auto"
) -> Encoder:
    """Build the encoder registered as `name`.

    Parameters
    ----------
    name
        A registered name.
    preset
        Preprocess preset, or None for the encoder's own default.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
    dtype
        ``auto``, ``float32``, ``bfloat16`` or ``float16``.

    Raises
    ------
    UsageError
        If no encoder has that name, or it does not offer the preset, device or dtype.
    """
    found = [entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == name]
    if not found:
        raise UsageError(f"encoder must be one of {', '.join(encoder_names())}; found {name!r}")
    encoder: Encoder = found[0].load()(preset=preset, device=device, dtype=dtype)
    return encoder
