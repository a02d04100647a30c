"""What is known of what was found: labels of the store's tasks, and what a run says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from embedstore.queries.manifest_columns import own_unit_names
from embedstore.queries.search import Index
from embedstore.store.reader import Store
from embedstore.store.tasks import read_task, task_names
from embedstore.task import Task

Labels = Mapping[str, Mapping[str, str | None]]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A run's probabilities of a unit.

    Parameters
    ----------
    unit_id
        The unit of the run's task.
    probabilities
        Target -> class -> calibrated probability; a target for which no image speaks is left out.
    source
        ``out-of-fold`` or ``evaluation`` where the run kept what a head said that had not seen the unit's patient, else
        ``predicted``.
    """

    unit_id: str
    probabilities: Mapping[str, Mapping[str, float]]
    source: str


@dataclass(frozen=True, eq=False)
class StoreLabels:
    """The labels of a store's images by its tasks, each read once."""

    store: Store
    index: Index
    _read: dict[str, _TaskLabels] = field(default_factory=dict, repr=False)

    def of_images(self, positions: Sequence[int], task: str | None = None) -> list[Labels]:
        """Return task -> target -> class, null where there is no label, of each image of the index.

        Parameters
        ----------
        positions
            Of the images in the index.
        task
            The task; all of the store by default.

        Raises
        ------
        UsageError
            If the store has no such task.
        """
        names = [task] if task is not None else task_names(self.store.path)
        found = [self.of_task(name) for name in names]
        return [
            {labels.task.name: row for labels in found if (row := labels.of_image(position)) is not None}
            for position in positions
        ]

    def of_task(self, name: str) -> _TaskLabels:
        """Return the labels of one task; raises UsageError where the store has no such task."""
        if name not in self._read:
            self._read[name] = _TaskLabels(self.index, read_task(self.store.path, name))
        return self._read[name]


@dataclass(frozen=True, eq=False)
class _TaskLabels:
    index: Index
    task: Task

    def of_image(self, position: int) -> dict[str, str | None] | None:
        """Return target -> class of the unit of an image; None where it has no label."""
        row = self._row_of.get(str(self.units[position]))
        return None if row is None else {target: row[target] for target in self.task.targets}

    @cached_property
    def units(self) -> Any:
        """(n,) str the task's unit of each image of the index."""
        return own_unit_names(self.index.table, self.task.unit)

    @cached_property
    def _row_of(self) -> dict[str, dict[str, str | None]]:
        return dict(zip(self.task.unit_ids, self.task.labels.to_pylist(), strict=True))
