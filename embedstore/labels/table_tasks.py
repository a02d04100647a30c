"""The label columns of a table of images -> tasks, and what a person should know about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.labels.class_order import are_numbers, order_classes
from embedstore.labels.finding_lists import looks_like_lists, read_finding_lists
from embedstore.labels.grade_order import grades_in_words
from embedstore.labels.label_rules import LabelRules
from embedstore.labels.states import (
    FINDING_CLASSES,
    MISSING,
    NO,
    STATE_CLASSES,
    UNCERTAIN,
    YES,
    read_states,
    state_of,
)
from embedstore.labels.typing_errors import likely_typing_errors
from embedstore.labels.unit_labels import RowLabels, Units, labels_of_units, units_of
from embedstore.manifest import Manifest
from embedstore.task import Task, id_columns, units_in_words

_MOST_CLASSES = 100  # more are a measurement or an id, not a label
_SHOWN = 5
Codes = npt.NDArray[np.int16]
Facts = dict[str, str | int]


@dataclass(frozen=True)
class LabelTable:
    """The part of a table that tasks are made of.

    Parameters
    ----------
    columns
        Name -> one text or None per row, or an Arrow array of them.
    where
        Row -> its file and place (``labels.csv: line 12``), for messages.
    path
        The file, for messages about columns.
    subgroups
        Manifest columns by which results are split.
    """

    columns: Mapping[str, Sequence[str | None] | pa.Array]
    where: Callable[[int], str]
    path: str
    subgroups: tuple[str, ...] = ()

    def encoded(self, column: str) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Return the different cells of a column, and for each row the number of its own, -1 where empty."""
        cells = self.columns[column]
        array = cells if isinstance(cells, (pa.Array, pa.ChunkedArray)) else pa.array(cells, pa.string())
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        encoded = array.cast(pa.string()).dictionary_encode()
        indices = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return encoded.dictionary.to_pylist(), np.asarray(indices, np.int64)


@dataclass(frozen=True)
class _Draft:
    """A task before its rows became units: labels, whether they are states of findings, the positive class, facts."""

    name: str
    labels: RowLabels
    of_findings: bool
    positive: str | None = None
    facts: Facts = field(default_factory=dict)


def build_tasks(rules: LabelRules, table: LabelTable, manifest: Manifest) -> tuple[tuple[Task, ...], Facts]:
    """Return the tasks of a table of images, and facts for people.

    Parameters
    ----------
    rules
        What is asked of the label columns.
    table
        Those columns.
    manifest
        The records, one per row of `table`.

    Raises
    ------
    DataError
        If a cell is no label of its task, a column holds fewer than two classes or more than 100, or the rows of a
        unit disagree.
    UsageError
        If a positive class or a unit does not exist, or two tasks have one name.
    """
    if not rules.columns:
        return (), {}
    drafts = [_of_label(rules, column, table) for column in rules.label]
    drafts += [_of_group(rules, name, columns, table) for name, columns in rules.groups.items()]
    _check_positive(rules, drafts)
    names = [draft.name.casefold() for draft in drafts]
    if doubled := [draft.name for draft in drafts if names.count(draft.name.casefold()) > 1]:
        raise UsageError(
            f"two tasks would be called {doubled[0]!r}; give the group another name, or rename a column"
        )
    labelled = np.logical_or.reduce([(draft.labels.codes != MISSING).any(axis=1) for draft in drafts])
    units = units_of(manifest, rules.unit, labelled=labelled, where=table.where)
    tasks, facts = [], Facts()
    if outside := int((units.of_row < 0).sum()):
        facts[f"rows without {units.unit}"] = f"{outside:,}; they have no label"
    for draft in drafts:
        task, said = _finished(draft, rules, units, table)
        tasks.append(task)
        facts |= said
    return tuple(tasks), facts


