"""The units of rows: what is known of each, and rows put into units by the names that a caller gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_consistent_length

from heads.training import Training


def unit_labels(training: Training) -> Training:
    """Return the labels, weights and groups of units, as rows without a vector."""
    first = training.row_of_unit
    return Training.of_rows(
        np.zeros((training.n_units, 0), np.float32),
        training.y[first],
        sample_weight=training.sample_weight[first],
        groups=training.groups[first],
        n_classes=training.n_classes,
    )


def put_into_units(training: Training, unit_of_row: Any, *, units_are_groups: bool) -> Training:
    """Return the same rows in units.

    Parameters
    ----------
    training
        Rows that are a unit each.
    unit_of_row
        (n,) numbers or names of units; None leaves the rows as they are.
    units_are_groups
        Whether no patients are known, so that each unit is a group of its own.

    Raises
    ------
    ValueError
        If lengths differ, or the rows of a unit have different labels, weights or groups.
    """
    if unit_of_row is None:
        return training
    check_consistent_length(training.X, unit_of_row)
    names, units = np.unique(np.asarray(unit_of_row), return_inverse=True)
    found = replace(training, unit_of_row=units.astype(np.int64), n_units=len(names))
    if units_are_groups:
        found = replace(found, groups=found.unit_of_row)
    first = found.row_of_unit[found.unit_of_row]
    known: dict[str, npt.NDArray[Any]] = {
        "labels": found.y,
        "weights": found.sample_weight,
        "groups": found.groups[:, None],
    }
    for what, values in known.items():
        apart = (values != values[first]).any(axis=1)
        if apart.any():
            odd = names[units[apart.argmax()]].item()
            raise ValueError(f"all images of a unit must have the same {what}; unit {odd!r} has several")
    return found
