"""What is predicted: the unit, the targets and classes, and the labels, as a data set states them.

Data set readers make tasks and stores keep them; neither knows the other, so the type lives below both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from embedstore.errors import Advice, DataError

Unit = Literal["image", "study"]
UNIT_ID = "unit_id"
POOLINGS = ("mean-probability", "mean-vector", "max-vector")


@dataclass(frozen=True)
class Task:
    """One prediction task with its labels.

    Parameters
    ----------
    name
        Short name, used in options and folder names.
    unit
        What carries a label: an ``image`` or a ``study``.
    targets
        Names of what is predicted; one label column each.
    classes
        Class names in order; with two, the second is the positive one.
    labels
        Arrow table: ``unit_id`` (image_id or study_id, unique) and one string column per target holding a
        class name or null where the label is missing.
    class_weights
        One weight per class for metrics that want them, or None.
    pooling
        How a study's images give one answer (`POOLINGS`).
    primary_metric
        The metric that reports lead with, by its lower-case name.
    subgroups
        Manifest columns by which results are split.
    """

    name: str
    unit: Unit
    targets: tuple[str, ...]
    classes: tuple[str, ...]
    labels: pa.Table = field(repr=False, compare=False)
    class_weights: tuple[float, ...] | None = None
    pooling: str = "mean-probability"
    primary_metric: str = "auroc"
    subgroups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

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
        }


def task_from_json(document: dict[str, Any], labels: pa.Table) -> Task:
    """Build a task from what `Task.to_json` returned and its label table."""
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
        for name in ("unit", "targets", "classes", "class_weights", "pooling", "primary_metric"):
            one, other = getattr(first, name), getattr(task, name)
            if one != other:
                raise DataError(
                    f"task {first.name!r}: {name} must be the same in every store; found {one!r} in "
                    f"{holders[0]} and {other!r} in {holder}"
                )
    return replace(
        first,
        labels=_joined_labels(tasks, holders),
        subgroups=tuple(dict.fromkeys(name for task in tasks for name in task.subgroups)),
    )


def _joined_labels(tasks: Sequence[Task], holders: Sequence[str]) -> pa.Table:
    columns = [UNIT_ID, *tasks[0].targets]
    known: dict[str, tuple[tuple[str | None, ...], str]] = {}
    for task, holder in zip(tasks, holders, strict=True):
        for unit, *labels in zip(*(task.labels.column(name).to_pylist() for name in columns), strict=True):
            found, where = known.setdefault(unit, (tuple(labels), holder))
            if found != tuple(labels):
                raise DataError(
                    f"task {task.name!r}: {task.unit} {unit!r} is labelled {_listed(found)} in {where} and "
                    f"{_listed(labels)} in {holder}",
                    advice=Advice.CHANGE_TASK,
                )
    labels_of_target = [[labels[at] for labels, _ in known.values()] for at in range(len(columns) - 1)]
    arrays = [pa.array(known, pa.string()), *(pa.array(cells, pa.string()) for cells in labels_of_target)]
    return pa.table(dict(zip(columns, arrays, strict=True)))


def _listed(labels: Sequence[str | None]) -> str:
    return ", ".join("nothing" if label is None else repr(label) for label in labels)


def _check(task: Task) -> None:
    where = f"task {task.name!r}"
    if task.name.startswith("."):
        raise DataError(f"{where}: a task's name must not begin with a dot")
    if not task.name or not all(character.isalnum() or character in "-_." for character in task.name):
        raise DataError(f"{where}: a task's name may hold letters, digits, '-', '_' and '.' only")
    if task.unit not in ("image", "study"):
        raise DataError(f"{where}: unit must be 'image' or 'study', found {task.unit!r}")
    if len(task.classes) < 2 or len(set(task.classes)) != len(task.classes):
        raise DataError(f"{where}: needs two or more different classes, found {list(task.classes)}")
    if task.pooling not in POOLINGS:
        raise DataError(f"{where}: pooling must be one of {', '.join(POOLINGS)}, found {task.pooling!r}")
    if task.class_weights is not None and len(task.class_weights) != len(task.classes):
        raise DataError(f"{where}: {len(task.classes)} classes but {len(task.class_weights)} class weights")
    missing = {UNIT_ID, *task.targets} - set(task.labels.column_names)
    if missing or not task.targets:
        raise DataError(f"{where}: label table lacks {sorted(missing)}; found {task.labels.column_names}")
    ids = task.labels.column(UNIT_ID)
    if len(ids.unique()) != len(ids) or ids.null_count:
        raise DataError(f"{where}: {UNIT_ID} must be unique and never empty")
    for target in task.targets:
        unknown = set(task.labels.column(target).unique().to_pylist()) - {None, *task.classes}
        if unknown:
            raise DataError(
                f"{where}, target {target!r}: labels must be among {list(task.classes)} or empty, "
                f"found {sorted(map(str, unknown))[:5]}"
            )
