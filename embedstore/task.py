"""What is predicted: the unit, the targets and classes, and the labels, as a data set states them.

Data set readers make tasks and stores keep them; neither knows the other, so the type lives below both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from embedstore.errors import Advice, DataError, first_few

UNIT_ID = "unit_id"
# Units that have a word of their own, by the one column of their key.
UNIT_WORDS = {"image_id": "image", "study_id": "study"}
# Between the values of a key of several columns; a value that holds it is refused, so no two keys are one id.
KEY_SEPARATOR = "|"
POOLINGS = ("mean-probability", "mean-vector", "max-vector")
# Labels and subgroups are joined; all else says what is asked.
_SAME_IN_EVERY_STORE = (
    "unit",
    "targets",
    "classes",
    "class_weights",
    "pooling",
    "primary_metric",
    "ordered",
    "positive",
    "images_of_target",
)


@dataclass(frozen=True)
class ImageRule:
    """Which images speak for a target, by a column of the manifest.

    Parameters
    ----------
    column
        Manifest column.
    values
        An image speaks for the target if its cell, as text, is one of these; an empty cell is ``""``.
    """

    column: str
    values: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"column": self.column, "in": list(self.values)}


def image_rules_from_json(document: Mapping[str, Any]) -> dict[str, ImageRule]:
    """Build the rules of ``images_of_target`` in a task's document; raises KeyError where something is missing."""
    return {
        target: ImageRule(str(rule["column"]), tuple(map(str, rule["in"])))
        for target, rule in document.items()
    }


