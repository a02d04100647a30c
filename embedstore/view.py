"""Store + task -> arrays: what a head needs to know, and nothing about files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.identity import Identity
from embedstore.task import Task

MISSING = -1


@dataclass(frozen=True)
class View:
    """The labelled units of one task with the vectors of their images.

    Images are in store order; units (images or studies) are in order of their first image.

    Parameters
    ----------
    task
        The task; its label table is not needed any more.
    identity
        What the vectors are.
    X
        (n_images, dim) float32, un-normalised; every row finite.
    image_ids
        (n_images,) str.
    content_sha256
        (n_images, 32) uint8: digest of each image's decoded pixels.
    unit_of_image
        (n_images,) int64: row of the unit that the image belongs to.
    unit_ids
        (n_units,) str: image_id or study_id.
    y
        (n_units, n_targets) int64: index into ``task.classes``, `MISSING` where there is no label.
    patients
        (n_units,) str.
    splits
        (n_units,) str: ``train``, ``valid``, ``test``, or ``""`` where there is no official split.
    subgroups
        Name -> (n_units,) str, ``""`` where unknown.
    excluded
        Why images or units of the store are not here -> how many (``"failed: unreadable"``).
    """

    task: Task
    identity: Identity
    X: npt.NDArray[np.float32]
    image_ids: npt.NDArray[np.str_]
    content_sha256: npt.NDArray[np.uint8]
    unit_of_image: npt.NDArray[np.int64]
    unit_ids: npt.NDArray[np.str_]
    y: npt.NDArray[np.int64]
    patients: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]
    subgroups: Mapping[str, npt.NDArray[np.str_]]
    excluded: Mapping[str, int]
