"""By which columns results may be split: those that a task names, and what readers of a result ask for anyway."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedstore.store.reader import Store
from embedstore.task import Task
from embedstore.view import SEVERAL

# Manufacturer, sequence, age and sex, as readers and published tables call them (NIH ChestX-ray14, CheXpert, PadChest),
# without case and marks.
USUAL = frozenset(
    {
        "manufacturer",
        "sequence",
        "seriesdescription",
        "fieldstrengtht",
        "age",
        "patientage",
        "sex",
        "gender",
        "patientsex",
        "patientgender",
    }
)


def subgroup_columns(task: Task, stores: Sequence[Store]) -> list[str]:
    """Return the columns of `View.subgroups`: the task's that some store has, then those of `USUAL` that one has."""
    known = list(dict.fromkeys(column for store in stores for column in store.table.column_names))
    usual = [name for name in known if _plain(name) in USUAL]
    return list(dict.fromkeys([*(name for name in task.subgroups if name in known), *usual]))


def cells_of_units(
    cells: npt.NDArray[np.str_], unit_of_image: npt.NDArray[np.int64], first: npt.NDArray[np.int64]
) -> npt.NDArray[np.str_]:
    """Return each unit's cell: that of its images, or `SEVERAL` where they differ.

    Parameters
    ----------
    cells, unit_of_image
        (n_images,) the cell and the unit of each image.
    first
        (n_units,) the first image of each unit.

    Examples
    --------
    >>> cells_of_units(np.array(["T1", "T2", "T1"]), np.array([0, 0, 1]), np.array([0, 2])).tolist()
    ['several', 'T1']
    """
    own = cells[first]
    mixed = np.zeros(len(first), np.bool_)
    mixed[unit_of_image[cells != own[unit_of_image]]] = True
    return np.where(mixed, SEVERAL, own)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]|dicom$", "", name.lower())
