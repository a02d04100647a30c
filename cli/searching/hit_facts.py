"""What is known of what was found: labels of the store's tasks, and the probabilities of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from embedstore.errors import UsageError
from embedstore.queries.derived_columns import can_say
from embedstore.queries.load_view import load_units
from embedstore.queries.manifest_columns import own_unit_names
from embedstore.queries.search import Index
from embedstore.store.reader import Store
from embedstore.store.tasks import read_task, task_names
from embedstore.task import Task
from heads.protocol.predictions import EVALUATION, OUT_OF_FOLD, Predictions
from heads.runs.run import Run

PREDICTED = "predicted"

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

    def of_images(self, positions: Sequence[int], task: str | None = None) -> list[dict[str, Labels | Any]]:
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


@dataclass(frozen=True, eq=False)
class RunBeside:
    """The probabilities of a run for units of a store: those that it kept, else those that it says now.

    Parameters
    ----------
    run
        The loaded run, of the store's identity.
    store, index
        The store and its images.
    """

    run: Run
    store: Store
    index: Index

    def __post_init__(self) -> None:
        self.run.require_identity(self.store.identity)

    def of_images(self, positions: Sequence[int]) -> list[Beside]:
        """Return what the run says of the units of images of the index.

        Raises
        ------
        UsageError
            If a unit that the run did not keep needs metadata that the store does not have.
        """
        names = [str(self._units[position]) for position in positions]
        lacking = [name for name in dict.fromkeys(names) if name not in self._kept]
        said = self._kept | self._predicted(lacking)
        return [said[name] for name in names]

    def _predicted(self, names: Sequence[str]) -> dict[str, Beside]:
        if not names:
            return {}
        columns = self.run.predictor.columns
        held = [column for column in columns if can_say(column, self.store.table.column_names)]
        if len(held) < len(columns):
            lacking = sorted(set(columns) - set(held))
            raise UsageError(
                f"run {self.run.folder} was fitted with {', '.join(lacking)}, which store {self.store.path} does not have"
            )
        units = load_units(
            self.store,
            self.run.document["task"]["unit"],
            with_columns=held,
            image_rules=self.run.image_rules,
            ids=names,
        )
        probabilities = self.run.predict(
            units.X,
            units.unit_of_image,
            n_units=len(units.unit_ids),
            metadata=units.metadata,
            image_of_target=units.image_of_target,
        )
        return {
            name: self._beside(name, row, PREDICTED)
            for name, row in zip(units.unit_ids.tolist(), probabilities, strict=True)
        }

    def _beside(self, name: str, probabilities: Any, source: str) -> Beside:
        targets = {
            target: dict(zip(self.run.classes, row.tolist(), strict=True))
            for target, row in zip(self.run.targets, probabilities, strict=True)
            if not np.isnan(row).any()
        }
        return Beside(unit_id=name, probabilities=targets, source=source)

    @cached_property
    def _units(self) -> Any:
        return own_unit_names(self.index.table, self.run.document["task"]["unit"])

    @cached_property
    def _kept(self) -> dict[str, Beside]:
        kept: dict[str, Beside] = {}
        parts: list[tuple[str, Predictions]] = [
            (OUT_OF_FOLD, self.run.out_of_fold),
            (EVALUATION, self.run.evaluated),
        ]
        for source, part in parts:
            for name, row in zip(part.unit_ids.tolist(), part.probabilities, strict=True):
                # Without a label nothing was said out of fold.
                if not np.isnan(row).all():
                    kept[name] = self._beside(name, row, source)
        return kept