@dataclass(frozen=True)
class Task:
    """One prediction task with its labels.

    Parameters
    ----------
    name
        Short name, used in options and folder names.
    unit
        What carries a label: ``image``, ``study``, or the manifest columns whose values together name it, with
        commas (``study_id,level``).
    targets
        Names of what is predicted; one label column each.
    classes
        Class names; of two the second is the positive one.
    labels
        Arrow table: the id of the unit and one string column per target holding a class name or null where the
        label is missing. The id is ``unit_id`` where one column is the key, else the columns of the key; it is
        unique.
    class_weights
        One weight per class for metrics that want them, or None.
    pooling
        How a study's images give one answer (`POOLINGS`).
    primary_metric
        The metric that reports lead with, by its lower-case name.
    subgroups
        Manifest columns by which results are split.
    ordered
        Whether the classes are grades, from the least to the gravest. Metrics that count the distance between
        classes exist for such tasks only.
    positive
        The class that one acts on: decision curves and reliability diagrams are of it. Of two classes always the
        second, which is what None stands for; of more classes None says that there is no such class.
    images_of_target
        Target -> which images speak for it; all of the unit's images for a target that is not named.
    """

    name: str
    unit: str
    targets: tuple[str, ...]
    classes: tuple[str, ...]
    labels: pa.Table = field(repr=False, compare=False)
    class_weights: tuple[float, ...] | None = None
    pooling: str = "mean-probability"
    primary_metric: str = "auroc"
    subgroups: tuple[str, ...] = ()
    ordered: bool = False
    positive: str | None = None
    images_of_target: Mapping[str, ImageRule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)
        if self.positive is None and len(self.classes) == 2:
            object.__setattr__(self, "positive", self.classes[1])

    @property
    def unit_key(self) -> tuple[str, ...]:
        """Manifest columns whose values together name a unit."""
        return unit_key(self.unit)

    @property
    def positive_class(self) -> int | None:
        """Position of the positive class in `classes`, or None."""
        return None if self.positive is None else self.classes.index(self.positive)

    @property
    def image_rules(self) -> tuple[ImageRule | None, ...]:
        """Which images speak for each target, in the order of `targets`; None where all do."""
        return tuple(self.images_of_target.get(target) for target in self.targets)

    @property
    def unit_ids(self) -> list[str]:
        """Ids of the labelled units, in the order of the label table (`unit_id_of`)."""
        return _unit_ids(self)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Target -> class -> how many units have that label."""
        counted = {}
        for target in self.targets:
            cells = self.labels.column(target).value_counts().to_pylist()
            found = {cell["values"]: int(cell["counts"]) for cell in cells}
            counted[target] = {label: found.get(label, 0) for label in self.classes}
        return counted

    def to_json(self) -> dict[str, Any]:
        """Return everything but the labels as plain JSON values."""
        return {
            "name": self.name,
            "unit": self.unit,
            "targets": list(self.targets),
            "classes": list(self.classes),
            "class_weights": None if self.class_weights is None else list(self.class_weights),
            "pooling": self.pooling,
            "primary_metric": self.primary_metric,
            "subgroups": list(self.subgroups),
            "ordered": self.ordered,
            "positive": self.positive,
            "images_of_target": {target: rule.to_json() for target, rule in self.images_of_target.items()},
        }


def task_from_json(document: dict[str, Any], labels: pa.Table) -> Task:
    """Build a task from what `Task.to_json` returned and its label table.

    Documents from before ``ordered``, ``positive`` and ``images_of_target`` existed read as tasks whose classes are
    not known to be ordered, without a positive class among three or more, and whose images speak for every target.
    """
    weights = document["class_weights"]
    return Task(
        name=document["name"],
        unit=document["unit"],
        targets=tuple(document["targets"]),
        classes=tuple(document["classes"]),
        labels=labels,
        class_weights=None if weights is None else tuple(weights),
        pooling=document["pooling"],
        primary_metric=document["primary_metric"],
        subgroups=tuple(document["subgroups"]),
        ordered=document.get("ordered", False),
        positive=document.get("positive"),
        images_of_target=image_rules_from_json(document.get("images_of_target", {})),
    )


def unit_key(unit: str) -> tuple[str, ...]:
    """Return the manifest columns that name a unit.

    Examples
    --------
    >>> unit_key("study"), unit_key("study_id, level")
    (('study_id',), ('study_id', 'level'))
    """
    columns = {word: column for column, word in UNIT_WORDS.items()}
    return tuple(columns.get(part, part) for part in map(str.strip, unit.split(",")))


def unit_in_words(key: Sequence[str]) -> str:
    """Return the word of a unit's key, as `Task.unit` has it.

    Examples
    --------
    >>> unit_in_words(["study_id"]), unit_in_words(["study_id", "level"])
    ('study', 'study_id,level')
    """
    return UNIT_WORDS.get(key[0], key[0]) if len(key) == 1 else ",".join(key)


def units_in_words(unit: str) -> str:
    """Return what units are called where they are counted: ``images``, ``studies``, or ``units (study_id,level)``."""
    return {"image": "images", "study": "studies"}.get(unit, f"units ({unit})")


def counted_units(count: int, unit: str) -> str:
    """Return ``1 image``, ``2,000 studies`` or ``1 unit (study_id,level)``.

    Examples
    --------
    >>> counted_units(1, "study"), counted_units(2_000, "study_id,level")
    ('1 study', '2,000 units (study_id,level)')
    """
    one = {"image": "image", "study": "study"}.get(unit, f"unit ({unit})")
    return f"{count:,} {one if count == 1 else units_in_words(unit)}"


def unit_id_of(key: Sequence[str], cells: Sequence[str | None]) -> str:
    """Return the id of a unit: the value of its key, or the values of several columns with ``|`` between them.

    Returns
    -------
    str
        ``""`` where a value is empty: what has no complete key is no unit.

    Raises
    ------
    DataError
        If a value among several holds ``|``, which would make two keys one id.

    Examples
    --------
    >>> unit_id_of(["study_id", "level"], ["s1", "l4_l5"])
    's1|l4_l5'
    """
    if not all(cells):
        return ""
    if len(key) == 1:
        return str(cells[0])
    for column, cell in zip(key, cells, strict=True):
        if KEY_SEPARATOR in str(cell):
            raise DataError(
                f"{column} {cell!r}: values of a unit's key of several columns ({', '.join(key)}) are joined by "
                f"{KEY_SEPARATOR!r} and must not hold it; rename the values in the table"
            )
    return KEY_SEPARATOR.join(map(str, cells))


def id_columns(task_unit: str) -> tuple[str, ...]:
    """Return the columns of a label table that name the unit: ``unit_id``, or several columns of a key."""
    key = unit_key(task_unit)
    return (UNIT_ID,) if len(key) == 1 else key


def require_unit(unit: str, *, where: str) -> None:
    """Raise DataError unless `unit` is ``image``, ``study`` or different columns with commas, as `unit_in_words`."""
    key = unit_key(unit)
    if not all(key) or len(set(key)) != len(key) or unit != unit_in_words(key):
        advice = f"; write {unit_in_words(key)!r}" if all(key) and len(set(key)) == len(key) else ""
        raise DataError(
            f"{where}: unit must be 'image', 'study' or different manifest columns with commas "
            f"('study_id,level'), found {unit!r}{advice}"
        )


def join_tasks(tasks: Sequence[Task], holders: Sequence[str]) -> Task:
    """Return one task with the labels and subgroups of several, which must ask the same.

    Parameters
    ----------
    tasks
        One or more of one name.
    holders
        What holds each (a store's path), for messages.

    Raises
    ------
    DataError
        If tasks differ in anything but labels and subgroups, or label a unit differently.
    """
    first = tasks[0]
    if len(tasks) == 1:
        return first
    for task, holder in zip(tasks[1:], holders[1:], strict=True):
        for name in _SAME_IN_EVERY_STORE:
            one, other = getattr(first, name), getattr(task, name)
            if one != other:
                raise DataError(
                    f"task {first.name!r}: {name} must be the same in every store; found {one!r} in "
                    f"{holders[0]} and {other!r} in {holder}",
                    advice=Advice.CHANGE_TASK,
                )
    return replace(
        first,
        labels=_joined_labels(tasks, holders),
        subgroups=tuple(dict.fromkeys(name for task in tasks for name in task.subgroups)),
    )


def _unit_ids(task: Task) -> list[str]:
    columns = id_columns(task.unit)
    if len(columns) == 1:
        return list(task.labels.column(UNIT_ID).to_pylist())
    cells = zip(*(task.labels.column(name).to_pylist() for name in columns), strict=True)
    return [unit_id_of(columns, row) for row in cells]


def _joined_labels(tasks: Sequence[Task], holders: Sequence[str]) -> pa.Table:
    columns = [*id_columns(tasks[0].unit), *tasks[0].targets]
    known: dict[str, tuple[tuple[str | None, ...], str]] = {}
    for task, holder in zip(tasks, holders, strict=True):
        rows = zip(*(task.labels.column(name).to_pylist() for name in columns), strict=True)
        for unit, row in zip(task.unit_ids, rows, strict=True):
            found, where = known.setdefault(unit, (row, holder))
            if found != row:
                one, other = (_listed(labels[-len(task.targets) :]) for labels in (found, row))
                raise DataError(
                    f"task {task.name!r}: {task.unit} {unit!r} is labelled {one} in {where} and {other} in {holder}",
                    advice=Advice.CHANGE_TASK,
                )
    rows_of_column = [[row[at] for row, _ in known.values()] for at in range(len(columns))]
    arrays = [pa.array(cells, pa.string()) for cells in rows_of_column]
    return pa.table(dict(zip(columns, arrays, strict=True)))


def _check(task: Task) -> None:
    where = f"task {task.name!r}"
    if task.name.startswith("."):
        raise DataError(f"{where}: a task's name must not begin with a dot")
    if not task.name or not all(character.isalnum() or character in "-_." for character in task.name):
        raise DataError(f"{where}: a task's name may hold letters, digits, '-', '_' and '.' only")
    require_unit(task.unit, where=where)
    if task.pooling not in POOLINGS:
        raise DataError(f"{where}: pooling must be one of {', '.join(POOLINGS)}, found {task.pooling!r}")
    _check_classes(task, where)
    _check_labels(task, where)
    for target, rule in task.images_of_target.items():
        if target not in task.targets:
            raise DataError(
                f"{where}: images_of_target must name targets ({', '.join(task.targets)}), found {target!r}"
            )
        if not rule.values:
            raise DataError(
                f"{where}, target {target!r}: images_of_target needs one value or more of column {rule.column!r}, "
                "found none"
            )


def _check_classes(task: Task, where: str) -> None:
    if len(task.classes) < 2 or len(set(task.classes)) != len(task.classes):
        raise DataError(f"{where}: needs two or more different classes, found {list(task.classes)}")
    if task.class_weights is not None and len(task.class_weights) != len(task.classes):
        raise DataError(f"{where}: {len(task.classes)} classes but {len(task.class_weights)} class weights")
    if task.positive is None:
        return
    if task.positive not in task.classes:
        raise DataError(
            f"{where}: positive must be one of the classes {list(task.classes)}, found {task.positive!r}"
        )
    if len(task.classes) == 2 and task.positive != task.classes[1]:
        raise DataError(
            f"{where}: of two classes the second is the positive one, found positive {task.positive!r} in "
            f"{list(task.classes)}; give the classes as {list(task.classes[::-1])}"
        )


def _check_labels(task: Task, where: str) -> None:
    columns = id_columns(task.unit)
    missing = {*columns, *task.targets} - set(task.labels.column_names)
    if missing or not task.targets:
        raise DataError(f"{where}: label table lacks {sorted(missing)}; found {task.labels.column_names}")
    ids = task.unit_ids
    if len(set(ids)) != len(ids) or not all(ids):
        raise DataError(f"{where}: {', '.join(columns)} must be unique and never empty")
    for target in task.targets:
        unknown = set(task.labels.column(target).unique().to_pylist()) - {None, *task.classes}
        if unknown:
            raise DataError(
                f"{where}, target {target!r}: labels must be among {list(task.classes)} or empty, "
                f"found {first_few(map(repr, sorted(map(str, unknown))))}"
            )


def _listed(labels: Sequence[str | None]) -> str:
    return ", ".join("nothing" if label is None else repr(label) for label in labels)
