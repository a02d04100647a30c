"""RSNA 2024 Lumbar Spine Degenerative Classification: every slice of every MR series, 25 labels per study.

Layout: the competition's own files (train.csv, train_series_descriptions.csv, train_label_coordinates.csv,
train_images/<study>/<series>/<instance>.dcm, and the same for test without labels).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore.datasets.base import Collection
from embedstore.datasets.folder_summary import count_records, refuse_folder
from embedstore.datasets.slice_columns import COLUMNS as SLICE_COLUMNS
from embedstore.datasets.slice_columns import slice_columns
from embedstore.errors import DataError
from embedstore.headers.dicom_scan import scan_headers
from embedstore.headers.file_frames import frame_id
from embedstore.lumbar.levels import CLASS_WEIGHTS, CLASSES, SEVERITY, TARGETS
from embedstore.manifest import FIXED_COLUMNS, Manifest, manifest_from_table
from embedstore.tables.rows import Cell, Rows
from embedstore.tables.table_file import read_rows
from embedstore.task import Task

DESCRIPTIONS = ("Sagittal T1", "Sagittal T2/STIR", "Axial T2")
TREES = ("train", "test")
_NUMBER = r"(?:0|[1-9]\d*)"
_SLICE_PATH = re.compile(rf"(train|test)_images/({_NUMBER})/{_NUMBER}/{_NUMBER}\.dcm")
_ABOVE = re.compile(rf"(.*)/{_SLICE_PATH.pattern}", re.DOTALL)
_COORDINATE_COLUMNS = ("study_id", "series_id", "instance_number", "condition", "level", "x", "y")


class RsnaLumbar:
    """Reads the unpacked competition folder, complete or in part.

    A study is a patient: the competition publishes no other patient id. Images of ``train_images`` have no
    split, because the competition has no official validation set; those of ``test_images`` have the split
    ``test`` and no labels. The column `series_description` is empty where the table names none, as for
    three series of the download. The coordinates are kept as the table ``coordinates``; they exist for
    training studies only, so a result that uses them must say "oracle coordinates".
    """

    name = "rsna-lumbar"
    task_names = (SEVERITY,)
    header_columns = frozenset(SLICE_COLUMNS)

    def read(self, root: Path) -> Collection:
        """Index the folder and read every header.

        Raises
        ------
        DataError
            If `root` is something else or a table is malformed; with the line.
        """
        trees = [tree for tree in TREES if (root / f"{tree}_images").is_dir()]
        slices = [found for tree in trees for found in _find_slices(root, tree)]
        if not slices:
            raise refuse_folder(
                root,
                expected="train_images/<study>/<series>/<instance>.dcm and train.csv",
                advice="Point the root at the unpacked rsna-2024-lumbar-spine-degenerative-classification folder.",
            )
        descriptions = _read_descriptions(root, trees)
        manifest = _build_manifest(root, slices, descriptions)
        studies = {found.study for found in slices if found.tree == "train"}
        tasks, unread = _read_task(root, studies)
        tables, absent_points = _read_coordinates(root, set(manifest.column("path")))
        summary = count_records(manifest) | _describe(manifest, descriptions, slices)
        if tasks:
            cells = [cell for target in TARGETS for cell in tasks[0].labels.column(target).to_pylist()]
            counts = Counter("missing" if cell is None else cell for cell in cells)
            summary["labels"] = ", ".join(f"{name} {counts[name]:,}" for name in (*CLASSES, "missing"))
        if unread:
            summary["labelled studies without images"] = unread
        if absent_points:
            summary["coordinates without image"] = absent_points
        return Collection(self.name, root, manifest, tasks, summary, tables)

    def root_of(self, path: Path) -> Path | None:
        """Return the folder that holds ``train_images`` or ``test_images`` above a slice."""
        match = _ABOVE.fullmatch(path.absolute().as_posix())
        return Path(match[1] or "/") if match else None

    def read_files(self, root: Path, paths: Sequence[str]) -> Manifest:
        """Return the rows of the studies of some slices, whose headers are read; raises as `read`."""
        named = [match.groups() for path in paths if (match := _SLICE_PATH.fullmatch(path))]
        trees = [tree for tree in TREES if any(tree == of for of, _ in named)]
        slices = [
            found
            for tree in trees
            for found in _find_slices(root, tree, {study for of, study in named if of == tree})
        ]
        return _build_manifest(root, slices, _read_descriptions(root, trees))


@dataclass(frozen=True, slots=True)
class _Slice:
    tree: str
    study: str
    series: str
    instance: int

    @property
    def path(self) -> str:
        return f"{self.tree}_images/{self.study}/{self.series}/{self.instance}.dcm"


def _find_slices(root: Path, tree: str, studies: Container[str] | None = None) -> list[_Slice]:
    """List ``<study>/<series>/<instance>.dcm`` in numeric order; everything else is not the data set's.

    Of all studies, or of those in `studies`.
    """
    found = []
    top = os.path.join(root, f"{tree}_images")
    for study in _numeric_names(top, ""):
        if studies is not None and study not in studies:
            continue
        for series in _numeric_names(os.path.join(top, study), ""):
            instances = _numeric_names(os.path.join(top, study, series), ".dcm")
            found += [_Slice(tree, study, series, int(instance)) for instance in instances]
    return found


def _numeric_names(folder: str, suffix: str) -> list[str]:
    """Names that are a number without leading zeros and end in `suffix`; the number's digits, ascending."""
    if not os.path.isdir(folder):
        return []
    stems = [name.removesuffix(suffix) for name in os.listdir(folder) if name.endswith(suffix)]
    return sorted((stem for stem in stems if re.fullmatch(r"0|[1-9]\d*", stem)), key=int)


