"""Any table of images: CSV, Parquet or JSON lines with a path per row.

Columns with the manifest's names are used as such, label columns become tasks, and the rest are kept as
columns by which results can be split.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedstore.datasets.base import Collection
from embedstore.datasets.hidden_ids import key_of_reader, with_pseudonyms
from embedstore.datasets.table_columns import join_tables, with_templates
from embedstore.datasets.table_records import read_records
from embedstore.errors import DataError, UsageError
from embedstore.files import StrPath
from embedstore.labels.label_rules import LabelRules, Pairs, label_rules
from embedstore.labels.table_tasks import LabelTable, build_tasks, task_name
from embedstore.manifest import FIXED_COLUMNS, Manifest, count_distinct
from embedstore.tables.cell_rules import CellRules, text_of
from embedstore.tables.label_rules import read_labels
from embedstore.tables.rows import Rows
from embedstore.tables.table_file import read_rows

_MOST_SUBGROUPS = 20  # values of a column by which results are split


class Table:
    """Reads a table; paths in it are relative to the folder that holds it, or to `images_root`.

    Cells, ids, labels and paths follow the rules of `embedstore.tables`; what they touched stands in the summary.

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
    images_root
        The folder that paths are relative to; that of the table by default.
    missing, as_written, within_parent
        As `embedstore.tables.cell_rules.CellRules`.
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
        join: StrPath | Sequence[StrPath] = (),
        images_root: StrPath | None = None,
        missing: Sequence[str] = (),
        as_written: Sequence[str] = (),
        within_parent: Sequence[str] = (),
        hide_paths: bool = False,
        key_file: StrPath | None = None,
        keep: str | Sequence[str] = (),
    ) -> None:
        self.hide_paths = hide_paths
        self.key_file = None if key_file is None else Path(key_file)
        self.keep = tuple(_several(keep))
        self.images_root = None if images_root is None else Path(images_root)
        self.rules = CellRules(_several(missing), _several(as_written), _several(within_parent))
        self.columns = dict(columns or {})
        self.labels = label_rules(
            label=label,
            label_separator=label_separator,
            label_group=label_group,
            uncertain=uncertain,
            empty=empty,
            positive=positive,
            unit=unit,
        )
        self.join = tuple(map(Path, [join] if isinstance(join, (str, os.PathLike)) else join))
        if unknown := sorted(set(self.columns) - set(FIXED_COLUMNS)):
            raise UsageError(
                f"columns may map {', '.join(FIXED_COLUMNS)}; found {unknown[0]!r}. "
                "Other columns are kept under their own names."
            )
        used = {self.columns.get(name, name) for name in FIXED_COLUMNS}
        if clash := [name for name in self.labels.columns if name in used]:
            raise UsageError(f"label must not be a column of the manifest; found {clash[0]!r}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, before anything is read."""
        return (*map(task_name, self.labels.label), *self.labels.groups)

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
        rows = join_tables(read_rows(root, self.rules, lists=self.labels.lists), self.join, self.rules)
        rows = with_templates(rows, self.columns.values())
        labels = self.labels.with_columns(rows.table.column_names)
        records = read_records(
            rows,
            root=folder,
            columns=self.columns,
            label=labels.columns,
            rules=self.rules,
            read_label=lambda rows, name: self._read_label(rows, name, labels),
        )
        table = LabelTable(
            {name: text_of(records.rows.column(name)) for name in labels.columns},
            records.rows.where,
            str(root),
            _subgroups(records.manifest),
        )
        tasks, facts = build_tasks(labels, table, records.manifest)
        collection = Collection(self.name, folder, records.manifest, tasks, dict(records.summary) | facts)
        if not self.hide_paths:
            return collection
        return with_pseudonyms(collection, key_of_reader(self.key_file, reader=self.name), keep=self.keep)

    def _read_label(self, rows: Rows, name: str, labels: LabelRules) -> Rows:
        """Return the rows with a label column by its rules; entries of lists are made alike one by one."""
        return rows if labels.separator_of(name) is not None else read_labels(rows, name, self.rules)


def _several(names: Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _subgroups(manifest: Manifest) -> tuple[str, ...]:
    counts = {name: count_distinct(manifest.table.column(name)) for name in manifest.extra_columns}
    return tuple(name for name, count in counts.items() if 2 <= count <= _MOST_SUBGROUPS)
