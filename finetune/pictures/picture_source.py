"""Pixels of training images: decoded ahead in other processes, and kept in memory as far as they fit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from embedstore.decoding.decode import DecodeJob, DecodeLimits, Decoder, SerialDecoder
from embedstore.decoding.pool import DecoderPool
from embedstore.errors import DataError, ImageRefused
from embedstore.images.preprocess import PreprocessSpec
from embedstore.pipeline.run_chunks import stack_pixels

Pixels = npt.NDArray[np.uint8]
_MOST_BYTES = 8 << 30


class PictureSource:
    """Gives pictures by number, in any order; use it as a context manager.

    Parameters
    ----------
    jobs
        How each image is decoded.
    spec
        What it becomes.
    workers
        Decoding processes; 0 decodes in this one.
    memory_bytes
        What may be kept; None for half of the machine's memory, at most 8 GiB. The first that come are kept.
    """

    def __init__(
        self,
        jobs: Sequence[DecodeJob],
        spec: PreprocessSpec,
        *,
        workers: int = 0,
        memory_bytes: int | None = None,
    ) -> None:
        self.jobs = jobs
        self.spec = spec
        self.workers = workers
        self.memory_bytes = _usual_memory() if memory_bytes is None else memory_bytes
        self._pool: DecoderPool | None = None
        self._decoder: Decoder = SerialDecoder(spec, DecodeLimits())
        self._kept: dict[int, Pixels] = {}
        self._kept_bytes = 0

    def __enter__(self) -> Self:
        if self.workers:
            self._pool = DecoderPool(self.spec, workers=self.workers)
            self._decoder = self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.__exit__(kind, error, trace)
            self._pool = None

    def batches(self, batches: Iterable[npt.NDArray[np.int64]]) -> Iterator[Pixels]:
        """Yield the pictures of each batch of numbers: (n, size, size) or (n, size, size, 3) uint8.

        A number stands in one batch only.

        Raises
        ------
        DataError
            If an image cannot be decoded, although it could when its store was made.
        """
        listed = [batch.tolist() for batch in batches]
        wanted = [number for batch in listed for number in batch if number not in self._kept]
        ahead = 2 * max(map(len, listed), default=1)
        outcomes = self._decoder.decode((self.jobs[number] for number in wanted), ahead=ahead)
        to_come = set(wanted)
        for batch in listed:
            for number in batch:
                if number in to_come:
                    self._take(number, next(outcomes))
            yield stack_pixels([self._kept[number] for number in batch])
            self._forget(batch)

    def _take(self, number: int, outcome: object) -> None:
        if isinstance(outcome, ImageRefused):
            raise DataError(
                f"{self.jobs[number].path} cannot be read any more ({outcome.reason}: {outcome.message}), although it "
                "could when its store was made; mend it, or extract the store again without it"
            )
        self._kept[number] = outcome.pixels  # type: ignore[attr-defined]
        self._kept_bytes += outcome.pixels.nbytes  # type: ignore[attr-defined]

    def _forget(self, batch: Sequence[int]) -> None:
        """Let go of the pictures of a batch, last ones first, until what is kept fits."""
        for number in reversed(batch):
            if self._kept_bytes <= self.memory_bytes:
                return
            picture = self._kept.pop(number, None)
            self._kept_bytes -= 0 if picture is None else picture.nbytes


def _usual_memory() -> int:
    return min(_MOST_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
