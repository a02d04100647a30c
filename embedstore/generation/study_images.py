"""The images of studies as a generative model sees them: found by a store's manifest, decoded as for a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.decoding.decode import DecodeJob, Decoder
from embedstore.errors import DataError, ImageRefused, UsageError
from embedstore.generation.slice_choice import VIEWS, Chosen, SliceRule, StudySlices
from embedstore.images.preprocess import PreprocessSpec
from embedstore.keys.key_file import Key
from embedstore.manifest import Record, path_from_manifest
from embedstore.pipeline.chunk_work import ChunkWork
from embedstore.pipeline.series_ranges import SeriesRanges, ranges_of_series, series_members
from embedstore.queries.conditions import Where, parse_conditions
from embedstore.queries.image_files import ImageFiles, hidden_images
from embedstore.queries.manifest_columns import chosen_rows, column_text, require_columns, unit_names
from embedstore.store.reader import FAILED, Store
from embedstore.store.receipt import series_of

_UNIT = "study"


@dataclass(frozen=True, kw_only=True)
class ShownImage:
    """A slice that is to be shown: where it lies and which view it is."""

    record: Record
    root: Path
    view: str


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """A study and the slices that it will show, in order.

    Parameters
    ----------
    study_id
        Its id in the store.
    shown
        The slices.
    lacking
        Views that were asked for and of which the study has no slice.
    """

    study_id: str
    shown: tuple[ShownImage, ...]
    lacking: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StudyImages:
    """A study with its pictures.

    Parameters
    ----------
    plan
        What was to be shown.
    pictures
        (size, size) or (size, size, 3) uint8, one for each of `shown`.
    shown
        The slices that could be decoded.
    failed
        Image id -> why it could not, a reason's code and words.
    """

    plan: StudyPlan
    pictures: tuple[npt.NDArray[np.uint8], ...]
    shown: tuple[ShownImage, ...]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def views(self) -> list[str]:
        """The view of each picture."""
        return [image.view for image in self.shown]


@dataclass(frozen=True, kw_only=True)
class Studies:
    """The studies of a store that are to be answered, and where the rest of their series lies.

    Parameters
    ----------
    plans
        One for each study, in the order of the store.
    mri_range
        Which values of an MR series become black and white, as in the store.
    known_ranges
        Such values of series that the store has already.
    members
        Folder -> series -> its records, for those that it has not.
    """

    plans: tuple[StudyPlan, ...]
    mri_range: str
    known_ranges: Mapping[str, tuple[float, float]]
    members: Mapping[Path, Mapping[str, Sequence[Record]]]

    def spec(self, size_px: int) -> PreprocessSpec:
        """Return how a slice becomes a picture of this size: padded to a square, not squashed."""
        return PreprocessSpec("pad", size_px=size_px, mri_range=self.mri_range)


def plan_studies(
    store: Store,
    rule: SliceRule,
    *,
    ids: Sequence[str] = (),
    labelled: Sequence[str] | None = None,
    where: Where = (),
    limit: int | None = None,
    key: Key | None = None,
) -> Studies:
    """Choose the studies and their slices.

    Parameters
    ----------
    store
        The opened store; images that failed when it was made are passed over.
    rule
        How many slices of each view.
    ids
        Only the studies of these ids, or of images of these ids; all by default.
    labelled
        Only studies among these (those of a task).
    where
        Conditions that images must meet to be shown.
    limit
        Only the first so many studies.
    key
        The key of a store whose paths are hidden.

    Raises
    ------
    DataError
        If a study is not in the store, the conditions or the task leave none, the store does not say which view a
        slice is, or its paths are hidden and there is no key.
    UsageError
        If `limit` is less than 1, or the store has no such column.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"`limit` must be 1 or more; found {limit}")
    require_columns([store], ["study_id"])
    places = _Places(store, key)
    kept = _showable(store, places)
    table = store.table.take(pa.array(kept))
    names = unit_names(table, _UNIT)
    chosen = chosen_rows(store, table, names, ids=ids, where=parse_conditions(where))
    if labelled is not None:
        chosen = chosen[np.isin(names[chosen], list(labelled))]
        if not len(chosen):
            raise DataError(
                f"the task must label studies of store {store.path} that meet the conditions; found none"
            )
    rows_of: dict[str, list[int]] = {}
    for row in chosen.tolist():
        rows_of.setdefault(str(names[row]), []).append(row)
    slices, records = StudySlices(table, holder=f"store {store.path}"), places.records(table)
    known = {} if store.identity.declared else store.series_ranges()
    return Studies(
        plans=tuple(
            _plan(study, slices.choose(np.array(rows, np.int64), rule), rule, records)
            for study, rows in list(rows_of.items())[:limit]
        ),
        mri_range=str(store.identity.preprocess.get("mri_range", PreprocessSpec().mri_range)),
        known_ranges=known,
        members=_members(records, known),
    )


