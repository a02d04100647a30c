"""Vectors of images outside any store: for predictions and searches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.decoding.decode import DecodeLimits
from embedstore.decoding.pool import DecoderPool
from embedstore.encoders.base import Encoder
from embedstore.errors import Reason, words_of_note
from embedstore.manifest import Record
from embedstore.pipeline.chunk_work import ChunkWork, Stopwatch
from embedstore.pipeline.run_chunks import run_chunks
from embedstore.pipeline.series_ranges import SeriesRanges, series_members, with_series_ranges
from embedstore.store.commit import round_rows
from embedstore.store.layout import VECTORS


@dataclass(frozen=True)
class Embedded:
    """Vectors of records that were not kept.

    Parameters
    ----------
    records
        The records.
    vectors
        (n, dim) float32, rounded as a store would round them; NaN where the image failed.
    content_sha256
        (n, 32) uint8 digests of the decoded pixels, as in a store; zeros where the image failed.
    failures
        ``{row: (reason, message)}``.
    notes
        What was mended or left out to show images: code of `errors.Note` -> rows, ascending.
    further
        Array -> (n, *row shape) of the store's dtype, for the further arrays that were asked for.
    """

    records: tuple[Record, ...]
    vectors: npt.NDArray[np.float32]
    content_sha256: npt.NDArray[np.uint8]
    failures: Mapping[int, tuple[Reason, str]]
    notes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    further: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def lines_of_notes(self) -> list[str]:
        """Return the notes for people, a line each."""
        return lines_of_notes({code: len(rows) for code, rows in self.notes.items()})


def lines_of_notes(counts: Mapping[str, int]) -> list[str]:
    """Return notes for people, a line each: code of `errors.Note` -> images."""
    return [
        f"note, {code}: {count:,} image{'' if count == 1 else 's'}: {words_of_note(code)}"
        for code, count in sorted(counts.items())
    ]


def files_of_notes(passes: Iterable[Embedded]) -> dict[str, int]:
    """Return code of a note -> files; one may be read several times, as a slice for its tokens and its crops."""
    paths: dict[str, set[str]] = {}
    for part in passes:
        for code, rows in part.notes.items():
            paths.setdefault(code, set()).update(part.records[row].path for row in rows)
    return {code: len(files) for code, files in paths.items()}


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """How images outside a store are encoded.

    Parameters
    ----------
    store_dtype
        Vectors are rounded to it, so that an image has the same vector in and outside a store.
    known_ranges
        Value ranges of MR series that a store holds already; others are taken over their members.
    members
        Records of whole MR series, those that are not encoded among them; by default the records that are.
    batch_size, workers, limits
        As in `embedstore.extraction.extract.ExtractOptions`.
    stopping
        Asked between batches; when true, the chunk at hand is abandoned.
    """

    store_dtype: str = "float16"
    known_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    members: Sequence[Record] | None = None
    batch_size: int = 32
    workers: int = 2
    limits: DecodeLimits | None = None
    stopping: Callable[[], bool] = _never


def embed_records(
    records: Sequence[Record], root: Path, encoder: Encoder, options: EmbedOptions | None = None
) -> Embedded:
    """Compute the vectors of records, at least one, without keeping them; as `iter_embedded`."""
    (found,) = iter_embedded([records], root, encoder, options)
    return found


def iter_embedded(
    chunks: Sequence[Sequence[Record]], root: Path, encoder: Encoder, options: EmbedOptions | None = None
) -> Iterator[Embedded]:
    """Compute the vectors of records chunk by chunk, decoding ahead across their borders.

    Parameters
    ----------
    chunks
        What to encode, at least one record in each; paths are relative to `root`.
    root
        Folder of the paths.
    encoder
        The encoder; loaded here.
    options
        How; the defaults where None.
    """
    asked = options or EmbedOptions()
    records = [record for chunk in chunks for record in chunk]
    encoder.load()
    with open_embedding(root, encoder, asked, images=len(records)) as embedding:
        yield from embedding.embed(
            chunks, encoder, members=records if asked.members is None else asked.members
        )


@contextmanager
def open_embedding(
    root: Path, encoder: Encoder, options: EmbedOptions, *, images: int | None = None
) -> Iterator[Embedding]:
    """Yield what encodes records, call after call, with the same decoding processes.

    Parameters
    ----------
    root
        Folder of the paths.
    encoder
        Says how images become pixels.
    options
        As `iter_embedded`.
    images
        How many there are at most: no more processes are started.
    """
    workers = options.workers if images is None else max(1, min(options.workers, images))
    with DecoderPool(encoder.preprocess, workers=workers, limits=options.limits) as decoder:
        yield Embedding(root=root, decoder=decoder, options=options, known=dict(options.known_ranges))


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Encodes records without keeping them; `open_embedding` makes one.

    Parameters
    ----------
    root, options
        As `open_embedding`.
    decoder
        Its processes.
    known
        Value ranges of series by now.
    """

    root: Path
    decoder: DecoderPool
    options: EmbedOptions
    known: dict[str, tuple[float, float]]

    def embed(
        self,
        chunks: Sequence[Sequence[Record]],
        encoder: Encoder,
        *,
        members: Sequence[Record],
        arrays: Sequence[str] = (),
    ) -> Iterator[Embedded]:
        """Encode records chunk by chunk, decoding ahead across their borders.

        Parameters
        ----------
        chunks
            As `iter_embedded`.
        encoder
            A loaded encoder that prepares images as that of `open_embedding`.
        members
            As `EmbedOptions.members`.
        arrays
            Further arrays to return, of those that the encoder's identity declares.
        """
        works = [
            ChunkWork(0, number, tuple(range(len(chunk))), tuple(chunk))
            for number, chunk in enumerate(chunks)
        ]
        mri_range = encoder.preprocess.mri_range
        ranges = SeriesRanges(self.root, series_members(members), mri_range, self.decoder, self.known)
        asked = self.options
        for work, result in run_chunks(
            with_series_ranges(works, ranges),
            root=self.root,
            encoder=encoder,
            decoder=self.decoder,
            batch_size=asked.batch_size,
            stopwatch=Stopwatch(),
            stopping=asked.stopping,
            further=bool(arrays),
        ):
            dtypes = dict.fromkeys((VECTORS, *arrays), asked.store_dtype)
            stored, failures = round_rows(result, dtypes, start=0)
            named = {failure.row: (failure.reason, failure.message) for failure in failures}
            yield Embedded(
                work.records,
                stored[VECTORS].astype(np.float32),
                result.content,
                named,
                result.notes,
                {name: stored[name] for name in arrays},
            )
