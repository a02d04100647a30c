"""Stores of synthetic spines (`tests/heads/localising/spines.py`): tokens, geometry, coordinates, and no image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from embedstore.crops.crop_collection import crops_of_slices
from embedstore.crops.crop_tokens import looks_of_table
from embedstore.geometry import patient_mm_to_pixel
from embedstore.lumbar.crop_rule import CropRule
from embedstore.lumbar.level_points import LevelPoints
from embedstore.manifest import Manifest, manifest_from_columns
from embedstore.slices.planes import SlicePlanes, numbers_as_text
from embedstore.store.commit import ChunkResult
from embedstore.store.reader import open_store
from embedstore.store.writer import open_writer
from embedstore.tokens.grid import TOKENS
from tests.heads.localising.near_crops import CELLS, SIZE_MM, tokens_that_show
from tests.heads.localising.spines import FEATURES, GRID, IDENTITY, SpineSource
from tests.stores import content_of

_CONDITION_OF = {
    "canal": "Spinal Canal Stenosis",
    "left_foramen": "Left Neural Foraminal Narrowing",
    "right_foramen": "Right Neural Foraminal Narrowing",
    "left_subarticular": "Left Subarticular Stenosis",
    "right_subarticular": "Right Subarticular Stenosis",
}
_DESCRIPTIONS = {"T2": "Sagittal T2/STIR", "T1": "Sagittal T1"}


def write_spine_store(
    path: Path,
    source: SpineSource,
    *,
    change: Callable[[dict], dict] = lambda row: row,
    coordinates: bool = True,
) -> None:
    """Write a store of the sagittal series of a source and of an axial slice through each disc that has points.

    Parameters
    ----------
    change
        Takes and returns a row of the manifest.
    coordinates
        Keep the readers' points.
    """
    rows, tokens = [], []
    for study, grids in source.grids.items():
        for grid in grids.series:
            rows += [
                _row(
                    study,
                    source,
                    f"{study}/{grid.kind}",
                    _DESCRIPTIONS[grid.kind],
                    "sagittal",
                    grid.planes,
                    at,
                )
                for at in range(len(grid.planes))
            ]
            tokens.append(grid.tokens)
        canal = [
            row["xyz_mm"] for row in source.points if row["study_id"] == study and row["structure"] == "canal"
        ]
        if canal:
            planes = _axial(np.array(canal))
            rows += [
                _row(study, source, f"{study}/axial", "Axial T2", "axial", planes, at)
                for at in range(len(planes))
            ]
            tokens.append(np.zeros((len(planes), GRID, GRID, FEATURES)))
    planes_of_image = {row["image_id"]: row.pop("planes") for row in rows}
    changed = [change(dict(row)) for row in rows]
    manifest = manifest_from_columns(
        {name: [row[name] for row in changed] for name in changed[0]}, source="synthetic spines"
    )
    with open_writer(path, source.identity, say=lambda line: None) as writer:
        plan = writer.plan_part(
            manifest,
            dataset="rsna-lumbar",
            data_root="spines",
            dtype="float16",
            chunk_rows=64,
            tables={"coordinates": _coordinates(source, rows, planes_of_image)} if coordinates else {},
        )
        values = np.concatenate(tokens).astype(np.float32)
        for chunk in range(plan.chunks):
            start, stop = plan.bounds(chunk)
            result = ChunkResult(
                np.ones((stop - start, IDENTITY.dim), np.float32),
                content_of(start, stop),
                {},
                further={TOKENS: values[start:stop]},
            )
            writer.commit(plan, chunk, result)


def write_near_store(path: Path, slices: Path, levels: LevelPoints, source: SpineSource) -> None:
    """Write a store of crops around levels, cut of a store by `write_spine_store`, whose tokens show the points.

    The points are those of `source`; where it has none, crops show the levels themselves.
    """
    rule = CropRule(SIZE_MM, 0, levels.origin, levels.digest)
    whole = Manifest(open_store(slices).table)
    manifest, _ = crops_of_slices(whole, levels, rule, source="synthetic spines")
    identity = IDENTITY.with_crop(rule.to_json())
    usable = np.ones(len(manifest), bool)
    looks, rows = looks_of_table(manifest.table, usable, levels, identity, source="synthetic spines")
    true = {(row["study_id"], row["structure"], row["level"]): row["xyz_mm"] for row in source.points}
    keys = zip(levels.study_ids, levels.structures, levels.levels, strict=True)
    offsets = np.array([true.get(key, at) for key, at in zip(keys, levels.xyz_mm, strict=True)])
    shown = looks.in_plane_mm((offsets - levels.xyz_mm)[looks.points])
    values = np.zeros((len(manifest), CELLS, CELLS, FEATURES), np.float32)
    values[rows] = tokens_that_show(shown, noise=0.05, seed=0)
    with open_writer(path, identity, say=lambda line: None) as writer:
        plan = writer.plan_part(
            manifest, dataset="rsna-lumbar", data_root="spines", dtype="float16", chunk_rows=256
        )
        for chunk in range(plan.chunks):
            start, stop = plan.bounds(chunk)
            vectors = np.ones((stop - start, IDENTITY.dim), np.float32)
            further = {TOKENS: values[start:stop]}
            writer.commit(plan, chunk, ChunkResult(vectors, content_of(start, stop), {}, further=further))


def _row(study, source, series, description, plane, planes, at):
    name = f"train_images/{series}/{at + 1}.dcm"
    return {
        "image_id": name,
        "path": name,
        "patient_id": source.patients[study],
        "study_id": study,
        "series_id": series,
        "modality": "MR",
        "series_description": description,
        "plane": plane,
        "stack": 0,
        "image_orientation": numbers_as_text(planes.orientations[at : at + 1])[0],
        "image_position": numbers_as_text(planes.positions_mm[at : at + 1])[0],
        "row_spacing_mm": float(planes.spacings_mm[at, 0]),
        "column_spacing_mm": float(planes.spacings_mm[at, 1]),
        "image_rows": int(planes.shapes_px[at, 0]),
        "image_columns": int(planes.shapes_px[at, 1]),
        "planes": planes.take([at]),
    }


def _axial(canal):
    n = len(canal)
    corner = canal - [80.0, 80.0, 0.0]
    return SlicePlanes(np.tile([1.0, 0, 0, 0, 1, 0], (n, 1)), corner, np.ones((n, 2)), np.full((n, 2), 160.0))


def _coordinates(source, rows, planes_of_image):
    """Mark each point on the nearest slice of its series, as readers do."""
    cells = []
    for point in source.points:
        kind = {"canal": "T2", "foramen": "T1"}.get(point["structure"].rpartition("_")[2], "axial")
        series = f"{point['study_id']}/{kind}"
        images = [row["image_id"] for row in rows if row["series_id"] == series]
        if not images:
            continue
        found = []
        for image_id in images:
            planes = planes_of_image[image_id]
            pixel, away = patient_mm_to_pixel(
                point["xyz_mm"][None], planes.orientations, planes.positions_mm, planes.spacings_mm
            )
            found.append((abs(float(away[0])), image_id, pixel[0]))
        _, image_id, (x, y) = min(found, key=lambda entry: entry[0])
        cells.append(
            {
                "image_id": image_id,
                "study_id": point["study_id"],
                "series_id": kind,
                "condition": _CONDITION_OF[point["structure"]],
                "level": point["level"].upper().replace("_", "/"),
                "instance_number": int(image_id.rpartition("/")[2].removesuffix(".dcm")),
                "x": float(x),
                "y": float(y),
            }
        )
    return pa.Table.from_pylist(cells)
