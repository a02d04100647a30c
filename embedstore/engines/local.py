"""The engine for one machine: decoding processes feed one encoder, unit after unit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedstore.encoders.base import Encoder
from embedstore.engines.base import Stopwatch, UnitVectors, UnitWork
from embedstore.errors import ImageRefused, Reason
from embedstore.images.decode import DecodeJob, Decoder, EncoderInput
from embedstore.manifest import path_from_manifest

CONTENT_BYTES = 32


def run_units(
    works: Iterable[UnitWork],
    *,
    root: Path,
    encoder: Encoder,
    decoder: Decoder,
    batch_size: int,
    stopwatch: Stopwatch,
    stopping: Callable[[], bool],
) -> Iterator[UnitVectors]:
    """Compute units one after the other, decoding ahead across their borders.

    Parameters
    ----------
    works
        The units; pulled as decoding proceeds.
    root
        Folder that record paths are relative to.
    encoder
        Loaded encoder.
    decoder
        Source of pixels.
    batch_size
        Images per forward pass. A batch never crosses a unit, so a unit's bytes do not depend on its
        neighbours.
    stopwatch
        Adds up where the time went.
    stopping
        Asked between batches; when true, the unit at hand is abandoned and the iterator ends.
    """
    queue: list[UnitWork] = []
    outcomes = decoder.decode(_jobs(works, root, queue), ahead=2 * batch_size)
    while True:
        started = time.perf_counter()
        first = next(outcomes, None)
        if first is None:
            return
        work = queue.pop(0)
        collector = _UnitCollector(work, encoder, batch_size, stopwatch)
        outcome: EncoderInput | ImageRefused | None = first
        stopwatch.decode_s += time.perf_counter() - started
        for position in range(len(work.rows)):
            if position:
                waited = time.perf_counter()
                outcome = next(outcomes)
                stopwatch.decode_s += time.perf_counter() - waited
            if outcome is None or stopping():
                return
            collector.add(position, outcome)
        yield collector.finish(time.perf_counter() - started)


def _jobs(works: Iterable[UnitWork], root: Path, queue: list[UnitWork]) -> Iterator[DecodeJob]:
    for work in works:
        queue.append(work)
        for record in work.records:
            yield DecodeJob(
                path=str(path_from_manifest(root, record.path)),
                frame=record.frame,
                modality=record.modality,
                value_range=work.series_ranges.get(record.series_id),
            )


class _UnitCollector:
    """Gathers a unit's images into batches and its vectors into one array."""

    def __init__(self, work: UnitWork, encoder: Encoder, batch_size: int, stopwatch: Stopwatch) -> None:
        self.work = work
        self.encoder = encoder
        self.batch_size = batch_size
        self.stopwatch = stopwatch
        self.vectors = np.full((len(work.rows), encoder.identity.dim), np.nan, dtype=np.float32)
        self.content = np.zeros((len(work.rows), CONTENT_BYTES), dtype=np.uint8)
        self.failures: dict[int, tuple[Reason, str]] = {}
        self.batch: list[tuple[int, npt.NDArray[np.uint8]]] = []

    def add(self, position: int, outcome: EncoderInput | ImageRefused) -> None:
        if isinstance(outcome, ImageRefused):
            self.failures[self.work.rows[position]] = (outcome.reason, outcome.message)
            return
        self.content[position] = np.frombuffer(outcome.content_sha256, dtype=np.uint8)
        self.batch.append((position, outcome.pixels))
        if len(self.batch) == self.batch_size:
            self._encode()

    def finish(self, seconds: float) -> UnitVectors:
        self._encode()
        return UnitVectors(self.work, self.vectors, self.content, self.failures, seconds)

    def _encode(self) -> None:
        if not self.batch:
            return
        started = time.perf_counter()
        positions = [position for position, _ in self.batch]
        self.vectors[positions] = self.encoder.encode(stack_pixels([pixels for _, pixels in self.batch]))
        self.batch = []
        self.stopwatch.encode_s += time.perf_counter() - started


def stack_pixels(pictures: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Stack grey (size, size) and RGB (size, size, 3) pictures; with any RGB among them, grey becomes RGB."""
    if all(picture.ndim == 2 for picture in pictures):
        return np.stack(pictures)
    return np.stack(
        [picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2) for picture in pictures]
    )
