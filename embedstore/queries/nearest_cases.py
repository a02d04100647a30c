"""The nearest studies, or images, or labelled units, of whatever is asked: one search behind predictions and pages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.queries.manifest_columns import own_unit_names
from embedstore.queries.search import Index, build_index
from embedstore.similarity.scan import Floats, Rows
from embedstore.store.reader import Store
from embedstore.task import Task
from embedstore.view import Units

# Images of a unit that may stand before the next unit, above the mean: what is looked at before the search is widened.
_ROOM = 2
_WIDER = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """What is searched for: the vectors of one or more images together, and what must not be found.

    Parameters
    ----------
    vectors
        (m, dim) of the index's identity.
    patients
        Patients whose images are left out.
    image_ids
        Images that are left out, as those that are asked with.
    unit_ids
        Units that are left out.
    """

    vectors: npt.NDArray[np.floating]
    patients: Collection[str] = ()
    image_ids: Collection[str] = ()
    unit_ids: Collection[str] = ()


@dataclass(frozen=True)
class UnitHit:
    """A unit that was found.

    Parameters
    ----------
    unit_id
        The unit.
    position
        Position in the index of its most similar image.
    cosine
        Of that image and the vector that it is most similar to, -1 to 1.
    asked
        Which of the vectors that is.
    """

    unit_id: str
    position: int
    cosine: float
    asked: int


@dataclass(frozen=True, eq=False)
class UnitIndex:
    """An index whose images belong to units, of which each is found once.

    Parameters
    ----------
    index
        The images.
    units
        (n,) str the unit of each image of the index.
    """

    index: Index
    units: npt.NDArray[np.str_]

    def nearest(
        self, asked: Sequence[Asked], *, k: int, findable: npt.NDArray[np.bool_] | None = None
    ) -> list[list[UnitHit]]:
        """Return the `k` units with the largest cosine to each of `asked`, largest first.

        The cosine of a unit is the largest of all pairs of a vector and an image of it; of equal ones the earlier row
        comes first.

        Parameters
        ----------
        asked
            What is searched for. A vector that is zero is similar to nothing.
        k
            How many, at least 1; fewer come back when fewer may be found.
        findable
            (n,) bool which images of the index may be found, by default all.
        """
        among = None if findable is None or findable.all() else np.flatnonzero(findable)
        total = len(self.units) if among is None else len(among)
        owners = np.repeat(np.arange(len(asked)), [len(one.vectors) for one in asked])
        found: list[list[UnitHit]] = [[] for _ in asked]
        pending = np.arange(len(asked) if total else 0)
        width = min(total, self._first_width(asked, k, total))
        while len(pending):
            rows = np.flatnonzero(np.isin(owners, pending))
            vectors = np.concatenate([asked[one].vectors for one in pending.tolist()]).astype(np.float32)
            patients = [asked[owner].patients for owner in owners[rows].tolist()]
            positions, cosines = self.index.nearest(
                vectors, width, among=among, outside=self.index.patient_codes(patients)
            )
            starts = np.searchsorted(owners[rows], [*pending.tolist(), len(asked)])
            unfinished = []
            for place, one in enumerate(pending.tolist()):
                own = slice(starts[place], starts[place + 1])
                found[one], complete = self._ranked(asked[one], positions[own], cosines[own], k)
                if not complete and width < total:
                    unfinished.append(one)
            pending, width = np.array(unfinished, np.int64), min(total, width * _WIDER)
        return found

    def images_of(self, positions: Sequence[int], findable: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Return (k,) how many images that may be found the unit of each of `positions` has."""
        counts = np.bincount(self._codes[findable], minlength=self._unit_count)
        return counts[self._codes[np.asarray(positions, np.int64)]]

    def _first_width(self, asked: Sequence[Asked], k: int, total: int) -> int:
        """Return how many images to look at first: those of `k` units and what is left out, with some room."""
        own = max((len(one.image_ids) for one in asked), default=0)
        return own + _ROOM * (k + 1) * -(-total // max(1, self._unit_count))

    def _ranked(self, asked: Asked, positions: Rows, cosines: Floats, k: int) -> tuple[list[UnitHit], bool]:
        """Return the first `k` units among the images that are nearest to each vector, and whether these are final.

        Parameters
        ----------
        asked
            What is searched for.
        positions, cosines
            (m, width) the nearest images of each vector; position -1 where there are no more.
        k
            How many.
        """
        # What a vector did not name is at most as similar as the last that it did.
        full = positions[:, -1] >= 0
        bound = float(cosines[full, -1].max(initial=-np.inf))
        which, place = np.nonzero(positions >= 0)
        at, values = positions[which, place], cosines[which, place]
        own = np.array([self.index.positions.get(name, -1) for name in asked.image_ids], np.int64)
        kept = ~(np.isin(at, own) | np.isin(self.units[at], np.array([*asked.unit_ids], np.str_)))
        which, at, values = which[kept], at[kept], values[kept]
        order = np.lexsort((which, at, -values))
        _, first = np.unique(self._codes[at[order]], return_index=True)
        first = order[np.sort(first)[:k]]
        hits = [
            UnitHit(str(self.units[at[row]]), int(at[row]), float(values[row]), int(which[row]))
            for row in first
        ]
        # Among several vectors an image that one did not name may stand before an equal one that another did.
        surely = len(hits) == k and (len(positions) == 1 or hits[-1].cosine > bound)
        return hits, surely or not full.any()

    @cached_property
    def _codes(self) -> Rows:
        """(n,) a number for each unit."""
        _, codes = np.unique(self.units, return_inverse=True)
        return codes.astype(np.int64)

    @property
    def _unit_count(self) -> int:
        return int(self._codes.max(initial=-1)) + 1


def unit_index(index: Index, unit: str) -> UnitIndex:
    """Return an index by units; an image that belongs to none is one of its own, by its id.

    Parameters
    ----------
    index
        The images.
    unit
        As `embedstore.task.Task.unit`.
    """
    return UnitIndex(index, own_unit_names(index.table, unit))


@dataclass(frozen=True)
class LabelledCases:
    """The labelled units of a store, indexed once for many predictions; `labelled_cases` makes one."""

    store: Store
    units: UnitIndex
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
            By unit: ``unit_id``, ``image_id`` (the most similar one), ``cosine`` and ``labels``.
        """
        order = np.argsort(units.unit_of_image, kind="stable")
        ends = np.searchsorted(units.unit_of_image[order], np.arange(len(units.unit_ids)), "right")
        asked = []
        for name, rows in zip(units.unit_ids.tolist(), np.split(order, ends[:-1]), strict=True):
            own = [stored_ids[row] for row in rows if stored_ids[row]]
            asked.append(
                Asked(
                    vectors=units.X[rows],
                    patients=patients_of(self.store, own),
                    image_ids=own,
                    unit_ids=[name],
                )
            )
        found = self.units.nearest(asked, k=count, findable=self._labelled)
        return [
            [
                {
                    "unit_id": hit.unit_id,
                    "image_id": str(self.units.index.image_ids[hit.position]),
                    "cosine": hit.cosine,
                    "labels": self.labels[hit.unit_id],
                }
                for hit in hits
            ]
            for hits in found
        ]

    @cached_property
    def _labelled(self) -> npt.NDArray[np.bool_]:
        return np.array([name in self.labels for name in self.units.units.tolist()], np.bool_)


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
    return LabelledCases(store, unit_index(build_index(store), task.unit), labels)


def patients_of(store: Store, image_ids: Sequence[str]) -> list[str]:
    """Return the patients of images of a store, each once; images without one have none."""
    column = store.table.column("patient_id")
    found = [column[store.row_of[image_id]].as_py() for image_id in image_ids if image_id in store.row_of]
    return [name for name in dict.fromkeys(found) if name is not None]
