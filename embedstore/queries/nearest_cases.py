"""Nearest labelled cases of a prediction, from a store of the run's own vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.keys.key_file import Key
from embedstore.manifest import path_from_manifest
from embedstore.queries.image_files import ImageFiles
from embedstore.queries.search import Index, Neighbor, build_index
from embedstore.store.reader import Store
from embedstore.task import Task, unit_id_of
from embedstore.view import Units


def nearest_cases(
    store: Store,
    task: Task,
    units: Units,
    paths: Mapping[str, Path],
    *,
    count: int,
    key: Key | None = None,
) -> list[list[dict[str, Any]]]:
    """Find the labelled units that hold the images most similar to each unit's images.

    Parameters
    ----------
    store
        Of the same identity as the vectors.
    task
        Says what is a unit, and its label.
    units
        What is predicted.
    paths
        Image id -> absolute path, of files: an image that the store holds too is known by its path or its
        vector, and its patient's cases are left out. Without a path the id itself is that of the store.
    count
        Cases for each unit; fewer where there are fewer.
    key
        The key of a store whose paths are hidden; without it an image of the store is known by its vector alone.

    Returns
    -------
    list of list of dict
        By unit: ``unit_id``, ``image_id`` (the most similar one), ``similarity`` (cosine) and ``labels``.
    """
    index = build_index(store)
    known_as = _known_images(store, paths, key)
    labels = {
        unit_id: {target: row[target] for target in task.targets}
        for unit_id, row in zip(task.unit_ids, task.labels.to_pylist(), strict=True)
    }
    found = []
    for unit in range(len(units.unit_ids)):
        cases: dict[str, dict[str, Any]] = {}
        for row in np.flatnonzero(units.unit_of_image == unit):
            own = str(units.image_ids[row])
            stored = known_as.get(own) or _same_vector(store, index, units.X[row]) if own in paths else own
            for case in _cases_of_image(
                index, task, labels, units.X[row], stored, _patient(store, stored), count
            ):
                known = cases.get(case["unit_id"])
                if known is None or known["similarity"] < case["similarity"]:
                    cases[case["unit_id"]] = case
        ranked = sorted(cases.values(), key=lambda case: (-case["similarity"], case["unit_id"]))
        found.append([case for case in ranked if case["unit_id"] != units.unit_ids[unit]][:count])
    return found


def _known_images(store: Store, paths: Mapping[str, Path], key: Key | None) -> dict[str, str]:
    """Return the store's id of each image that it was made of."""
    wanted = {path.resolve(): image_id for image_id, path in paths.items()}
    names = {path.name for path in wanted}
    known, files = {}, ImageFiles(key)
    for part in store.parts if wanted else ():
        for stored, root, path in files.of_part(store, part):
            # Resolving a path asks the disk; a name is compared first.
            if path.rpartition("/")[2] in names:
                own = wanted.get(path_from_manifest(root, path).resolve())
                if own is not None:
                    known[own] = str(stored)
    return known


def _same_vector(store: Store, index: Index, vector: npt.NDArray[np.float32]) -> str:
    """Return the store's id of an image with the same vector to the bit, or ``""``."""
    nearest = index.search(vector, k=1)
    same = nearest and np.array_equal(np.asarray(store.vector(nearest[0].image_id), np.float32), vector)
    return nearest[0].image_id if same else ""


def _patient(store: Store, image_id: str) -> str | None:
    row = store.row_of.get(image_id)
    patient: str | None = None if row is None else store.table.column("patient_id")[row].as_py()
    return patient


def _cases_of_image(
    index: Index,
    task: Task,
    labels: dict[str, dict[str, Any]],
    vector: Any,
    image_id: str,
    patient: str | None,
    count: int,
) -> list[dict[str, Any]]:
    key = task.unit_key
    cases: dict[str, dict[str, Any]] = {}
    # Several images of one study may come first; so many more are looked at.
    for neighbor in index.search(vector, k=8 * (count + 1), exclude_patient=patient, exclude_id=image_id):
        unit_id = unit_id_of(key, _cells(neighbor, key))
        if unit_id in labels and unit_id not in cases:
            cases[unit_id] = {
                "unit_id": unit_id,
                "image_id": neighbor.image_id,
                "similarity": neighbor.similarity,
                "labels": labels[unit_id],
            }
    return list(cases.values())


def _cells(neighbor: Neighbor, key: Sequence[str]) -> list[str]:
    """Return the values of a unit's key of an image, ``""`` where one is empty."""
    record = {"image_id": neighbor.image_id, **neighbor.record}
    return ["" if record.get(column) is None else str(record[column]) for column in key]
