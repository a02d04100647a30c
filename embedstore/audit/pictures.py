"""The pixels of a store's images, each decoded once: what is kept of a picture to judge it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedstore.audit.registration import SIDE_PX, Detail
from embedstore.audit.text_lines import letters_in_line
from embedstore.decoding.decode import DecodeJob, EncoderInput
from embedstore.decoding.pool import DecoderPool
from embedstore.errors import ImageRefused
from embedstore.images.preprocess import PreprocessSpec
from embedstore.keys.key_file import Key
from embedstore.manifest import path_from_manifest
from embedstore.pipeline.chunk_work import box_of
from embedstore.queries.image_files import ImageFiles
from embedstore.store.reader import Store

# Letters of a hundredth of a picture's height are 5 pixels high.
_DECODED_PX = 512
GIST_PX = 24
_FLAT = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """What was seen of pictures.

    Parameters
    ----------
    rows
        (m,) int64 rows whose files lie where they lay and could be decoded, ascending.
    range_grey
        (m,) grey levels between the half per mille darkest and brightest pixels.
    gists
        (m, `GIST_PX`, `GIST_PX`) float32: the picture, very small.
    letters
        (m,) the longest line of what looks like letters.
    """

    rows: npt.NDArray[np.int64]
    range_grey: npt.NDArray[np.float64]
    gists: npt.NDArray[np.float32]
    letters: npt.NDArray[np.int64]


class KeptDetails(Mapping[int, Detail]):
    """Row -> fine structure, in a temporary file: of a hundred thousand images it takes 3.7 GB.

    Closed, or left as a context, the file is gone.
    """

    _BYTES = SIDE_PX * SIDE_PX

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by __exit__
        self._aspects: dict[int, float] = {}
        self._places: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def add(self, row: int, picture: EncoderInput) -> None:
        """Keep one more, or one anew; raises OSError if the disk is full."""
        self._aspects[row] = picture.aspect
        self._file.seek(self._places.setdefault(row, len(self._places)) * self._BYTES)
        self._file.write(_smaller(_grey(picture.pixels), SIDE_PX).tobytes())

    def __getitem__(self, row: int) -> Detail:
        self._file.seek(self._places[row] * self._BYTES)
        pixels = np.frombuffer(self._file.read(self._BYTES), np.uint8).reshape(SIDE_PX, SIDE_PX)
        return Detail(pixels, self._aspects[row])

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def look_at_pictures(
    store: Store,
    image_ids: Sequence[str],
    *,
    detailed: Collection[int],
    details: KeptDetails,
    key: Key | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Pictures:
    """Decode the pictures of images, in processes that may die, and keep what judges them.

    Parameters
    ----------
    store
        The store.
    image_ids
        (n,) its images; rows count these.
    detailed
        Rows of which a larger picture is kept.
    details
        Where these go.
    key
        Key of stores whose paths are hidden; without it nothing is seen of these.
    workers
        Decoding processes.
    progress
        Told how many of how many are done.
    """
    jobs = jobs_of(store, image_ids, key)
    rows, ranges, gists, letters = [], [], [], []
    wanted = set(detailed)
    spec = PreprocessSpec(preset="hf", size_px=_DECODED_PX)
    with DecoderPool(spec, workers=workers) as decoder:
        outcomes = decoder.decode(iter(jobs.values()), ahead=2 * workers)
        for done, (row, outcome) in enumerate(zip(jobs, outcomes, strict=True), start=1):
            if progress is not None:
                progress(done, len(jobs))
            if isinstance(outcome, ImageRefused):
                continue
            grey = _grey(outcome.pixels)
            rows.append(row)
            low, high = np.quantile(grey, [0.0005, 0.9995])
            ranges.append(float(high - low))
            gists.append(_smaller(grey, GIST_PX))
            letters.append(letters_in_line(grey))
            if row in wanted:
                details.add(row, outcome)
    return Pictures(
        rows=np.array(rows, np.int64),
        range_grey=np.array(ranges),
        gists=np.array(gists, np.float32).reshape(-1, GIST_PX, GIST_PX),
        letters=np.array(letters, np.int64),
    )


def add_details(details: KeptDetails, jobs: Mapping[int, DecodeJob], *, workers: int = 1) -> None:
    """Keep the larger picture of every row that can be decoded."""
    with DecoderPool(PreprocessSpec(preset="hf", size_px=_DECODED_PX), workers=workers) as decoder:
        outcomes = decoder.decode(iter(jobs.values()), ahead=2 * workers)
        for row, outcome in zip(jobs, outcomes, strict=True):
            if not isinstance(outcome, ImageRefused):
                details.add(row, outcome)


def units_of(gists: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return (m, side, side) pictures as vectors of mean 0 and length 1; a constant one is 0."""
    flat = gists.reshape(len(gists), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    units: npt.NDArray[np.float32] = np.divide(flat, np.where(lengths > _FLAT, lengths, 1)).astype(np.float32)
    return units


def jobs_of(store: Store, image_ids: Sequence[str], key: Key | None) -> dict[int, DecodeJob]:
    """Return row -> what decodes it, of the images whose files lie where they lay, in the order of rows."""
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    files, jobs = ImageFiles(key), {}
    for part in store.parts:
        records = {record.image_id: record for record in part.manifest.records(0, part.plan.rows)}
        for image_id, root, path in files.of_part(store, part):
            place = path_from_manifest(root, path)
            if image_id in row_of and Path(place).is_file():
                record = records[image_id]
                jobs[row_of[image_id]] = DecodeJob(
                    str(place), record.frame, record.modality, crop=box_of(record)
                )
    return dict(sorted(jobs.items()))


def _grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return pixels if pixels.ndim == 2 else pixels.mean(axis=2).astype(np.uint8)


def _smaller(grey: npt.NDArray[np.uint8], side_px: int) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(grey).resize((side_px, side_px), Image.Resampling.BOX))