def build_finding_task(rules: LabelRules, table: LabelTable, units: Units, name: str) -> tuple[Task, Facts]:
    """Return one task of findings from a table with a row per unit, and facts for people.

    Parameters
    ----------
    rules
        One label column with a separator, or one group.
    table
        Their columns.
    units
        The unit of each row.
    name
        Name of the task.

    Raises
    ------
    DataError
        As `build_tasks`.
    """
    if rules.label:
        draft = _of_lists(rules, rules.label[0], rules.separators[rules.label[0]], table)
    else:
        draft = _of_group(rules, name, rules.groups[name], table)
    return _finished(replace(draft, name=name), rules, units, table)


def task_name(column: str) -> str:
    """Return the name of the task of a label column: other characters than letters, digits, ``-_.`` become ``-``."""
    return re.sub(r"[^\w.-]", "-", column).lstrip(".") or "label"


def _of_label(rules: LabelRules, column: str, table: LabelTable) -> _Draft:
    where, name = f"{table.path}: label column {column!r}", task_name(column)
    cells, of_row = table.encoded(column)
    separator = rules.separator_of(column)
    if separator is not None:
        return _of_lists(rules, column, separator, table)
    numbers = _as_numbers(cells)
    if -1.0 in numbers and numbers <= {-1.0, 0.0, 1.0}:
        if rules.uncertain is None and len(numbers) < 3:
            raise DataError(
                f"{where} holds -1 and {min(numbers - {-1.0}, default=-1.0):g} only, so -1 may mean uncertain or no; "
                "say what it is by `uncertain` (missing, positive, negative or class)"
            )
        return _of_group(rules, name, (column,), table)
    if not 2 <= len(cells) <= _MOST_CLASSES:
        raise DataError(
            f"{where} must hold 2 to {_MOST_CLASSES} different classes; found {len(cells):,}: "
            f"{', '.join(cells[:_SHOWN])}{_hint_of_lists(cells)}{_hint_of_ticks(cells, name, column)}"
        )
    chosen = _positive_of(rules, column, cells)
    classes = order_classes(cells, chosen, where=where)
    number = np.array([classes.index(cell) for cell in cells], np.int16)
    codes = np.where(of_row < 0, np.int16(-1), number[of_row])[:, None]
    facts: Facts = {f"{name}: order of grades": grades} if (grades := grades_in_words(classes)) else {}
    counts = np.bincount(of_row[of_row >= 0], minlength=len(cells)).tolist()
    if near := likely_typing_errors(dict(zip(cells, counts, strict=True))):
        facts[f"{name}: typing errors?"] = near
    if hint := _hint_of_lists(cells):
        facts[f"{name}: labels that look like lists"] = hint.lstrip("; ")
    return _Draft(name, RowLabels(column, (column,), classes, codes), False, chosen, facts)


def _of_lists(rules: LabelRules, column: str, separator: str, table: LabelTable) -> _Draft:
    where, name = f"{table.path}: label column {column!r}", task_name(column)
    cells, of_row = table.encoded(column)
    if "" in rules.separators and column not in rules.separators and len(rules.label) > 1:
        held = any(separator in cell or cell[:1] == "[" for cell in cells)
        if not held:
            raise UsageError(
                f"`label_separator`: no cell of {column!r} holds {separator!r}; name the column that is a list "
                "(COLUMN=SEPARATOR)"
            )
    if not cells:
        raise DataError(f"{where} holds no label")
    counts = np.bincount(of_row[of_row >= 0], minlength=len(cells))
    lists = read_finding_lists(cells, counts.tolist(), separator, where=where)
    # Behind the last cell stands that of empty ones.
    states = np.vstack([lists.states, np.full((1, len(lists.findings)), MISSING, np.int8)])
    labels = RowLabels(column, lists.findings, STATE_CLASSES, states[of_row].astype(np.int16))
    facts: Facts = {}
    present = counts @ (lists.states == YES)
    if near := likely_typing_errors(dict(zip(lists.findings, present.tolist(), strict=True))):
        facts[f"{name}: typing errors?"] = near
    if lists.respelled:
        told = [f"{one!r} as {other!r} {count:,}" for (one, other), count in sorted(lists.respelled.items())]
        facts[f"{name}: spelled in two ways"] = _some(told)
    if nothing := int(counts[lists.nothing_found].sum()):
        facts[f"{name}: rows with nothing found"] = f"{nothing:,}; every finding is 0 there"
    if lists.contradictions:
        rows = int(sum(counts[cells.index(cell)] for cell in lists.contradictions))
        facts[f"{name}: contradictions"] = (
            f"{rows:,} rows say that nothing was found and name a finding, such as {lists.contradictions[0]!r}; "
            "their labels are missing"
        )
    if empty := int((of_row < 0).sum() + counts[lists.empty].sum()):
        facts[f"{name}: rows with an empty list"] = f"{empty:,}; {_taken_as(rules.empty, 'empty')}"
    return _Draft(name, labels, True, facts=facts)


