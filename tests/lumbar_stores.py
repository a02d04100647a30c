"""Small stores of lumbar slices and crops whose vectors say the severity, with the columns of the readers."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.identity import Identity
from embedstore.lumbar.crop_rule import CropRule
from embedstore.lumbar.levels import CLASS_WEIGHTS, CLASSES, LEVELS, SEVERITY, TARGETS, scored_condition
from embedstore.lumbar.target_images import level_of, side_of
from embedstore.manifest import manifest_from_columns
from embedstore.store.commit import ChunkResult
from embedstore.store.tasks import write_task
from embedstore.store.writer import open_writer
from embedstore.task import Task
from tests.stores import IDENTITY

DIM = 6
LOCALISER = hashlib.sha256(b"localiser").hexdigest()
_KINDS = {"spinal": "canal_sagittal_t2", "foraminal": "foramen_sagittal_t1", "subarticular": "axial_t2"}
_SERIES = {"spinal": "Sagittal T2/STIR", "foraminal": "Sagittal T1", "subarticular": "Axial T2"}


def severities(studies: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return (studies, 25) classes: mostly normal, and alike within a study."""
    generator = np.random.default_rng(seed)
    age = generator.normal(size=(studies, 1))
    grade = age + generator.normal(size=(studies, len(TARGETS)))
    return np.digitize(grade, [0.6, 1.8])


def lumbar_task(y: npt.NDArray[np.int64]) -> Task:
    labels: dict[str, list[str]] = {"unit_id": [f"{row + 1}" for row in range(len(y))]}
    labels |= {target: [CLASSES[k] for k in y[:, at]] for at, target in enumerate(TARGETS)}
    return Task(
        SEVERITY,
        "study",
        TARGETS,
        CLASSES,
        pa.table(labels),
        class_weights=CLASS_WEIGHTS,
        ordered=True,
        positive="Severe",
        primary_metric="log_loss",
    )


def make_slices(
    root: Path,
    y: npt.NDArray[np.int64],
    *,
    slices: int = 3,
    seed: int = 0,
    identity: Identity | None = None,
) -> Path:
    """Write a store of whole slices: of each series a few, which show the mean severity of its condition."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    vectors = []
    for study in range(len(y)):
        for condition, description in _SERIES.items():
            own = [at for at, target in enumerate(TARGETS) if scored_condition(target) == condition]
            for number in range(slices):
                rows.append(
                    {
                        "study_id": f"{study + 1}",
                        "series_description": description,
                        "plane": description.split()[0].lower(),
                        "position_fraction": number / (slices - 1),
                    }
                )
                vectors.append(generator.normal(size=DIM) + y[study, own].mean() * (np.arange(DIM) == number))
    return _write(root, rows, np.array(vectors), y, crop=None, identity=identity)


def make_crops(
    root: Path,
    y: npt.NDArray[np.int64],
    *,
    points: str,
    signal: float,
    without: int = -1,
    seed: int = 1,
    identity: Identity | None = None,
) -> Path:
    """Write a store of crops, one for each level and side; study `without` has no axial series.

    Vectors are of `identity`, with its rule, where there is one: zeros behind the first numbers.
    """
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    vectors = []
    for study in range(len(y)):
        for at, target in enumerate(TARGETS):
            condition = scored_condition(target)
            if study == without and condition == "subarticular":
                continue
            rows.append(
                {
                    "study_id": f"{study + 1}",
                    "crop": _KINDS[condition],
                    "level": level_of(target),
                    "side": side_of(target),
                    "mirrored": side_of(target) == "right",
                    "points": points,
                }
            )
            level = LEVELS.index(level_of(target))
            vectors.append(
                generator.normal(size=DIM)
                + signal * y[study, at] * (np.arange(DIM) == 0)
                + 0.1 * level * (np.arange(DIM) == 5)
            )
    rule = CropRule(points=points, localiser_sha256=LOCALISER if points == "localised" else "").to_json()
    return _write(root, rows, np.array(vectors), y, crop=rule, identity=identity)


def _write(
    root: Path,
    rows: list[dict[str, Any]],
    vectors: npt.NDArray[np.float64],
    y: npt.NDArray[np.int64],
    *,
    crop: dict[str, Any] | None,
    identity: Identity | None = None,
) -> Path:
    identity = identity or replace(IDENTITY, dim=DIM)
    vectors = np.pad(vectors, ((0, 0), (0, identity.dim - DIM)))
    if crop is not None:
        identity = identity.with_crop(crop)
    names = [f"{root.name}-{row}" for row in range(len(rows))]
    columns: dict[str, list[Any]] = {
        "image_id": names,
        "path": [f"{name}.dcm" for name in names],
        "patient_id": [row["study_id"] for row in rows],
        **{name: [row[name] for row in rows] for name in rows[0]},
    }
    content = np.array([list(hashlib.sha256(name.encode()).digest()) for name in names], np.uint8)
    with open_writer(root, identity, say=lambda line: None) as writer:
        manifest = manifest_from_columns(columns, source="test")
        plan = writer.plan_part(
            manifest, dataset="test", data_root="images", chunk_rows=len(rows), dtype="float32", phantom=True
        )
        writer.commit(plan, 0, ChunkResult(vectors.astype(np.float32), content, {}))
    write_task(root, lumbar_task(y))
    return root
