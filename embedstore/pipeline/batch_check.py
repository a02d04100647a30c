"""The one check of an extraction that its encoder's rows do not depend on their batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedstore.encoders.base import Encoded, Encoder, EncoderStream
from embedstore.errors import PluginError


class BatchCheck:
    """Encodes one picture of the first batch with several once more alone, and compares the bits.

    A store whose rows depend on their company cannot be filled by several workers, resumed, or asked with an
    image from outside without differences in the last bits that nobody would notice.
    """

    def __init__(self) -> None:
        self.done = False

    def open_stream(self, encoder: Encoder) -> EncoderStream:
        """Return the stream of a loaded encoder; the check runs in the first that gets a batch with several."""
        return encoder.open_stream() if self.done else _CheckedStream(encoder, self)


class _CheckedStream:
    def __init__(self, encoder: Encoder, check: BatchCheck) -> None:
        self._encoder = encoder
        self._check = check
        self._stream = encoder.open_stream()
        self._waiting = 0  # batches that were put and are not through
        self._picture: npt.NDArray[np.uint8] | None = None
        self._alone: npt.NDArray[np.float32] | None = None
        self._batches_before = 0  # batches that come out before the one to compare

    def put(self, pixels: npt.NDArray[np.uint8]) -> Sequence[Encoded]:
        if not self._check.done and len(pixels) > 1:
            self._picture, self._batches_before = pixels[:1].copy(), self._waiting
            self._alone = self._encoder.encode(self._picture)
            self._check.done = True
        self._waiting += 1
        return self._compared(self._stream.put(pixels))

    def drain(self) -> Sequence[Encoded]:
        return self._compared(self._stream.drain())

    def _compared(self, through: Sequence[Encoded]) -> Sequence[Encoded]:
        self._waiting -= len(through)
        if self._picture is not None and self._alone is not None:
            if self._batches_before < len(through):
                self._require_same(self._picture, self._alone, through[self._batches_before].vectors[:1])
                self._picture = self._alone = None
            else:
                self._batches_before -= len(through)
        return through

    def _require_same(
        self,
        picture: npt.NDArray[np.uint8],
        alone: npt.NDArray[np.float32],
        together: npt.NDArray[np.float32],
    ) -> None:
        if np.array_equal(alone, together, equal_nan=True):
            return
        # Memory of the device may have run out in between: passes are smaller since, and say so themselves.
        if np.array_equal(self._encoder.encode(picture), together, equal_nan=True):
            return
        apart = float(np.nanmax(np.abs(alone - together), initial=0.0))
        raise PluginError(
            f"encoder {self._encoder.name!r} gives an image another vector alone than in a batch (largest "
            f"difference {apart:.3g}), so that a store would depend on how it was filled. Build the encoder with "
            "embedstore.encoders.torch_module, or have it encode in passes of one fixed size"
        )