def _table(root: Path, name: str, columns: Iterable[str]) -> Rows | None:
    """Read one table of the competition, or return None where it is not there."""
    path = root / name
    if not path.is_file():
        return None
    rows = read_rows(path)
    if missing := [column for column in columns if column not in rows.columns]:
        raise DataError(f"{path}: must have the columns {', '.join(columns)}; {missing[0]!r} is absent")
    return rows


def _read_descriptions(root: Path, trees: Iterable[str]) -> dict[tuple[str, str], str]:
    descriptions: dict[tuple[str, str], str] = {}
    for tree in trees:
        rows = _table(
            root, f"{tree}_series_descriptions.csv", ("study_id", "series_id", "series_description")
        )
        for row in range(len(rows) if rows else 0):
            assert rows is not None
            study, series, description = (
                rows.columns[name][row] for name in ("study_id", "series_id", "series_description")
            )
            if description is not None and description not in DESCRIPTIONS:
                raise DataError(
                    f"{rows.where(row)}: series_description must be {', '.join(DESCRIPTIONS)} or empty; "
                    f"found {description!r}"
                )
            if description is not None:
                descriptions[str(study), str(series)] = str(description)
    return descriptions


def _build_manifest(
    root: Path, slices: list[_Slice], descriptions: Mapping[tuple[str, str], str]
) -> Manifest:
    files = list(scan_headers(str(root), [found.path for found in slices]))
    rows = [
        (found, entry, frame)
        for found, entry in zip(slices, files, strict=True)
        for frame in range(entry.header.frames if entry.header else 1)
    ]
    slices, scanned = [found for found, _, _ in rows], [entry for _, entry, _ in rows]
    headers = [entry.header and entry.header.of_frame(frame) for _, entry, frame in rows]
    paths = [found.path for found in slices]
    # Series ids are unique in the download, but nothing promises that of a copy.
    series = [f"{found.study}/{found.series}" for found in slices]
    fixed: dict[str, list[Any]] = {
        "image_id": [frame_id(found.path, frame) for found, _, frame in rows],
        "path": paths,
        "frame": [frame for _, _, frame in rows],
        "patient_id": [found.study for found in slices],
        "study_id": [found.study for found in slices],
        "series_id": series,
        "split": ["test" if found.tree == "test" else None for found in slices],
        "modality": [(header.modality if header else None) or "MR" for header in headers],
    }
    extra = {
        "series_description": pa.array(
            [descriptions.get((found.study, found.series)) for found in slices], pa.string()
        ),
        "instance_number": pa.array([found.instance for found in slices], pa.int32()),
        **slice_columns(series, headers),
        "problem": pa.array(
            [_problem(entry.problem, entry.header is None) for entry in scanned], pa.string()
        ),
    }
    typed = {name: pa.array(cells, FIXED_COLUMNS[name]) for name, cells in fixed.items()}
    return manifest_from_table(pa.table(typed | extra), source=str(root))


def _problem(problem: str | None, headless: bool) -> str | None:
    return problem or ("not a DICOM image" if headless else None)


