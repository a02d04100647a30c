"""The engine for one machine: decoding processes feed one encoder, chunk after chunk."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedstore.decoding.decode import DecodeJob, Decoder, EncoderInput
from embedstore.encoders.base import Encoded, Encoder, EncoderStream
from embedstore.errors import ImageRefused, Note, Reason, UsageError
from embedstore.files import ABSENT, FileState, state_of
from embedstore.identity import ArraySpec, Identity
from embedstore.manifest import Record, path_from_manifest
from embedstore.pipeline.chunk_work import ChunkWork, Stopwatch, box_of
from embedstore.pipeline.series_ranges import ranges_of_series
from embedstore.store.commit import ChunkResult
from embedstore.store.layout import CONTENT_BYTES


def run_chunks(
    works: Iterable[ChunkWork],
    *,
    root: Path,
    encoder: Encoder,
    decoder: Decoder,
    batch_size: int,
    stopwatch: Stopwatch,
    stopping: Callable[[], bool],
    advance: Callable[[int], None] = lambda images: None,
    stream_of: Callable[[Encoder], EncoderStream] = lambda encoder: encoder.open_stream(),
    further: bool = True,
) -> Iterator[tuple[ChunkWork, ChunkResult]]:
    """Compute chunks one after the other, decoding and queueing ahead across their borders.

    The result of each has one row per row of its work; where a row failed its vector is NaN.

    Parameters
    ----------
    works
        The chunks; pulled as decoding proceeds.
    root
        Folder that record paths are relative to.
    encoder
        Loaded encoder.
    decoder
        Source of pixels.
    batch_size
        Images per forward pass. A batch never crosses a chunk, so a chunk's bytes do not depend on its
        neighbours.
    stopwatch
        Adds up where the time went.
    stopping
        Asked between batches; when true, the current chunk is abandoned and the iterator ends.
    advance
        Receives how many images more have a vector or a reason.
    stream_of
        Opens the stream of batches through the encoder.
    further
        Whether to keep the further arrays that the encoder declares.

    Raises
    ------
    UsageError
        If the encoder does not return the arrays that its identity declares.
    """
    queue: deque[_Queued] = deque()
    jobs = _jobs(works, root, queue, crops=encoder.identity.crop is not None)
    outcomes = decoder.decode(jobs, ahead=2 * batch_size)
    kept = encoder.identity.arrays if further else {}
    line = _Line(queue, encoder, batch_size, stopwatch, stream=stream_of(encoder), kept=kept)
    while (outcome := _awaited(outcomes, stopwatch)) is not None and not stopping():
        line.add(outcome)
        if settled := line.newly_settled():
            advance(settled)
        yield from line.finished()
    # An abandoned chunk never becomes whole; those before it may still be on their way.
    line.drain()
    advance(line.newly_settled())
    yield from line.finished()


def _awaited(
    outcomes: Iterator[EncoderInput | ImageRefused], stopwatch: Stopwatch
) -> EncoderInput | ImageRefused | None:
    started = time.perf_counter()
    outcome = next(outcomes, None)
    stopwatch.decode_s += time.perf_counter() - started
    return outcome


@dataclass(frozen=True)
class _Queued:
    """A chunk whose files are being read, and how each of them was just before."""

    work: ChunkWork
    sources: list[FileState | None] = field(default_factory=list)


def _jobs(
    works: Iterable[ChunkWork], root: Path, queue: deque[_Queued], *, crops: bool
) -> Iterator[DecodeJob]:
    for work in works:
        queued = _Queued(work)
        queue.append(queued)
        ranges = ranges_of_series(work.series_ranges)
        for record in work.records:
            _require_of_kind(record, crops=crops)
            by_kind = ranges.get(record.series_id, {})
            path = str(path_from_manifest(root, record.path))
            queued.sources.append(state_of(path) or ABSENT)
            yield DecodeJob(
                path=path,
                frame=record.frame,
                modality=record.modality,
                value_range=by_kind.get(""),
                ranges_by_kind={kind: limits for kind, limits in by_kind.items() if kind},
                crop=box_of(record),
            )


def _require_of_kind(record: Record, *, crops: bool) -> None:
    """Refuse a whole image where vectors are of crops, and the other way round: they would not compare."""
    if crops and record.crop is None:
        raise UsageError(
            f"{record.image_id}: these vectors are of crops around level points, and an image alone does not say where "
            "its levels are; give a data set with `crops`"
        )
    if not crops and record.crop is not None:
        raise UsageError(f"{record.image_id} is a crop, and these vectors are of whole images")


class _OpenChunk:
    """A chunk's arrays, and how far it has come."""

    def __init__(self, queued: _Queued, dim: int, kept: Mapping[str, ArraySpec]) -> None:
        work = queued.work
        self.work = work
        self.sources = queued.sources
        self.started = time.perf_counter()
        self.vectors = np.full((len(work.rows), dim), np.nan, dtype=np.float32)
        self.further = {
            name: np.full((len(work.rows), *spec.row_shape), np.nan, dtype=np.float32)
            for name, spec in kept.items()
        }
        self.content = np.zeros((len(work.rows), CONTENT_BYTES), dtype=np.uint8)
        self.failures: dict[int, tuple[Reason, str]] = {}
        self.notes: dict[str, tuple[int, ...]] = {}
        self.taken = 0  # rows whose outcome is here
        self.settled = 0  # rows with a vector or a reason

    @property
    def is_taken(self) -> bool:
        return self.taken == len(self.work.rows)

    @property
    def is_whole(self) -> bool:
        return self.settled == len(self.work.rows)

    def refuse(self, position: int, refusal: ImageRefused) -> None:
        self.failures[self.work.rows[position]] = (refusal.reason, refusal.message)
        self.settled += 1

    def note(self, position: int, notes: frozenset[Note]) -> None:
        for note in notes:
            self.notes[note.value] = (*self.notes.get(note.value, ()), self.work.rows[position])

    def fill(self, positions: list[int], encoded: Encoded) -> None:
        self.vectors[positions] = encoded.vectors
        for name, rows in self.further.items():
            rows[positions] = encoded.further[name]
        self.settled += len(positions)

    def result(self, *, device: str) -> ChunkResult:
        return ChunkResult(
            vectors=self.vectors,
            content=self.content,
            failures=self.failures,
            series_ranges=self.work.series_ranges,
            notes=self.notes,
            sources=tuple(self.sources),
            further=self.further,
            seconds=time.perf_counter() - self.started,
            device=device,
        )


