"""A table of labels for units (images, studies, ...) that a store holds already -> a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.labels.class_order import are_numbers, order_classes, sort_classes
from embedstore.labels.finding_lists import looks_like_lists
from embedstore.labels.grade_order import grade_order, grades_in_words
from embedstore.labels.label_rules import LabelRules, label_rules
from embedstore.labels.states import FINDING_CLASSES, UNCERTAIN, YES, state_of
from embedstore.labels.table_tasks import LabelTable, build_finding_task
from embedstore.labels.typing_errors import likely_typing_errors
from embedstore.labels.unit_labels import Units
from embedstore.tables.cell_rules import CellRules, text_of
from embedstore.tables.id_rules import read_ids
from embedstore.tables.label_rules import read_labels
from embedstore.tables.manifest_columns import require_column, with_plain_names, without_copies
from embedstore.tables.parents import ids_as_known
from embedstore.tables.remarks import describe_remarks
from embedstore.tables.rows import Rows, as_text
from embedstore.tables.table_file import read_rows
from embedstore.task import Task, id_columns, require_unit, unit_id_of, unit_key

# More different labels are measurements or names.
_MAX_CLASSES = 64
_STUDY, _PATIENT, _IMAGE = "study_id", "patient_id", "image_id"


def read_label_table(
    path: Path,
    *,
    name: str,
    unit: str,
    targets: Sequence[str] = (),
    classes: Sequence[str] = (),
    positive: str | None = None,
    ordered: bool = False,
    separator: str | None = None,
    uncertain: str | None = None,
    empty: str = "missing",
    known: Set[str] = frozenset(),
    missing: Sequence[str] = (),
    as_written: Sequence[str] = (),
    prepare: Callable[[Rows], Rows] | None = None,
) -> tuple[Task, dict[str, str | int]]:
    """Read a task, and what a person should know of it, from a table with one row per unit.

    Parameters
    ----------
    path
        CSV, Parquet or JSON lines with the columns that name a unit: ``image_id``, ``study_id``, or those of `unit`.
    name
        Name of the task.
    unit
        What a row labels, as `embedstore.task.Task.unit`.
    targets
        Label columns; all columns but those of the unit by default. Their classes are shared.
    classes
        Classes in order, of two the positive one last; by default all labels of all targets in the order of
        `embedstore.labels.class_order.order_classes`.
    positive
        The class that one acts on; of two classes the last by default, of more none.
    ordered
        Whether the classes are grades, from the least to the gravest. Classes that are not named must then be numbers
        or grades by their words (`embedstore.labels.grade_order`).
    separator
        What stands between findings in the one label column: each finding becomes a target.
    uncertain, empty
        What -1 and empty cells are in columns of 0, 1 and -1, as `embedstore.labels.label_rules.LabelRules`.
    known
        Ids of units that a store has. Study ids that it has joined with their patients' are joined here too, where the
        table has a column ``patient_id``, which is then no label.
    missing, as_written
        As `embedstore.tables.cell_rules.CellRules`.
    prepare
        What is done to the table first: ids that somebody else uses become those of a store.

    Raises
    ------
    DataError
        If a column is missing or holds no label, an id is empty or stands twice, there are fewer than two classes
        or more than 64, `classes` lacks a label, two targets share no class, or `positive` is none of the classes.
    UsageError
        If the classes are ordered and neither are they named in order nor are they numbers or known words for grades.
    """
    require_unit(unit, where=f"task {name!r}")
    rules = CellRules(tuple(missing), tuple(as_written))
    rows = read_rows(path, rules, lists=targets if separator is not None else ())
    for column in as_written:
        require_column(rows, column, "as_written")
    if prepare is not None:
        rows = prepare(rows)
    key = unit_key(unit)
    rows = with_plain_names(rows, (*key, *((_PATIENT,) if key == (_STUDY,) else ())))
    rows = without_copies(rows, key[0]) if key[0] in rows.table.column_names else rows
    rows = _ids_read(rows, key, known, rules)
    parents = (_PATIENT,) if key == (_STUDY,) else ()
    wanted = list(targets) or [column for column in rows.columns if column not in (*key, *parents)]
    for column in (*key, *wanted):
        if column not in rows.columns:
            hint = _hint_of_unit(column, key, rows.columns)
            raise DataError(f"{path}: needs the column {column!r}; found {', '.join(rows.columns)}{hint}")
    if not wanted:
        raise DataError(f"{path}: needs a label column beside {', '.join(map(repr, key))}")
    ids = {column: [as_text(cell) for cell in rows.columns[column]] for column in key}
    _check_ids(rows, ids)
    for column in wanted if separator is None else ():
        rows = read_labels(rows, column, rules)
    labels = {column: text_of(rows.column(column)).to_pylist() for column in wanted}
    found = {column: {label for label in cells if label is not None} for column, cells in labels.items()}
    columns = {
        column: pa.array(cells, pa.string())
        for column, cells in zip(id_columns(unit), ids.values(), strict=True)
    }
    findings = _rules_of_findings(name, found, separator, uncertain, empty)
    if findings is not None and not (classes or ordered):
        if positive not in (None, FINDING_CLASSES[1]):
            raise UsageError(f"`positive` of findings is 1; found {positive!r}")
        units = Units(
            unit, [unit_id_of(key, row) for row in zip(*ids.values(), strict=True)], pa.table(columns),
            np.arange(len(rows)),
        )  # fmt: skip
        task, facts = build_finding_task(findings, LabelTable(labels, rows.where, str(path)), units, name)
        return task, {**describe_remarks(rows.remarks), **facts}
    _check_labels(path, found, classes)
    task = Task(
        name=name,
        unit=unit,
        targets=tuple(wanted),
        classes=tuple(classes) or _in_order(path, set().union(*found.values()), positive, ordered),
        labels=pa.table(columns | {column: pa.array(cells, pa.string()) for column, cells in labels.items()}),
        primary_metric="auroc",
        ordered=ordered,
        positive=positive,
    )
    return task, {**describe_remarks(rows.remarks), **_pointed_out(task, labels, classes, ordered)}


def _pointed_out(
    task: Task, labels: Mapping[str, Sequence[str | None]], classes: Sequence[str], ordered: bool
) -> dict[str, str | int]:
    """Return what may be otherwise than it was read."""
    counts = Counter(label for cells in labels.values() for label in cells if label is not None)
    said: dict[str, str | int] = {}
    if near := likely_typing_errors(counts):
        said[f"{task.name}: typing errors?"] = near
    if separator := looks_like_lists(list(counts)):
        said[f"{task.name}: labels that look like lists"] = (
            f"`label_separator='{separator}'` makes a target of each finding"
        )
    if not classes and (grades := grades_in_words(task.classes)):
        advice = "" if ordered else "; `ordered` takes this order, and quadratic kappa is stated"
        said[f"{task.name}: order of grades"] = f"{grades}{advice}"
    return said


def _ids_read(rows: Rows, key: Sequence[str], known: Set[str], rules: CellRules) -> Rows:
    """Return the rows with the columns of the key by the rules for ids, and studies as a store has them."""
    for column in dict.fromkeys((*key, *((_PATIENT,) if key == (_STUDY,) else ()))):
        if column in rows.table.column_names:
            rows = read_ids(rows, column, rules)
    if key == (_STUDY,) and _STUDY in rows.table.column_names:
        rows = ids_as_known(rows, _STUDY, _PATIENT, known, rules)
    return rows


def read_label_task(path: Path, *, name: str, unit: str, **options: Any) -> Task:
    """Return the task of `read_label_table` alone."""
    return read_label_table(path, name=name, unit=unit, **options)[0]


def _rules_of_findings(
    name: str, found: Mapping[str, set[str]], separator: str | None, uncertain: str | None, empty: str
) -> LabelRules | None:
    """Return the rules by which columns are findings, or None where they are plain labels."""
    columns = tuple(found)
    if separator is not None:
        if len(columns) != 1:
            raise UsageError(
                f"`label_separator` splits one label column; found {', '.join(columns)}. Name it by `targets`"
            )
        return label_rules(
            label=columns, label_separator={columns[0]: separator}, uncertain=uncertain, empty=empty
        )
    states = {state_of(label) for labels in found.values() for label in labels}
    if None in states and (uncertain is not None or empty != "missing"):
        other = next(
            label for labels in found.values() for label in sorted(labels) if state_of(label) is None
        )
        raise UsageError(
            f"`uncertain` and `empty` speak of columns of 0, 1 and -1; found the label {other!r}"
        )
    if None in states or (UNCERTAIN not in states and uncertain is None and empty == "missing"):
        return None
    return label_rules(label_group={name: columns}, uncertain=uncertain, empty=empty)


def _hint_of_unit(column: str, key: Sequence[str], columns: Mapping[str, object]) -> str:
    """Return how a table without a column of the unit's key may be read, or ``""``."""
    if key == (_STUDY,) and _IMAGE in columns:
        return f". Labels of images, by {_IMAGE}, are read with `unit='image'`"
    near = did_you_mean(column, columns)
    return f"{near} Rename the column that holds it" if near and column in key else near


