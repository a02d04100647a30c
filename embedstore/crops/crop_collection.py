"""A data set's slices -> a collection whose records are crops around level points."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.crops.plan_crops import CropPlan, PlannedCrop, plan_crops
from embedstore.datasets.base import Collection
from embedstore.datasets.dicom_folder import manifest_of_headers
from embedstore.datasets.folder_summary import count_records
from embedstore.datasets.slice_columns import slice_columns
from embedstore.errors import DataError, UsageError, first_few
from embedstore.files import StrPath
from embedstore.headers.dicom_headers import ScannedFile
from embedstore.headers.file_frames import look_into
from embedstore.lumbar.crop_rule import LOCALISED, ORACLE, CropRule, rule_from_json
from embedstore.lumbar.level_points import LEVELS_FILE, LevelPoints
from embedstore.lumbar.oracle_points import COORDINATES, oracle_points
from embedstore.manifest import CROP_COLUMNS, FIXED_COLUMNS, Manifest, crop_id, manifest_from_table
from embedstore.slices.planes import COLUMNS as PLANE_COLUMNS
from embedstore.store.documents import read_store_document
from embedstore.store.layout import StoreLayout

# Columns that crops have beside those of their slice.
COLUMNS: dict[str, pa.DataType] = {
    "level": pa.string(),
    "side": pa.string(),
    "crop": pa.string(),
    "structure": pa.string(),
    "offset": pa.int32(),
    "mirrored": pa.bool_(),
    "distance_mm": pa.float64(),
    "points": pa.string(),
    "level_confidence": pa.float64(),
    "level_unsure": pa.bool_(),
    **CROP_COLUMNS,
}
_IMAGE = "image"
# What places a slice comes from one source, whatever else a user's table calls by these names.
_FROM_HEADERS = frozenset({*PLANE_COLUMNS, "stack"})


def with_crops(
    collection: Collection,
    crops: StrPath | LevelPoints,
    *,
    size_mm: float | None = None,
    neighbours: int | None = None,
    store: StrPath | None = None,
) -> Collection:
    """Return the collection of a data set's crops around level points.

    Parameters
    ----------
    collection
        What the data set's reader found.
    crops
        The points, or where they come from (`points_for_crops`).
    size_mm
        Side of the square; None for that of the store, and 50 mm without one.
    neighbours
        Slices on each side of the nearest one; None for as many as the store has, and 1 without one.
    store
        The store that the crops are for, if it is there already.

    Raises
    ------
    UsageError, DataError
        As `points_for_crops`, `embedstore.lumbar.crop_rule.CropRule` and `crop_collection`.
    """
    points = crops if isinstance(crops, LevelPoints) else points_for_crops(crops, collection)
    held = _rule_of_store(store)
    rule = CropRule(
        held.size_mm if size_mm is None else float(size_mm),
        held.neighbours if neighbours is None else neighbours,
        points.origin,
        points.digest if points.origin == LOCALISED else "",
    )
    return crop_collection(collection, points, rule)


def _rule_of_store(store: StrPath | None) -> CropRule:
    """Return the rule of a store's crops; the usual one where there is no store of crops."""
    if store is None or not StoreLayout(Path(store)).store_file.exists():
        return CropRule()
    identity, _ = read_store_document(Path(store))
    return CropRule() if identity.crop is None else rule_from_json(identity.crop, source=f"store {store}")


def points_for_crops(crops: StrPath, collection: Collection) -> LevelPoints:
    """Return the level points that crops are to be cut around.

    Parameters
    ----------
    crops
        ``oracle`` for the points of the data set's own table of coordinates, else as `points_of_run`.
    collection
        What the data set's reader found.

    Raises
    ------
    UsageError
        If the data set has no coordinates, or the folder is no run of a localiser.
    DataError
        If a point of the table cannot be read, or the run's file of points is damaged.
    """
    if str(crops) != ORACLE:
        return points_of_run(crops)
    if COORDINATES not in collection.tables:
        raise UsageError(
            f"`crops` oracle needs a table of coordinates, which data set {collection.dataset!r} at "
            f"{collection.root} does not have; name the folder of a localiser's run instead"
        )
    return oracle_points(_Coordinates(collection))


