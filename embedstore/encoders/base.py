"""What an encoder is: the contract, and what it may offer beyond it.

An encoder of an entry point needs `Encoder` and nothing else. One that offers more is used for more: batches that
overlap on the device, a count of operations, notices for people, further arrays.

An encoder that gives more than a vector per image (a grid of tokens) declares each further array in its identity
(`Identity.arrays`), since it is part of what a row of the store is, and its stream returns it in `Encoded.further`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedstore.identity import Identity
from embedstore.images.preprocess import PreprocessSpec


class Encoder(Protocol):
    """Turns a batch of preprocessed images into vectors.

    The constructor stores its arguments; `load` touches weights and devices. `identity` is known
    without `load`, so that a finished store is recognised without loading a model. What an encoder may
    offer beyond this is in `embedstore.encoders.base`.
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


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch that is through.

    Parameters
    ----------
    vectors
        (n, dim) float32, as `Encoder.encode` returns them.
    busy_s
        Seconds that the device worked on it, waiting and copying left out where the device can tell.
    further
        Array -> (n, *row shape) float32, for each of the identity's further arrays. As for vectors, row i
        depends on image i alone.
    """

    vectors: npt.NDArray[np.float32]
    busy_s: float
    further: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)


class EncoderStream(Protocol):
    """Batches on their way through an encoder; they come out in the order in which they went in."""

    def put(self, pixels: npt.NDArray[np.uint8]) -> Sequence[Encoded]:
        """Take a batch, as `Encoder.encode` does, and return the batches that are through.

        On a device that works beside the host that is not this batch but the one before: it is waited for
        only when this one stands in the queue, so that the device never runs dry.
        """
        ...

    def drain(self) -> Sequence[Encoded]:
        """Wait for every batch that is still on its way and return them."""
        ...


class OneByOne:
    """A stream that encodes each batch while it is put; the device is taken to work all that time.

    Parameters
    ----------
    encode
        As `Encoder.encode`.
    further
        Takes the same pixels and returns the identity's further arrays of them, as `Encoded.further`.
    """

    def __init__(
        self,
        encode: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]],
        *,
        further: Callable[[npt.NDArray[np.uint8]], Mapping[str, npt.NDArray[np.float32]]] = lambda pixels: {},
    ) -> None:
        self.encode = encode
        self.further = further

    def put(self, pixels: npt.NDArray[np.uint8]) -> Sequence[Encoded]:
        """Encode a batch and return it."""
        started = perf_counter()
        vectors, further = self.encode(pixels), self.further(pixels)
        return [Encoded(vectors, perf_counter() - started, further)]

    def drain(self) -> Sequence[Encoded]:
        """Return nothing: no batch is ever on its way."""
        return []


def open_stream(encoder: Encoder) -> EncoderStream:
    """Return the stream that a loaded encoder offers as ``open_stream()``, or else one batch after the other."""
    offered: Callable[[], EncoderStream] | None = getattr(encoder, "open_stream", None)
    return OneByOne(encoder.encode) if offered is None else offered()


def flops_per_image(encoder: Encoder) -> float | None:
    """Return the floating-point operations of one picture, or None for an encoder without ``flops_per_image``."""
    flops: float | None = getattr(encoder, "flops_per_image", None)
    return flops


def report_to(encoder: Encoder, say: Callable[[str], None]) -> None:
    """Have the encoder's notices for people said; one without ``report_to(say)`` has none."""
    listen: Callable[[Callable[[str], None]], None] | None = getattr(encoder, "report_to", None)
    if listen is not None:
        listen(say)
