"""What an encoder is: the contract, and the defaults that an encoder inherits.

An encoder of an entry point fulfils `Encoder`. It has to bring a name, preprocessing, device, identity, `load` and
`encode`; the rest it inherits from `EncoderDefaults`, and overrides what it can do better: batches that overlap on
the device, a count of operations, notices for people, a text tower.

An encoder that gives more than a vector per image (a grid of tokens) declares each further array in its identity
(`Identity.arrays`), since it is part of what a row of the store is, and its stream returns it in `Encoded.further`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore.identity import Identity
from embedstore.images.preprocess import PreprocessSpec
from embedstore.text_tower import TextTower


class Encoder(Protocol):
    """Turns a batch of preprocessed images into vectors.

    The constructor stores its arguments; `load` touches weights and devices. `identity` is known
    without `load`, so that a finished store is recognised without loading a model. `EncoderDefaults` has
    `origin`, `flops_per_image`, `text`, `open_stream` and `report_to` for encoders that inherit it.
    """

    name: str
    # Folder or hub id of the weights; empty for an encoder without weights, or with weights of its own package.
    origin: str

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

    @property
    def flops_per_image(self) -> float | None:
        """Floating-point operations of one picture; None where they are not counted."""
        ...

    @property
    def text(self) -> TextTower | None:
        """The text tower, whose vectors compare with those of `encode`; None without one."""
        ...

    def open_stream(self) -> EncoderStream:
        """Return a stream of batches through the loaded encoder, with the vectors that `encode` returns."""
        ...

    def report_to(self, say: Callable[[str], None]) -> None:
        """Have notices for people said, now and later."""
        ...


@dataclass(frozen=True, eq=False)
class Encoded:
    """An encoded batch.

    Parameters
    ----------
    vectors
        (n, dim) float32, as `Encoder.encode` returns them.
    busy_s
        Seconds that the device worked on it, without waiting and copying where the device measures them.
    further
        Array -> (n, *row shape) float32, for each of the identity's further arrays. As for vectors, row i
        depends on image i alone.
    """

    vectors: npt.NDArray[np.float32]
    busy_s: float
    further: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)


class EncoderStream(Protocol):
    """Batches queued in an encoder; they come out in the order in which they went in."""

    def put(self, pixels: npt.NDArray[np.uint8]) -> Sequence[Encoded]:
        """Take a batch, as `Encoder.encode` does, and return the finished batches.

        On a device that works beside the host that is not this batch but the one before: it is waited for
        only when this one is queued, so that the device never idles.
        """
        ...

    def drain(self) -> Sequence[Encoded]:
        """Wait for every unfinished batch and return them."""
        ...


class OneByOne:
    """A stream that encodes each batch while it is put; the device counts as busy all that time.

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
        """Return nothing: every batch was finished when it was put."""
        return []


class _Encodes(Protocol):
    def encode(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]: ...


class EncoderDefaults:
    """What an encoder inherits: one batch after the other, nothing counted, nothing to report, no text tower.

    Examples
    --------
    >>> from embedstore.identity import Identity
    >>> from embedstore.images.preprocess import PreprocessSpec
    >>> class BrightnessEncoder(EncoderDefaults):
    ...     name, device = "brightness", "cpu"
    ...     preprocess = PreprocessSpec("pad", size_px=8)
    ...     identity = Identity("brightness", "1", "none", preprocess.to_json(), "mean", "float32", 1)
    ...
    ...     def load(self):
    ...         pass
    ...
    ...     def encode(self, pixels):
    ...         return pixels.reshape(len(pixels), -1).mean(1, dtype=np.float32, keepdims=True)
    >>> (encoded,) = BrightnessEncoder().open_stream().put(np.full((2, 8, 8), 7, np.uint8))
    >>> encoded.vectors
    array([[7.],
           [7.]], dtype=float32)
    """

    origin: str = ""

    @property
    def flops_per_image(self) -> float | None:
        """None: operations are not counted."""
        return None

    @property
    def text(self) -> TextTower | None:
        """None: there is no text tower."""
        return None

    def open_stream(self: _Encodes) -> EncoderStream:
        """Return a stream that encodes each batch while it is put."""
        return OneByOne(self.encode)

    def report_to(self, say: Callable[[str], None]) -> None:
        """Do nothing: there are no notices."""
        del say


class OfCrops:
    """An encoder whose images are crops: the same vectors of them, under an identity that says how they are cut.

    Parameters
    ----------
    encoder
        What encodes.
    rule
        How its images are cut out of others (`Identity.crop`).
    """

    def __init__(self, encoder: Encoder, rule: Mapping[str, Any]) -> None:
        self.encoder = encoder
        self.rule = rule
        self.name = encoder.name
        self.origin = encoder.origin

    @property
    def preprocess(self) -> PreprocessSpec:
        """That of the encoder: how the square of a crop becomes pixels."""
        return self.encoder.preprocess

    @property
    def device(self) -> str:
        """As of the encoder."""
        return self.encoder.device

    @property
    def identity(self) -> Identity:
        """That of the encoder, with the rule."""
        return self.encoder.identity.with_crop(self.rule)

    @property
    def flops_per_image(self) -> float | None:
        """As of the encoder."""
        return self.encoder.flops_per_image

    @property
    def text(self) -> TextTower | None:
        """As of the encoder."""
        return self.encoder.text

    def load(self) -> None:
        """Load the encoder."""
        self.encoder.load()

    def encode(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Encode a batch of crops."""
        return self.encoder.encode(pixels)

    def open_stream(self) -> EncoderStream:
        """Return the encoder's stream."""
        return self.encoder.open_stream()

    def report_to(self, say: Callable[[str], None]) -> None:
        """Have the encoder's notices said."""
        self.encoder.report_to(say)
