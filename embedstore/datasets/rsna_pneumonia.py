"""RSNA Pneumonia Detection Challenge 2018: chest radiographs with boxes around opacities.

Layout: the competition's own stage 2 files. A patient has one image; a positive one has one row per box.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore.datasets.base import Collection
from embedstore.datasets.folder_summary import absent_files, count_records, describe_absent, refuse_folder
from embedstore.errors import DataError
from embedstore.headers.file_frames import FileContent, frame_id, look_into
from embedstore.manifest import FIXED_COLUMNS, Manifest, manifest_from_table
from embedstore.tables.rows import Rows
from embedstore.tables.table_file import read_rows
from embedstore.task import Task

TRAIN_IMAGES, TEST_IMAGES = "stage_2_train_images", "stage_2_test_images"
LABELS, DETAILS = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
OPACITY = ("no opacity", "opacity")
DETAIL = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
_BOX = ("x", "y", "width", "height")


class RsnaPneumonia:
    """Reads the unpacked competition folder.

    The task ``opacity`` says whether an image has a box; ``detail`` is the three-class reading. The boxes
    are kept as the table ``boxes`` (pixels: left, top, width, height). Images of the test folder have the
    split ``test`` and no labels; the others have none, because the competition has no official validation
    set. A labelled patient whose file is missing stays a record.
    """

    name = "rsna-pneumonia"

    def read(self, root: Path) -> Collection:
        """Index the folder and read every header; no pixel is decoded.

        Raises
        ------
        DataError
            If `root` is something else, or a table is malformed or contradicts itself; with the line.
        """
        if not (root / LABELS).is_file():
            raise refuse_folder(
                root,
                expected=f"{LABELS} beside {TRAIN_IMAGES}/",
                advice="Point the root at the unpacked rsna-pneumonia-detection-challenge folder.",
            )
        opacity, boxes = _read_labels(root)
        manifest = _build_manifest(root, list(opacity))
        ids = {patient: f"{TRAIN_IMAGES}/{patient}.dcm" for patient in opacity}
        tasks = [
            _task(
                "opacity",
                OPACITY,
                "opacity",
                {ids[patient]: OPACITY[label] for patient, label in opacity.items()},
            )
        ]
        if (root / DETAILS).is_file():
            details = _read_details(root, opacity)
            detailed = {ids[patient]: label for patient, label in details.items()}
            tasks.append(_task("detail", DETAIL, "Lung Opacity", detailed))
        summary = count_records(manifest)
        summary |= {"images with opacity": sum(opacity.values()), "boxes": boxes.num_rows}
        if absent := absent_files(root, manifest.column("path")):
            summary["absent"] = describe_absent(absent, len(manifest))
        return Collection(self.name, root, manifest, tuple(tasks), summary, {"boxes": boxes})


def _rows(root: Path, name: str, columns: tuple[str, ...]) -> Rows:
    rows = read_rows(root / name)
    if missing := [column for column in columns if column not in rows.columns]:
        raise DataError(
            f"{root / name}: must have the columns {', '.join(columns)}; {missing[0]!r} is absent"
        )
    for row, patient in enumerate(rows.columns["patientId"]):
        if not isinstance(patient, str) or "/" in patient or patient.startswith("."):
            raise DataError(f"{rows.where(row)}: patientId must be the name of an image; found {patient!r}")
    return rows


def _read_labels(root: Path) -> tuple[dict[str, int], pa.Table]:
    rows = _rows(root, LABELS, ("patientId", *_BOX, "Target"))
    opacity: dict[str, int] = {}
    first: dict[str, int] = {}
    boxes: dict[str, list[Any]] = {name: [] for name in ("image_id", *_BOX)}
    for row, target in enumerate(rows.columns["Target"]):
        patient = str(rows.columns["patientId"][row])
        corners = [rows.columns[name][row] for name in _BOX]
        if target not in {"0", "1"} or (target == "1") != all(_is_number(cell) for cell in corners):
            raise DataError(
                f"{rows.where(row)}: Target must be 1 with a box or 0 without; found Target {target!r}, "
                f"box {corners}"
            )
        if opacity.setdefault(patient, int(target)) != int(target):
            raise DataError(
                f"{rows.where(row)}: Target {target} of {patient} contradicts {rows.places[first[patient]]}"
            )
        first.setdefault(patient, row)
        if target == "1":
            boxes["image_id"].append(f"{TRAIN_IMAGES}/{patient}.dcm")
            for name, cell in zip(_BOX, corners, strict=True):
                boxes[name].append(float(str(cell)))
    kinds = {"image_id": pa.string()} | dict.fromkeys(_BOX, pa.float64())
    return opacity, pa.table({name: pa.array(cells, kinds[name]) for name, cells in boxes.items()})


def _is_number(cell: object) -> bool:
    try:
        return abs(float(str(cell))) < 1e6
    except ValueError:
        return False


def _read_details(root: Path, opacity: dict[str, int]) -> dict[str, str]:
    rows = _rows(root, DETAILS, ("patientId", "class"))
    details: dict[str, str] = {}
    for row, (patient, label) in enumerate(
        zip(rows.columns["patientId"], rows.columns["class"], strict=True)
    ):
        if label not in DETAIL:
            raise DataError(f"{rows.where(row)}: class must be one of {', '.join(DETAIL)}; found {label!r}")
        if patient not in opacity:
            raise DataError(f"{rows.where(row)}: patient {patient} has no row in {LABELS}")
        if (
            details.setdefault(str(patient), str(label)) != label
            or (label == DETAIL[2]) != opacity[str(patient)]
        ):
            raise DataError(
                f"{rows.where(row)}: class {label!r} of {patient} contradicts an earlier row or {LABELS}"
            )
    return details


def _build_manifest(root: Path, patients: list[str]) -> Manifest:
    test = root / TEST_IMAGES
    names = sorted(os.listdir(test)) if test.is_dir() else []
    unlabelled = [name[:-4] for name in names if name.endswith(".dcm") and not name.startswith(".")]
    files: list[tuple[str, str, str | None]] = [
        (f"{TRAIN_IMAGES}/{patient}.dcm", patient, None) for patient in patients
    ]
    files += [(f"{TEST_IMAGES}/{patient}.dcm", patient, "test") for patient in unlabelled]
    contents = look_into(root, (path for path, _, _ in files))
    rows = [(*file, frame) for file in files for frame in contents[file[0]].frames]
    columns: dict[str, list[Any]] = {
        "image_id": [frame_id(path, frame) for path, _, _, frame in rows],
        "path": [path for path, _, _, _ in rows],
        "frame": [frame for _, _, _, frame in rows],
        "patient_id": [patient for _, patient, _, _ in rows],
        "study_id": [patient for _, patient, _, _ in rows],
        "split": [split for _, _, split, _ in rows],
        "modality": [_modality_of(contents[path]) for path, _, _, _ in rows],
    }
    table = pa.table({name: pa.array(cells, FIXED_COLUMNS[name]) for name, cells in columns.items()})
    return manifest_from_table(table, source=str(root))


def _modality_of(content: FileContent) -> str:
    """Return what the file says; the competition's images are CR."""
    return (content.header.modality if content.header else None) or "CR"


def _task(name: str, classes: tuple[str, ...], positive: str, labels: dict[str, str]) -> Task:
    table = pa.table({"unit_id": list(labels), name: list(labels.values())})
    return Task(name, unit="image", targets=(name,), classes=classes, labels=table, positive=positive)