def _of_group(rules: LabelRules, name: str, columns: Sequence[str], table: LabelTable) -> _Draft:
    targets, codes = [], []
    facts: Facts = {}
    without, empty = [], 0
    for column in columns:
        cells, of_row = table.encoded(column)
        states = read_states(cells)
        if states is None:
            raise DataError(_no_state(column, cells, of_row, table))
        if not len(states):
            without.append(column)
            continue
        targets.append(column)
        codes.append(np.append(states, np.int8(MISSING))[of_row].astype(np.int16))
        empty += int((of_row < 0).sum())
    if not targets:
        raise DataError(f"{table.path}: label group {name}: {', '.join(columns)} hold no label")
    if without:
        facts[f"{name}: columns without a label, left out"] = _some(without)
    if empty:
        facts[f"{name}: empty cells"] = f"{empty:,}; {_taken_as(rules.empty, 'empty')}"
    labels = RowLabels(name, tuple(targets), STATE_CLASSES, np.stack(codes, axis=1))
    return _Draft(name, labels, True, facts=facts)


def _no_state(column: str, cells: Sequence[str], of_row: npt.NDArray[np.int64], table: LabelTable) -> str:
    other = [cell for cell in cells if read_states([cell]) is None]
    row = int(np.flatnonzero(of_row == cells.index(other[0]))[0])
    return (
        f"{table.where(row)}: column {column!r} of a label group must hold 0, 1, -1 (uncertain) or nothing; found "
        f"{_some([repr(cell) for cell in other])}. Make a task of such a column by `label`"
    )


def _finished(draft: _Draft, rules: LabelRules, units: Units, table: LabelTable) -> tuple[Task, Facts]:
    labels = draft.labels
    if taken := {*id_columns(units.unit)} & {*labels.targets}:
        raise UsageError(
            f"a label must not be called {taken.pop()!r}, as the unit's id is; rename the column"
        )
    codes = labels_of_units(labels, units, where=table.where)
    classes, positive, facts = labels.classes, draft.positive, dict(draft.facts)
    if draft.of_findings:
        codes, classes, said = _settled(codes, rules, draft.name)
        positive, facts = "1", said | facts
        _check_two_classes(codes, draft, facts, table)
    names = pa.array(classes, pa.string())
    columns = {
        target: names.take(pa.array(codes[:, at].astype(np.int64), mask=codes[:, at] < 0))
        for at, target in enumerate(labels.targets)
    }
    held = {name: units.columns.column(name) for name in units.columns.column_names}
    task = Task(
        name=draft.name,
        unit=units.unit,
        targets=labels.targets,
        classes=classes,
        labels=pa.table(held | columns),
        subgroups=table.subgroups,
        positive=positive,
    )
    return task, {f"task {draft.name}": describe_task(task)} | _most_often(task, codes) | facts


def _settled(codes: Codes, rules: LabelRules, name: str) -> tuple[Codes, tuple[str, ...], Facts]:
    """Return states of units as classes: what -1 and empty cells are was left open until here."""
    doubtful, facts = codes == UNCERTAIN, Facts()
    way = rules.uncertain or "missing"
    classes = STATE_CLASSES if way == "class" and doubtful.any() else FINDING_CLASSES
    if doubtful.any():
        facts[f"{name}: uncertain (-1)"] = f"{int(doubtful.sum()):,} labels; {_taken_as(way, 'uncertain')}"
    # Before the doubtful ones, so that only what is empty becomes negative.
    if rules.empty == "negative":
        codes = np.where(codes == MISSING, np.int16(NO), codes)
    becomes = {"missing": MISSING, "negative": NO, "positive": YES, "class": UNCERTAIN}[way]
    return np.where(doubtful, np.int16(becomes), codes), classes, facts


