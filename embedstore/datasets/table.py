"""Any table of images: CSV, Parquet or JSON lines with a path per row.

Columns with the manifest's names are used as such, label columns become tasks, and the rest are kept as
columns by which results can be split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.datasets.base import Collection
from embedstore.datasets.table_records import read_records
from embedstore.datasets.table_rows import sort_classes
from embedstore.errors import DataError, UsageError
from embedstore.files import StrPath
from embedstore.manifest import FIXED_COLUMNS, Manifest
from embedstore.tables.cell_rules import CellRules
from embedstore.tables.label_rules import read_labels
from embedstore.tables.rows import Rows, as_text
from embedstore.task import Task

_MOST_CLASSES = 100  # more are a measurement or an id, not a label
_MOST_SUBGROUPS = 20  # values of a column by which results are split


class Table:
    """Reads a table; paths in it are relative to the folder that holds it, or to `images_root`.

    Cells, ids, labels and paths follow the rules of `embedstore.tables`; what they touched stands in the summary.

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
    images_root
        The folder that paths are relative to; that of the table by default.
    missing, as_written, within_parent
        As `embedstore.tables.cell_rules.CellRules`.

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
        images_root: StrPath | None = None,
        missing: Sequence[str] = (),
        as_written: Sequence[str] = (),
        within_parent: Sequence[str] = (),
    ) -> None:
        self.images_root = None if images_root is None else Path(images_root)
        self.rules = CellRules(_several(missing), _several(as_written), _several(within_parent))
        self.columns = dict(columns or {})
        self.label = _several(label)
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
        folder = root.parent if self.images_root is None else self.images_root
        if not folder.is_dir():
            raise DataError(f"`images_root` must be a folder; found nothing at {folder}")
        records = read_records(
            root,
            root=folder,
            columns=self.columns,
            label=self.label,
            rules=self.rules,
            read_label=lambda rows, name: read_labels(rows, name, self.rules),
        )
        manifest = records.manifest
        subgroups = _subgroups(manifest)
        tasks = tuple(_build_task(records.rows, name, manifest, subgroups) for name in self.label)
        summary = dict(records.summary)
        for task in tasks:
            summary[f"task {task.name}"] = f"per {task.unit}, classes {', '.join(task.classes)}"
        return Collection(self.name, folder, manifest, tasks, summary)


def _several(names: Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


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


def _subgroups(manifest: Manifest) -> tuple[str, ...]:
    counts = {name: pc.count_distinct(manifest.table.column(name)).as_py() for name in manifest.extra_columns}
    return tuple(name for name, count in counts.items() if 2 <= count <= _MOST_SUBGROUPS)
