"""Any table of images: CSV, Parquet or JSON lines with a path per row.

Columns with the manifest's names are used as such, label columns become tasks, and the rest are kept as
columns by which results can be split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from embedstore.datasets.base import Collection
from embedstore.datasets.folder_summary import absent_files, count_records, describe_absent
from embedstore.datasets.hidden_ids import key_of_reader, with_pseudonyms
from embedstore.datasets.table_images import describe_contents, one_row_per_frame, read_modalities
from embedstore.datasets.table_rows import sort_classes
from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.headers.file_frames import look_into
from embedstore.manifest import FIXED_COLUMNS, SPLITS, Manifest, manifest_from_table
from embedstore.tables.rows import Cell, Rows, as_text
from embedstore.tables.table_file import read_rows
from embedstore.task import Task

_MOST_CLASSES = 100  # more are a measurement or an id, not a label
_MOST_SUBGROUPS = 20  # values of a column by which results are split


class Table:
    """Reads a table; paths in it are relative to the folder that holds it.

    A row that names a file of several frames (DICOM, pages of a TIFF) and no `frame` gives a record per frame,
    each with the row's labels. A `modality` may be the DICOM code or a word for it; the header of a DICOM file
    wins over the table.

    A label column becomes a task of its name (other characters than letters, digits, ``-``, ``_`` and ``.``
    become ``-``). The task's unit is the study when every record has a `study_id` and no study has two
    different labels; otherwise it is the image. An empty label cell is a missing label. Classes are sorted,
    as numbers where all are numbers; with two classes the second is the positive one.

    Parameters
    ----------
    columns
        Manifest column -> the table's own name for it (``{"path": "filename"}``). A column of the table
        that has the manifest's name for another one is left out.
    label
        Names of the label columns.
    hide_paths
        Replace the ids of images, patients, studies and series by keyed digests, and keep paths out of the store.
    key_file
        File with the secret for these ids; needed to hide paths. Where it is not there, an extraction makes it.
    keep
        Further columns that stay when paths are hidden; by default none, as only their owner knows what they say of
        a patient.

    Raises
    ------
    UsageError
        If `columns` maps a name that no manifest has, or `label` names a mapped column.
    """

    name = "table"

    def __init__(
        self,
        columns: Mapping[str, str] | None = None,
        label: Sequence[str] = (),
        *,
        hide_paths: bool = False,
        key_file: str | Path | None = None,
        keep: Sequence[str] = (),
    ) -> None:
        self.columns = dict(columns or {})
        self.label = (label,) if isinstance(label, str) else tuple(label)
        self.hide_paths = hide_paths
        self.key_file = None if key_file is None else Path(key_file)
        self.keep = (keep,) if isinstance(keep, str) else tuple(keep)
        if unknown := sorted(set(self.columns) - set(FIXED_COLUMNS)):
            raise UsageError(
                f"columns may map {', '.join(FIXED_COLUMNS)}; found {unknown[0]!r}. "
                "Other columns are kept under their own names."
            )
        used = {self.columns.get(name, name) for name in FIXED_COLUMNS}
        if clash := [name for name in self.label if name in used]:
            raise UsageError(f"label must not be a column of the manifest; found {clash[0]!r}")

    def read(self, root: Path) -> Collection:
        """Index the table `root` and read the headers of its files; no pixel is decoded.

        Raises
        ------
        DataError
            If the table cannot be read, lacks a column, or a cell is wrong; with the line.
        """
        rows = read_rows(root)
        fixed = {name: self.columns.get(name, name) for name in FIXED_COLUMNS}
        for wanted in ("path", *self.columns):
            _require_column(rows, fixed[wanted], "the table")
        for wanted in self.label:
            _require_column(rows, wanted, "label")
        _check_paths(rows, [as_text(cell) for cell in rows.columns[fixed["path"]]])
        contents = look_into(root.parent, (str(as_text(cell)) for cell in rows.columns[fixed["path"]]))
        rows = one_row_per_frame(
            rows, contents, path=fixed["path"], frame=fixed["frame"], image_id=fixed["image_id"]
        )
        present = {name: rows.columns[own] for name, own in fixed.items() if own in rows.columns}
        extra = {
            name: list(cells)
            for name, cells in rows.columns.items()
            if name not in {*FIXED_COLUMNS, *fixed.values(), *self.label}
        }
        paths = [as_text(cell) for cell in present["path"]]
        modalities = read_modalities(rows, present.get("modality"), paths, contents)
        if "modality" in present or any(modalities.codes):
            present["modality"] = list(modalities.codes)
        manifest = _build_manifest(rows, present, extra)
        tasks = tuple(_build_task(rows, name, manifest, _subgroups(extra)) for name in self.label)
        summary = count_records(manifest) | describe_contents(contents) | modalities.describe()
        for task in tasks:
            summary[f"task {task.name}"] = f"per {task.unit}, classes {', '.join(task.classes)}"
        if absent := absent_files(root.parent, manifest.column("path")):
            summary["absent"] = describe_absent(absent, len(manifest))
        collection = Collection(self.name, root.parent, manifest, tasks, summary)
        if not self.hide_paths:
            return collection
        return with_pseudonyms(collection, key_of_reader(self.key_file, reader=self.name), keep=self.keep)


def _require_column(rows: Rows, name: str, what: str) -> None:
    if name in rows.columns:
        return
    hint = did_you_mean(name, rows.columns)
    raise DataError(f"{rows.path}: {what} needs the column {name!r}; found {', '.join(rows.columns)}{hint}")


def _build_manifest(
    rows: Rows, present: Mapping[str, list[Cell]], extra: Mapping[str, list[Cell]]
) -> Manifest:
    columns: dict[str, list[Cell]] = {
        name: [as_text(cell) for cell in cells] for name, cells in present.items() if name != "frame"
    }
    columns["frame"] = _frames(rows, present.get("frame", [None] * len(rows)))
    if "image_id" not in columns:
        columns["image_id"] = [
            f"{path}#{frame}" if frame else path
            for path, frame in zip(columns["path"], columns["frame"], strict=True)
        ]
    _check_ids(rows, columns["image_id"])
    for row, split in enumerate(columns.get("split", [])):
        if split not in (None, *SPLITS):
            raise DataError(
                f"{rows.where(row)}: split must be {', '.join(SPLITS)} or empty; found {split!r}. Rename it."
            )
    uniform = {name: _one_kind(cells) for name, cells in extra.items()}
    fixed = {name: pa.array(cells, FIXED_COLUMNS[name]) for name, cells in columns.items()}
    return manifest_from_table(pa.table(fixed | uniform), source=str(rows.path))


def _frames(rows: Rows, cells: list[Cell]) -> list[Cell]:
    frames: list[Cell] = []
    for row, cell in enumerate(cells):
        text = as_text(cell) or "0"
        if not re.fullmatch(r"\d{1,9}", text):
            raise DataError(f"{rows.where(row)}: frame must be a number from 0; found {cell!r}")
        frames.append(int(text))
    return frames


def _check_paths(rows: Rows, paths: Sequence[Cell]) -> None:
    for row, path in enumerate(paths):
        if not isinstance(path, str):
            raise DataError(f"{rows.where(row)}: the path is empty; every row needs one")
        if path.startswith("/") or ".." in path.split("/"):
            raise DataError(
                f"{rows.where(row)}: path {path!r} must be relative to the table's folder and stay below it. "
                "Move the table, or write the paths from its folder on."
            )


def _check_ids(rows: Rows, image_ids: list[Cell]) -> None:
    seen: dict[Cell, int] = {}
    for row, image_id in enumerate(image_ids):
        if image_id is None:
            raise DataError(f"{rows.where(row)}: the image_id is empty; every row needs one")
        if image_id in seen:
            raise DataError(
                f"{rows.where(row)}: image_id {image_id!r} stands on {rows.places[seen[image_id]]} already; "
                "ids must differ. Give a column image_id if one file has several rows."
            )
        seen[image_id] = row


def _build_task(rows: Rows, name: str, manifest: Manifest, subgroups: tuple[str, ...]) -> Task:
    cells = [as_text(cell) for cell in rows.columns[name]]
    classes = sort_classes({cell for cell in cells if cell is not None})
    if not 2 <= len(classes) <= _MOST_CLASSES:
        raise DataError(
            f"{rows.path}: label column {name!r} must hold 2 to {_MOST_CLASSES} different classes; "
            f"found {len(classes)}: {', '.join(classes[:5])}"
        )
    unit, labels = _unit_labels(cells, manifest)
    return Task(
        name=re.sub(r"[^\w.-]", "-", name),
        unit=unit,
        targets=(name,),
        classes=tuple(classes),
        labels=pa.table({"unit_id": list(labels), name: pa.array(list(labels.values()), pa.string())}),
        subgroups=subgroups,
    )


def _unit_labels(cells: list[str | None], manifest: Manifest) -> tuple[str, dict[str, str | None]]:
    by_study: dict[str, str | None] = {}
    for study, label in zip(manifest.column("study_id"), cells, strict=True):
        known = by_study.get(study)
        if study is None or (label is not None and known not in (None, label)):
            return "image", dict(zip(manifest.column("image_id"), cells, strict=True))
        by_study[study] = known if label is None else label
    return "study", by_study


def _subgroups(extra: Mapping[str, list[Cell]]) -> tuple[str, ...]:
    return tuple(name for name, cells in extra.items() if 2 <= len(set(cells) - {None}) <= _MOST_SUBGROUPS)


def _one_kind(cells: list[Cell]) -> pa.Array:
    """Leave a column of numbers as it is; anything mixed becomes text."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds and kinds <= {int, float}:
        return pa.array(cells, pa.float64() if float in kinds else pa.int64())
    return pa.array([as_text(cell) for cell in cells], pa.string())