def points_of_run(folder: StrPath) -> LevelPoints:
    """Return the level points that a localiser found.

    Parameters
    ----------
    folder
        Of a run of ``embed localise``.

    Raises
    ------
    UsageError
        If it is no such folder.
    DataError
        If its file of points is damaged.
    """
    file = Path(folder) / LEVELS_FILE
    if not file.is_file():
        raise UsageError(
            f"`crops` must be {ORACLE} or the folder of a localiser's run, which holds {LEVELS_FILE}; found "
            f"{'a folder without it' if Path(folder).is_dir() else 'no folder'} at {os.fspath(folder)}"
        )
    points = LevelPoints.load(file)
    if points.origin != LOCALISED:
        raise UsageError(f"{file}: must hold points that a localiser found; found {points.origin} points")
    return points


def crop_collection(collection: Collection, points: LevelPoints, rule: CropRule) -> Collection:
    """Return the collection of a data set's crops; nothing but headers is read, and these only where it must be.

    Tasks of studies and patients stay as they are; those of single images, which crops are not, are left out, and so
    are further tables of images.

    Raises
    ------
    DataError
        If no crop can be cut: the points are of other studies, no slice has a place in the patient, or none lies at
        them; or if the data set has a column of its own with the name of one of `COLUMNS`.
    """
    slices = _with_planes(collection)
    source = f"data set {collection.dataset} at {collection.root}"
    manifest, plan = _cropped(slices, points, rule, source=source)
    tasks = tuple(task for task in collection.tasks if task.unit != _IMAGE)
    summary = (
        count_records(manifest)
        | _describe(manifest, plan, points, collection)
        | {
            f"slices: {name}": fact
            for name, fact in collection.summary.items()
            if name not in ("patients", "studies")
        }
    )
    if len(tasks) < len(collection.tasks):
        left = first_few(task.name for task in collection.tasks if task.unit == _IMAGE)
        summary["tasks left out, of whole images"] = left
    return replace(
        collection,
        manifest=manifest,
        tasks=tasks,
        tables={},
        summary=summary,
        whole=collection.manifest,
        crop=rule.to_json(),
    )


def crops_of_headers(
    images: Sequence[ScannedFile], points: LevelPoints, rule: CropRule, *, source: str
) -> Manifest:
    """Return the crops of one study from the headers of its slices, without a data set or store.

    Parameters
    ----------
    images
        The slices (`embedstore.headers.dicom_scan.scan_headers`), all of one study whatever their headers call it;
        with a key, so that their series can be told apart.
    points
        The level points of that study alone.
    rule
        As in the identity of the vectors that are to be compared.
    source
        The study's folder, for messages.

    Returns
    -------
    Manifest
        As an extraction plans it from a folder of DICOM, for `embedstore.pipeline.embed_images.embed_records`; it may
        be empty. Value ranges are those of whole series: give that function all slices as `EmbedOptions.members`.

    Raises
    ------
    UsageError
        If the points are of several studies.
    """
    studies = points.studies
    if len(studies) > 1:
        raise UsageError(f"points must be of one study; found {first_few(studies)}")
    table = manifest_of_headers(images, source).table
    named = pa.array([studies[0] if studies else None] * table.num_rows, pa.string())
    table = table.set_column(table.column_names.index("study_id"), "study_id", named)
    return crops_of_slices(Manifest(table), points, rule, source=source)[0]


def crops_of_slices(
    slices: Manifest, points: LevelPoints, rule: CropRule, *, source: str
) -> tuple[Manifest, Mapping[str, int]]:
    """Return the crops of slices whose manifest says where they lie, and what is missing, for people -> how often.

    Parameters
    ----------
    slices
        As `embedstore.crops.plan_crops.plan_crops`.
    points, rule, source
        As `crops_of_headers`; the points may be of several studies of `slices`.
    """
    plan = plan_crops(slices.table, points, rule, source=source)
    return _manifest_of(slices, points, plan.crops, source=source), plan.absent


@dataclass(frozen=True)
class _Coordinates:
    """A collection as `oracle_points` asks a store."""

    collection: Collection

    @property
    def table(self) -> pa.Table:
        return self.collection.manifest.table

    def further_table(self, name: str) -> pa.Table:
        return self.collection.tables[name]


