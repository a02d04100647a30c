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
from embedstore.datasets.table_columns import join_tables, with_split_words, with_templates
from embedstore.datasets.table_images import describe_contents, one_row_per_frame, read_modalities
from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.headers.file_frames import look_into
from embedstore.labels.label_rules import Pairs, label_rules
from embedstore.labels.table_tasks import LabelTable, build_tasks, task_name
from embedstore.manifest import FIXED_COLUMNS, SPLITS, Manifest, manifest_from_table
from embedstore.tables.cell_rules import CellRules, text_of
from embedstore.tables.label_rules import read_labels
from embedstore.tables.remarks import describe_remarks
from embedstore.tables.rows import Cell, Rows, as_text
from embedstore.tables.table_file import read_rows

_MOST_SUBGROUPS = 20  # values of a column by which results are split


class Table:
    """Reads a table; paths in it are relative to the folder that holds it.

    A row that names a file of several frames (DICOM, pages of a TIFF) and no `frame` gives a record per frame,
    each with the row's labels. A `modality` may be the DICOM code or a word for it; the header of a DICOM file
    wins over the table.

    A column of `label` becomes a task of its name (other characters than letters, digits, ``-``, ``_`` and ``.``
    become ``-``), a group of columns one task with a target per column. The task's unit is the study when every
    record has a `study_id`, otherwise the image; a study whose rows disagree is refused. An empty label cell is a
    missing label. Classes are sorted, as numbers where all are numbers; with two classes the second is the positive
    one, which is never a word for "nothing found" (`embedstore.labels.class_order.order_classes`).

    Parameters
    ----------
    columns
        Manifest column -> the table's own name for it (``{"path": "filename"}``), or a template of several
        (`embedstore.datasets.table_columns.with_templates`). A column of the table that has the manifest's name for
        another one is left out.
    label, label_separator, label_group, uncertain, empty, positive, unit
        As `embedstore.labels.label_rules.label_rules`.
    join
        Further tables whose columns are added, matched by the columns that both have.

    Raises
    ------
    UsageError
        If `columns` maps a name that no manifest has, or a label is a mapped column.
    """

    name = "table"

    def __init__(
        self,
        columns: Mapping[str, str] | None = None,
        label: str | Sequence[str] = (),
        *,
        label_separator: Pairs = (),
        label_group: Pairs = (),
        uncertain: str | None = None,
        empty: str = "missing",
        positive: str | Sequence[str] = (),
        unit: str | None = None,
        join: str | Path | Sequence[str | Path] = (),
    ) -> None:
        self.columns = dict(columns or {})
        self.rules = label_rules(
            label=label,
            label_separator=label_separator,
            label_group=label_group,
            uncertain=uncertain,
            empty=empty,
            positive=positive,
            unit=unit,
        )
        self.join = tuple(map(Path, (join,) if isinstance(join, (str, Path)) else join))
        if unknown := sorted(set(self.columns) - set(FIXED_COLUMNS)):
            raise UsageError(
                f"columns may map {', '.join(FIXED_COLUMNS)}; found {unknown[0]!r}. "
                "Other columns are kept under their own names."
            )
        used = {self.columns.get(name, name) for name in FIXED_COLUMNS}
        if clash := [name for name in self.rules.columns if name in used]:
            raise UsageError(f"label must not be a column of the manifest; found {clash[0]!r}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, before anything is read."""
        return (*map(task_name, self.rules.label), *self.rules.groups)

    def read(self, root: Path) -> Collection:
        """Index the table `root` and read the headers of its files; no pixel is decoded.

        Raises
        ------
        DataError
            If the table cannot be read, lacks a column, or a cell is wrong; with the line.
        """
        rows = with_templates(
            join_tables(read_rows(root, lists=self.rules.lists), self.join), self.columns.values()
        )
        fixed = {name: self.columns.get(name, name) for name in FIXED_COLUMNS}
        for wanted in ("path", *self.columns):
            _require_column(rows, fixed[wanted], "the table")
        if fixed["split"] in rows.table.column_names:
            rows = with_split_words(rows, fixed["split"])
        rules = self.rules.with_columns(list(rows.columns))
        for wanted in rules.columns:
            _require_column(rows, wanted, "label")
            # Entries of lists are made alike one by one.
            rows = rows if rules.separator_of(wanted) else read_labels(rows, wanted, CellRules())
        _check_paths(rows, [as_text(cell) for cell in rows.columns[fixed["path"]]])
        contents = look_into(root.parent, (str(as_text(cell)) for cell in rows.columns[fixed["path"]]))
        rows = one_row_per_frame(
            rows, contents, path=fixed["path"], frame=fixed["frame"], image_id=fixed["image_id"]
        )
        present = {name: rows.columns[own] for name, own in fixed.items() if own in rows.columns}
        extra = {
            name: list(cells)
            for name, cells in rows.columns.items()
            if name not in {*FIXED_COLUMNS, *fixed.values(), *rules.columns}
        }
        paths = [as_text(cell) for cell in present["path"]]
        modalities = read_modalities(rows, present.get("modality"), paths, contents)
        if "modality" in present or any(modalities.codes):
            present["modality"] = list(modalities.codes)
        manifest = _build_manifest(rows, present, extra)
        labels = LabelTable(
            {name: text_of(rows.column(name)) for name in rules.columns},
            rows.where,
            str(rows.path),
            _subgroups(extra),
        )
        tasks, facts = build_tasks(rules, labels, manifest)
        summary = count_records(manifest) | describe_contents(contents) | modalities.describe()
        summary |= describe_remarks(rows.remarks) | facts
        if absent := absent_files(root.parent, manifest.column("path")):
            summary["absent"] = describe_absent(absent, len(manifest))
        return Collection(self.name, root.parent, manifest, tasks, summary)


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


def _subgroups(extra: Mapping[str, list[Cell]]) -> tuple[str, ...]:
    return tuple(name for name, cells in extra.items() if 2 <= len(set(cells) - {None}) <= _MOST_SUBGROUPS)


def _one_kind(cells: list[Cell]) -> pa.Array:
    """Leave a column of numbers as it is; anything mixed becomes text."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds and kinds <= {int, float}:
        return pa.array(cells, pa.float64() if float in kinds else pa.int64())
    return pa.array([as_text(cell) for cell in cells], pa.string())