def _check_ids(rows: Rows, ids: Mapping[str, Sequence[str | None]]) -> None:
    key, seen = tuple(ids), {""}
    for row, cells in enumerate(zip(*ids.values(), strict=True)):
        unit_id = unit_id_of(key, cells)
        if unit_id in seen:
            stated = ", ".join(f"{column} {cell!r}" for column, cell in zip(key, cells, strict=True))
            raise DataError(f"{rows.where(row)}: {stated} is empty or stands twice; one row per unit")
        seen.add(unit_id)


def _in_order(path: Path, labels: set[str], positive: str | None, ordered: bool) -> tuple[str, ...]:
    """Return classes that were not named in order."""
    found = sort_classes(labels)
    if ordered and len(found) > 2 and not are_numbers(found) and grade_order(found) is None:
        raise UsageError(
            f"ordered classes that are neither numbers nor known words for grades must be named from the least to the "
            f"gravest by `classes`; found {', '.join(found)}"
        )
    return order_classes(found, positive, where=f"{path}: labels")


def _check_labels(path: Path, found: Mapping[str, set[str]], classes: Sequence[str]) -> None:
    every = sorted(set().union(*found.values()))
    if len(every) == 1 and state_of(every[0]) == YES and not are_numbers(every):
        raise DataError(
            f"{path}: the only label is {every[0]!r}; where only what is found is ticked, `empty='negative'` takes "
            "empty cells as 0"
        )
    for column, labels in found.items():
        if not labels:
            raise DataError(f"{path}: column {column!r} holds no label")
        if len(labels) > _MAX_CLASSES:
            raise DataError(
                f"{path}: column {column!r} holds {len(labels)} different labels, {_MAX_CLASSES} at most; measurements "
                "must be put into a few classes first"
            )
        strange = sorted(labels - set(classes)) if classes else []
        if strange:
            raise DataError(
                f"{path}: column {column!r} holds {strange[:3]}, which are not among the classes {list(classes)}"
            )
    for one, other in combinations(found, 2):
        if not found[one] & found[other]:
            raise DataError(
                f"{path}: columns {one!r} and {other!r} share no class ({sorted(found[one])[:3]}, "
                f"{sorted(found[other])[:3]}); the targets of a task have the same classes: make a task of each, "
                "or name those that are labels by `targets`"
            )
