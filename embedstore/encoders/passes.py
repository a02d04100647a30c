"""Pictures through a tower in forward passes of one fixed shape.

Matrix products round differently for another shape: the same picture in a batch of 1 and of 4 differs by
1e-6 in float32. A vector must not depend on its company, so every pass of an encoder has the same number
of rows and a short one is filled up with black pictures.

On a CPU that number is one. A pass of 1,024 tokens fills the cores (it is no slower than one of 4,096),
nothing is ever filled up, and a vector is the same bits by construction in any order and batch. On a CUDA
device a pass holds about 32,768 tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from embedstore.encoders.device import device_lost
from embedstore.encoders.vision import normalise
from embedstore.errors import UsageError

CUDA_PASS_TOKENS = 32_768
CUDA_PASS_ROWS_MAX = 32

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]
Forward = Callable[[torch.Tensor], torch.Tensor]

_log = logging.getLogger(__name__)


def default_pass_rows(device: torch.device, tokens: int) -> int:
    """Return the number of pictures in a pass on a device: 1 on a CPU; 32 of 448 px, 8 of 896 px on CUDA."""
    if device.type == "cpu":
        return 1
    return max(1, min(CUDA_PASS_ROWS_MAX, CUDA_PASS_TOKENS // tokens))


class FixedPasses:
    """Runs a tower over any number of pictures, always in passes of one shape.

    Parameters
    ----------
    forward
        (rows, 3, size, size) normalised -> (rows, dim) float32, on the device.
    levels
        `normalised_levels` on the device, in the tower's arithmetic.
    dim
        Length of a vector.
    rows
        Pictures in a pass. A CUDA device that runs out of memory halves it, for this and all later
        passes, and says so: rows computed before and after then differ in their last bits.
    """

    def __init__(self, forward: Forward, levels: torch.Tensor, *, dim: int, rows: int) -> None:
        self.forward = forward
        self.levels = levels
        self.device = levels.device
        self.dim = dim
        self.rows = rows

    def stream(self, batches: Iterable[Pixels]) -> Iterator[Vectors]:
        """Yield the vectors of each batch, in order.

        On a CUDA device the pictures of a batch are copied, and its passes queued, while the batch before
        is computed: `batches` is asked for the next one before the vectors of the last are waited for.
        """
        if self.device.type == "cpu":
            return (self._encode_waiting(batch) for batch in batches)
        return self._encode_ahead(batches)

    def _encode_waiting(self, batch: Pixels) -> Vectors:
        return self._joined([vectors.numpy()[:count] for vectors, count in self._passes(batch, _to_cpu)])

    def _encode_ahead(self, batches: Iterable[Pixels]) -> Iterator[Vectors]:
        staging = _Staging(self.device)
        queued: list[tuple[torch.Tensor, int]] | None = None
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        for batch in batches:
            following = [(staging.fetch(vectors), count) for vectors, count in self._passes(batch, staging)]
            following_done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            following_done.record(torch.cuda.current_stream(self.device))
            if queued is not None:
                yield self._fetched(queued, done)
            queued, done = following, following_done
        if queued is not None:
            yield self._fetched(queued, done)

    def _fetched(self, queued: list[tuple[torch.Tensor, int]], done: torch.cuda.Event) -> Vectors:
        try:
            done.synchronize()
        except RuntimeError as error:
            raise device_lost(self.device, error) from error
        return self._joined([vectors.numpy()[:count].copy() for vectors, count in queued])

    def _passes(
        self, batch: Pixels, to_device: Callable[[torch.Tensor], torch.Tensor]
    ) -> Iterator[tuple[torch.Tensor, int]]:
        """Yield (vectors of a pass, how many of its first rows are wanted)."""
        start = 0
        while start < len(batch):
            piece = batch[start : start + self.rows]
            filled = np.zeros((self.rows, *batch.shape[1:]), np.uint8)
            filled[: len(piece)] = piece
            try:
                with torch.inference_mode():
                    pixels = to_device(torch.from_numpy(filled))
                    vectors = self.forward(normalise(pixels, self.levels))
            except torch.OutOfMemoryError as error:
                self._halve(error)
                continue
            except RuntimeError as error:
                if self.device.type == "cuda" and "CUDA" in str(error):
                    raise device_lost(self.device, error) from error
                raise
            yield vectors, len(piece)
            start += len(piece)

    def _joined(self, pieces: list[Vectors]) -> Vectors:
        return np.concatenate([np.empty((0, self.dim), np.float32), *pieces])

    def _halve(self, error: Exception) -> None:
        if self.rows == 1:
            raise UsageError(
                f"device {self.device} has not the memory for one picture; free it, use another --device, "
                "or --dtype bfloat16"
            ) from error
        before, self.rows = self.rows, self.rows // 2
        _log.warning(
            "%s ran out of memory with %d pictures in a pass; going on with %d. Vectors from here on may "
            "differ in their last bits from those before",
            self.device,
            before,
            self.rows,
        )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class _Staging:
    """Page-locked memory and a stream of its own, so that copies and passes overlap on a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Copy pictures to the device beside the passes at hand; the next pass waits for them."""
        # The allocator of page-locked memory keeps a block until the copy out of it is through.
        pinned = pixels.pin_memory()
        with torch.cuda.stream(self.copies):
            copied = pinned.to(self.device, non_blocking=True)
        passes = torch.cuda.current_stream(self.device)
        passes.wait_stream(self.copies)
        # The block belongs to the copying stream; it must not be handed out again before the pass has read it.
        copied.record_stream(passes)
        return copied

    def fetch(self, vectors: torch.Tensor) -> torch.Tensor:
        """Queue the copy of vectors to page-locked memory; they are there when the passes before are done."""
        pinned = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        pinned.copy_(vectors, non_blocking=True)
        return pinned


def _to_cpu(pixels: torch.Tensor) -> torch.Tensor:
    return pixels