def _read_task(root: Path, studies: set[str]) -> tuple[tuple[Task, ...], int]:
    """Return the task of the studies that have images, and how many labelled studies have none."""
    rows = _table(root, "train.csv", ("study_id", *TARGETS))
    if rows is None:
        return (), 0
    _check_labels(rows)
    study_ids = [str(study) for study in rows.columns["study_id"]]
    kept = [row for row, study in enumerate(study_ids) if study in studies]
    if not kept:
        return (), len(study_ids)
    labels = {"unit_id": [study_ids[row] for row in kept]} | {
        target: [rows.columns[target][row] for row in kept] for target in TARGETS
    }
    task = Task(
        name=SEVERITY,
        unit="study",
        targets=TARGETS,
        classes=CLASSES,
        labels=pa.table({name: pa.array(cells, pa.string()) for name, cells in labels.items()}),
        class_weights=CLASS_WEIGHTS,
        ordered=True,
        positive="Severe",
        primary_metric="log_loss",
    )
    return (task,), len(study_ids) - len(kept)


def _check_labels(rows: Rows) -> None:
    seen: dict[Cell, int] = {}
    for row, study in enumerate(rows.columns["study_id"]):
        if study is None or study in seen:
            found = (
                "nothing" if study is None else f"{study}, which stands on {rows.places[seen[study]]} already"
            )
            raise DataError(f"{rows.where(row)}: study_id must be given once; found {found}")
        seen[study] = row
    for target in TARGETS:
        for row, label in enumerate(rows.columns[target]):
            if label not in (None, *CLASSES):
                raise DataError(
                    f"{rows.where(row)}: {target} must be {', '.join(CLASSES)} or empty; found {label!r}"
                )


def _read_coordinates(root: Path, paths: set[str]) -> tuple[dict[str, pa.Table], int]:
    """Return the points with the image each lies in, and how many lie in an image that is not there."""
    rows = _table(root, "train_label_coordinates.csv", _COORDINATE_COLUMNS)
    if rows is None:
        return {}, 0
    columns = rows.columns
    places = zip(columns["study_id"], columns["series_id"], columns["instance_number"], strict=True)
    image_ids = [f"train_images/{study}/{series}/{instance}.dcm" for study, series, instance in places]
    table = {"image_id": pa.array([path if path in paths else None for path in image_ids], pa.string())}
    for name in ("study_id", "series_id", "condition", "level"):
        table[name] = pa.array(columns[name], pa.string())
    table["instance_number"] = pa.array(_numbers(rows, "instance_number"), pa.float64()).cast(pa.int32())
    table |= {name: pa.array(_numbers(rows, name), pa.float64()) for name in ("x", "y")}
    return {"coordinates": pa.table(table)}, sum(path not in paths for path in image_ids)


def _numbers(rows: Rows, name: str) -> list[float]:
    numbers = []
    for row, cell in enumerate(rows.columns[name]):
        if not isinstance(cell, str) or not re.fullmatch(r"-?\d{1,9}(\.\d+)?", cell):
            raise DataError(f"{rows.where(row)}: {name} must be a number; found {cell!r}")
        numbers.append(float(cell))
    return numbers


def _describe(
    manifest: Manifest, descriptions: Mapping[tuple[str, str], str], slices: list[_Slice]
) -> dict[str, str | int]:
    series = dict.fromkeys((found.study, found.series) for found in slices)
    kinds = Counter(descriptions.get(name, "without description") for name in series)
    per_study = Counter(
        (study, descriptions[study, name]) for study, name in series if (study, name) in descriptions
    )
    stacks = Counter(zip(manifest.column("series_id"), manifest.column("stack"), strict=True))
    several = Counter(name for name, stack in stacks if stack is not None)
    planes = Counter(plane or "unknown" for plane in manifest.column("plane"))
    summary: dict[str, str | int] = {
        "series by description": ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items())),
        "studies with duplicate series": len({study for (study, _), count in per_study.items() if count > 1}),
        "series with several stacks": sum(count > 1 for count in several.values()),
        "images by plane": ", ".join(f"{plane} {count:,}" for plane, count in sorted(planes.items())),
    }
    if absent := len(set(descriptions) - set(series)):
        summary["described series without images"] = absent
    problems = [problem for problem in manifest.column("problem") if problem]
    if problems:
        summary["files with a broken header"] = f"{len(problems):,}, such as: {problems[0]}"
    return summary