class _Line:
    """Chunks on their way through the encoder: decoded images go in, whole chunks come out, in order."""

    def __init__(
        self,
        works: deque[_Queued],
        encoder: Encoder,
        batch_size: int,
        stopwatch: Stopwatch,
        *,
        stream: EncoderStream,
        kept: Mapping[str, ArraySpec],
    ) -> None:
        self._works = works
        self._encoder = encoder
        self._identity = encoder.identity
        self._kept = kept
        self._stream = stream
        self._flops = encoder.flops_per_image or 0.0
        self._batch_size = batch_size
        self._stopwatch = stopwatch
        self._chunks: deque[_OpenChunk] = deque()
        self._batch: list[tuple[int, npt.NDArray[np.uint8]]] = []
        self._batches: deque[tuple[_OpenChunk, list[int]]] = deque()
        self._newly_settled = 0

    def add(self, outcome: EncoderInput | ImageRefused) -> None:
        """Take the next image; a batch that is full, or the last of its chunk, goes to the encoder."""
        if not self._chunks or self._chunks[-1].is_taken:
            self._chunks.append(_OpenChunk(self._works.popleft(), self._identity.dim, self._kept))
        chunk = self._chunks[-1]
        position = chunk.taken
        chunk.taken += 1
        if isinstance(outcome, ImageRefused):
            chunk.refuse(position, outcome)
            self._newly_settled += 1
        else:
            chunk.content[position] = np.frombuffer(outcome.content_sha256, dtype=np.uint8)
            chunk.note(position, outcome.notes)
            self._batch.append((position, outcome.pixels))
        if len(self._batch) == self._batch_size or (self._batch and chunk.is_taken):
            self._put(chunk)
        elif chunk.is_whole:
            # Nothing but failures may follow for long, and failures push nothing on.
            self.drain()

    def newly_settled(self) -> int:
        """Return how many images got a vector or a reason since this was last asked."""
        count, self._newly_settled = self._newly_settled, 0
        return count

    def drain(self) -> None:
        """Wait for all that is on its way."""
        started = time.perf_counter()
        self._take(self._stream.drain())
        self._stopwatch.encode_s += time.perf_counter() - started

    def finished(self) -> Iterator[tuple[ChunkWork, ChunkResult]]:
        """Yield the finished chunks."""
        while self._chunks and self._chunks[0].is_whole:
            chunk = self._chunks.popleft()
            yield chunk.work, chunk.result(device=self._encoder.device)

    def _put(self, chunk: _OpenChunk) -> None:
        started = time.perf_counter()
        batch, self._batch = self._batch, []
        self._batches.append((chunk, [position for position, _ in batch]))
        self._take(self._stream.put(stack_pixels([pixels for _, pixels in batch])))
        self._stopwatch.encode_s += time.perf_counter() - started

    def _take(self, through: Sequence[Encoded]) -> None:
        for encoded in through:
            chunk, positions = self._batches.popleft()
            _require_declared(encoded, self._identity, count=len(positions))
            chunk.fill(positions, encoded)
            self._newly_settled += len(positions)
            self._stopwatch.busy_s += encoded.busy_s
            self._stopwatch.flops += self._flops * len(positions)


def _require_declared(encoded: Encoded, identity: Identity, *, count: int) -> None:
    """Refuse a batch whose arrays are not those of the encoder's identity; NumPy would broadcast some of them."""
    wanted = {name: (count, *spec.row_shape) for name, spec in identity.arrays.items()}
    found = {name: rows.shape for name, rows in encoded.further.items()}
    if (encoded.vectors.shape, found) != ((count, identity.dim), wanted):
        raise UsageError(
            f"encoder {identity.encoder!r} must return vectors of shape {(count, identity.dim)} and, from the "
            f"stream that it opens, the further arrays {wanted} that its identity declares; found "
            f"{encoded.vectors.shape} and {found}"
        )


def stack_pixels(pictures: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Stack grey (size, size) and RGB (size, size, 3) pictures; with any RGB among them, grey becomes RGB."""
    if all(picture.ndim == 2 for picture in pictures):
        return np.stack(pictures)
    return np.stack(
        [picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2) for picture in pictures]
    )