def _check_two_classes(codes: Codes, draft: _Draft, facts: Facts, table: LabelTable) -> None:
    found = sorted(set(np.unique(codes).tolist()) - {MISSING})
    if len(found) < 2:
        named = STATE_CLASSES[found[0]] if found else "no label"
        said = "".join(f"; {name.partition(': ')[2]}: {fact}" for name, fact in facts.items())
        ticked = found == [YES] and any("empty" in fact for fact in facts)
        advice = (
            ". Where only what is found is ticked, `empty='negative'` takes empty cells as 0"
            if ticked
            else ""
        )
        raise DataError(
            f"{table.path}: task {draft.name!r} needs 0 and 1 among its labels; found {named} only{said}{advice}"
        )


def describe_task(task: Task) -> str:
    """Return a line on a task: its unit, targets, classes, and which class is positive."""
    line = f"per {task.unit}, classes {', '.join(task.classes)}"
    if len(task.targets) > 1:
        line = f"per {task.unit}, {len(task.targets)} targets, classes {', '.join(task.classes)}"
    if task.positive is None:
        return line
    turns = len(task.classes) == 2 and task.classes != FINDING_CLASSES
    return f"{line}, positive: {task.positive}" + (
        f" (`positive='{task.classes[0]}'` swaps)" if turns else ""
    )


def _most_often(task: Task, codes: Codes) -> Facts:
    if len(task.targets) == 1:
        return {}
    counts = (codes == YES).sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    told = [f"{task.targets[at]} {counts[at]:,}" for at in order]
    return {f"{task.name}: positive {units_in_words(task.unit)}": _some(told)}


def _positive_of(rules: LabelRules, column: str, classes: Sequence[str]) -> str | None:
    """Return the class that the rules name for a label column; the most specific wins."""
    for text in rules.positive:
        name, equals, label = text.partition("=")
        if equals and name == column:
            if label not in classes:
                raise UsageError(
                    f"`positive` must be a class of {column!r} ({_some(sorted(classes))}); found {label!r}"
                    f"{did_you_mean(label, classes)}"
                )
            return label
    return next((text for text in rules.positive if text in classes), None)


def _check_positive(rules: LabelRules, drafts: Sequence[_Draft]) -> None:
    plain = [draft.labels for draft in drafts if not draft.of_findings]
    columns = {labels.column for labels in plain}
    known = {label for labels in plain for label in labels.classes}
    for text in rules.positive:
        if text in known or text.partition("=")[0] in columns or text == "1":
            continue
        of_findings = "; the positive class of findings is 1" if len(plain) < len(drafts) else ""
        raise UsageError(
            f"`positive` must be a class of a label column ({_some(sorted(known)) or 'none'}){of_findings}; found "
            f"{text!r}{did_you_mean(text, known)}"
        )


def _hint_of_ticks(cells: Sequence[str], name: str, column: str) -> str:
    if len(cells) != 1 or state_of(cells[0]) != YES:
        return ""
    return f". If an empty cell means no: `label_group='{name}={column}'` with `empty='negative'` in place of `label`"


def _hint_of_lists(cells: Sequence[str]) -> str:
    separator = looks_like_lists(cells)
    return f"; `label_separator='{separator}'` makes a target of each finding" if separator else ""


def _as_numbers(cells: Sequence[str]) -> set[float]:
    return {float(cell) for cell in cells} if are_numbers(cells) else set()


def _taken_as(way: str, option: str) -> str:
    taken = {"missing": "missing labels", "negative": "taken as 0", "positive": "taken as 1"}.get(
        way, "a class of their own"
    )
    return f"{taken} (`{option}='{way}'`)"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
