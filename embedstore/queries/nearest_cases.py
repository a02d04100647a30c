"""Nearest labelled cases of a prediction, from a store of the run's own vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.queries.search import Index, Neighbor, build_index
from embedstore.store.reader import Store
from embedstore.task import Task, unit_id_of
from embedstore.view import Units


@dataclass(frozen=True)
class LabelledCases:
    """The labelled units of a store, indexed once for many predictions; `labelled_cases` makes one."""

    store: Store
    task: Task
    index: Index
    labels: Mapping[str, Mapping[str, str | None]]

    def nearest(self, units: Units, stored_ids: Sequence[str], *, count: int) -> list[list[dict[str, Any]]]:
        """Find the labelled units that hold the images most similar to each unit's images.

        Parameters
        ----------
        units
            What is predicted.
        stored_ids
            Of each image the store's id, ``""`` where the store does not hold it: cases of its patient are left out.
        count
            Cases for each unit; fewer where there are fewer.

        Returns
        -------
        list of list of dict
            By unit: ``unit_id``, ``image_id`` (the most similar one), ``similarity`` (cosine) and ``labels``.
        """
        neighbors = self.index.search_many(
            units.X,
            # Several images of one study may come first; so many more are looked at.
            k=8 * (count + 1),
            exclude_patients=[_patient(self.store, image_id) for image_id in stored_ids],
            exclude_ids=stored_ids,
        )
        # A vector that is zero is similar to nothing.
        comparable = units.X.any(axis=1)
        found = []
        for unit in range(len(units.unit_ids)):
            cases: dict[str, dict[str, Any]] = {}
            for row in np.flatnonzero((units.unit_of_image == unit) & comparable).tolist():
                for case in self._cases_of_image(neighbors[row]):
                    known = cases.get(case["unit_id"])
                    if known is None or known["similarity"] < case["similarity"]:
                        cases[case["unit_id"]] = case
            ranked = sorted(cases.values(), key=lambda case: (-case["similarity"], case["unit_id"]))
            found.append([case for case in ranked if case["unit_id"] != units.unit_ids[unit]][:count])
        return found

    def _cases_of_image(self, neighbors: Sequence[Neighbor]) -> list[dict[str, Any]]:
        """Return the labelled units of the images most similar to one, each by the first of them."""
        key = self.task.unit_key
        cases: dict[str, dict[str, Any]] = {}
        for neighbor in neighbors:
            unit_id = unit_id_of(key, _cells(neighbor, key))
            if unit_id in self.labels and unit_id not in cases:
                cases[unit_id] = {
                    "unit_id": unit_id,
                    "image_id": neighbor.image_id,
                    "similarity": neighbor.similarity,
                    "labels": self.labels[unit_id],
                }
        return list(cases.values())


def labelled_cases(store: Store, task: Task, targets: Sequence[str]) -> LabelledCases:
    """Index a store for the nearest labelled cases.

    Parameters
    ----------
    store
        Of the same identity as the vectors that are predicted for.
    task
        Says what is a unit, and its label.
    targets
        Those whose labels are named; of the others there may be dozens.
    """
    labels = {
        unit_id: {target: row[target] for target in targets}
        for unit_id, row in zip(task.unit_ids, task.labels.to_pylist(), strict=True)
    }
    return LabelledCases(store, task, build_index(store), labels)


def _patient(store: Store, image_id: str) -> str | None:
    row = store.row_of.get(image_id)
    patient: str | None = None if row is None else store.table.column("patient_id")[row].as_py()
    return patient


def _cells(neighbor: Neighbor, key: Sequence[str]) -> list[str]:
    """Return the values of a unit's key of an image, ``""`` where one is empty."""
    record = {"image_id": neighbor.image_id, **neighbor.record}
    return ["" if record.get(column) is None else str(record[column]) for column in key]