def _showable(store: Store, places: _Places) -> npt.NDArray[np.int64]:
    """Return the rows of whole slices of studies whose files are known and could be read."""
    whole = column_text(store.table, "crop") == ""
    if store.rows and not whole.any():
        raise DataError(
            f"store {store.path} must hold whole slices; found crops. Name the store of the slices"
        )
    placed = np.array([image_id in places.of_image for image_id in store.image_ids], np.bool_)
    of_study = unit_names(store.table, _UNIT) != ""
    kept = np.flatnonzero(placed & whole & of_study & (store.status != FAILED))
    if not len(kept):
        raise DataError(
            f"store {store.path} must hold images of studies; found none with a study_id and a place"
        )
    return kept


def decoded_studies(
    studies: Studies, plans: Sequence[StudyPlan], decoder: Decoder, *, ahead: int
) -> Iterator[StudyImages]:
    """Decode the slices of some of the studies, in order; what cannot be decoded is left out with its reason.

    Parameters
    ----------
    studies
        As `plan_studies` returned them.
    plans
        Those to decode.
    decoder
        Made for `Studies.spec`.
    ahead
        Images that may be decoded while the consumer computes.
    """
    ranges = _Ranges(studies, decoder)
    jobs = (_job(image, ranges.of(image)) for plan in plans for image in plan.shown)
    outcomes = decoder.decode(jobs, ahead=ahead)
    for plan in plans:
        pictures, shown, failed = [], [], {}
        for image in plan.shown:
            outcome = next(outcomes)
            if isinstance(outcome, ImageRefused):
                failed[image.record.image_id] = f"{outcome.reason}: {outcome.message}"
            else:
                pictures.append(outcome.pixels)
                shown.append(image)
        yield StudyImages(plan=plan, pictures=tuple(pictures), shown=tuple(shown), failed=failed)


def _plan(
    study: str, chosen: Sequence[Chosen], rule: SliceRule, records: Sequence[tuple[Record, Path]]
) -> StudyPlan:
    there = {entry.view for entry in chosen}
    shown = [ShownImage(record=records[at.row][0], root=records[at.row][1], view=at.view) for at in chosen]
    return StudyPlan(
        study_id=study,
        shown=tuple(shown),
        lacking=tuple(view for view in VIEWS if rule.counts[view] and view not in there),
    )


def _job(image: ShownImage, limits: Mapping[str, tuple[float, float]]) -> DecodeJob:
    record = image.record
    return DecodeJob(
        path=str(path_from_manifest(image.root, record.path)),
        frame=record.frame,
        modality=record.modality,
        value_range=limits.get(""),
        ranges_by_kind={kind: found for kind, found in limits.items() if kind},
    )


class _Ranges:
    """The value range of each MR series: the store's, or else that of all slices of the series, counted once."""

    def __init__(self, studies: Studies, decoder: Decoder) -> None:
        self._known = ranges_of_series(studies.known_ranges)
        self._counted = {
            root: SeriesRanges(root, members, studies.mri_range, decoder)
            for root, members in studies.members.items()
        }

    def of(self, image: ShownImage) -> Mapping[str, tuple[float, float]]:
        """Return the ranges of an image's series by kind of value."""
        series, counted = image.record.series_id, self._counted.get(image.root)
        if counted is not None and series in counted.members:
            work = counted.of(ChunkWork(0, 0, (0,), (image.record,)))
            return ranges_of_series(work.series_ranges).get(series, {})
        return self._known.get(series, {})


class _Places:
    """Where the images of a store lie."""

    def __init__(self, store: Store, key: Key | None) -> None:
        files = ImageFiles(key)
        self.of_image = {
            image_id: (root, path)
            for part in store.parts
            for image_id, root, path in files.of_part(store, part)
        }
        if not self.of_image:
            hidden = hidden_images(store)
            raise DataError(
                f"the images of store {store.path} must be found to be shown; found "
                + (f"hidden paths of {hidden:,} images: name their `key_file`" if hidden else "no path")
            )

    def records(self, table: pa.Table) -> list[tuple[Record, Path]]:
        """Return each row of a table as a record with the folder that its path is below."""
        columns = [table.column(name).to_pylist() for name in ("image_id", "frame", "modality", "series_id")]
        found = []
        for image_id, frame, modality, series_id in zip(*columns, strict=True):
            root, path = self.of_image[image_id]
            found.append((Record(image_id, path, frame or 0, modality or "", series_id or ""), root))
        return found


def _members(
    records: Sequence[tuple[Record, Path]], known: Mapping[str, tuple[float, float]]
) -> dict[Path, dict[str, list[Record]]]:
    """Return the MR series of which no range is known, by folder."""
    have = {series_of(name) for name in known}
    of_root: dict[Path, list[Record]] = {}
    for record, root in records:
        if record.series_id not in have:
            of_root.setdefault(root, []).append(record)
    return {root: series_members(inside) for root, inside in of_root.items()}