def _with_planes(collection: Collection) -> Manifest:
    """Return the manifest with the columns that say where slices lie, read from headers where it lacks them."""
    manifest = collection.manifest
    names = manifest.table.column_names
    if clash := [name for name in COLUMNS if name in names]:
        raise DataError(
            f"data set {collection.dataset} at {collection.root} has a column {clash[0]!r} of its own, which crops "
            f"need ({', '.join(COLUMNS)}); rename it there"
        )
    if all(name in names for name in PLANE_COLUMNS):
        return manifest
    records = list(manifest.records())
    found = look_into(collection.root, dict.fromkeys(record.path for record in records))
    headers = [
        header.of_frame(record.frame) if header and record.frame < header.frames else None
        for record in records
        for header in [found[record.path].header]
    ]
    table = manifest.table
    of_headers: dict[str, Any] = slice_columns(manifest.column("series_id"), headers)
    for name in ("echo_time_ms", "repetition_time_ms"):
        of_headers[name] = pa.array([header and getattr(header, name) for header in headers], pa.float64())
    for name, cells in of_headers.items():
        if name not in names:
            table = table.append_column(name, cells)
        elif name in _FROM_HEADERS:
            table = table.set_column(table.column_names.index(name), name, cells)
    return replace(manifest, table=table)


def _cropped(
    slices: Manifest, points: LevelPoints, rule: CropRule, *, source: str
) -> tuple[Manifest, CropPlan]:
    plan = plan_crops(slices.table, points, rule, source=source)
    if not plan.crops:
        why = ", ".join(f"{what} {count:,}" for what, count in plan.absent.items())
        raise DataError(
            f"{source}: no crop can be cut around {len(points):,} {points.origin} level points ({why or 'no points'}). "
            "Points must be of this data set's studies, and slices need a series and a place in the patient"
        )
    return _manifest_of(slices, points, plan.crops, source=source), plan


def _manifest_of(
    slices: Manifest, points: LevelPoints, crops: Sequence[PlannedCrop], *, source: str
) -> Manifest:
    """Return a row for each crop: what is known of its slice, and its own columns."""
    table = slices.table.take(pa.array([crop.row for crop in crops], pa.int64()))
    of_slices = table.column("image_id").to_pylist()
    ids = [
        crop_id(image_id, f"{crop.kind},{crop.level},{crop.side}")
        for image_id, crop in zip(of_slices, crops, strict=True)
    ]
    at = np.array([crop.point for crop in crops], np.int64)
    own: dict[str, Sequence[Any]] = {
        "level": [crop.level for crop in crops],
        "side": [crop.side for crop in crops],
        "crop": [crop.kind for crop in crops],
        "structure": points.structures[at].tolist(),
        "offset": [crop.offset for crop in crops],
        "mirrored": [crop.mirrored for crop in crops],
        "distance_mm": [crop.distance_mm for crop in crops],
        "points": [points.origin] * len(crops),
        "level_confidence": [None if np.isnan(share) else share for share in points.confidence[at].tolist()],
        "level_unsure": points.unsure[at].tolist(),
        "crop_left_px": [crop.box.left_px for crop in crops],
        "crop_top_px": [crop.box.top_px for crop in crops],
        "crop_width_px": [crop.box.width_px for crop in crops],
        "crop_height_px": [crop.box.height_px for crop in crops],
        "crop_axes": [crop.box.axes for crop in crops],
    }
    columns = {name: table.column(name) for name in table.column_names}
    columns["image_id"] = pa.chunked_array([pa.array(ids, FIXED_COLUMNS["image_id"])])
    columns |= {name: pa.chunked_array([pa.array(own[name], kind)]) for name, kind in COLUMNS.items()}
    if not slices.paths:
        return manifest_from_table(pa.table(columns), source=source)
    paths = {name: slices.paths[image_id] for name, image_id in zip(ids, of_slices, strict=True)}
    return Manifest(pa.table(columns).combine_chunks(), paths)


def _describe(
    manifest: Manifest, plan: CropPlan, points: LevelPoints, collection: Collection
) -> dict[str, str | int]:
    """Return what a person should know of the crops."""
    kinds = Counter(manifest.column("crop"))
    levels = Counter(manifest.column("level"))
    shown = len({crop.row for crop in plan.crops})
    said: dict[str, str | int] = {
        "crops by kind": ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items())),
        "crops by level": ", ".join(f"{level} {count:,}" for level, count in sorted(levels.items())),
        "cut from": f"{shown:,} of {len(collection.manifest):,} slices",
        "level points": "oracle coordinates, which no new study has"
        if points.origin == ORACLE
        else f"localised by {points.digest[:12]}",
    }
    if unsure := sum(manifest.column("level_unsure")):
        said["crops of studies whose levels are unsure"] = unsure
    said |= {f"level points left out, {why}": count for why, count in points.left_out.items()}
    return said | {f"absent, {what}": count for what, count in plan.absent.items()}
