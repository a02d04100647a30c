"""How many units and patients of each class there are: without them no metric can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.protocol.probe_result import ProbeResult
from heads.statistics.subgroups import subgroups_of

ClassCounts = dict[str, dict[str, dict[str, int]]]


def count_classes(
    y: npt.NDArray[np.int64],
    patients: npt.NDArray[np.str_],
    *,
    targets: Sequence[str],
    classes: Sequence[str],
) -> ClassCounts:
    """Count units and patients.

    Parameters
    ----------
    y
        (n_units, targets) int64, `MISSING` where there is no label.
    patients
        (n_units,) str; one with units of several classes counts in each.
    targets, classes
        Names.

    Returns
    -------
    dict
        Target -> class -> ``units`` and ``patients``.
    """
    return {
        target: {
            name: {
                "units": int((y[:, column] == number).sum()),
                "patients": len(np.unique(patients[y[:, column] == number])),
            }
            for number, name in enumerate(classes)
        }
        for column, target in enumerate(targets)
    }


def classes_of_run(result: ProbeResult) -> dict[str, Any]:
    """Return the counts of the fitted and the evaluated units, and of the evaluated ones in each subgroup."""
    view, evaluated = result.view, result.evaluated
    names: dict[str, Any] = {"targets": view.task.targets, "classes": view.task.classes}
    row_of = {unit: row for row, unit in enumerate(view.unit_ids.tolist())}
    rows = np.array([row_of[unit] for unit in evaluated.unit_ids.tolist()], np.int64)
    by_subgroup: dict[str, dict[str, ClassCounts]] = {}
    for column, cell, members in subgroups_of(view.task.subgroups, view.subgroups, rows):
        of_cell = count_classes(evaluated.y[members], evaluated.patients[members], **names)
        by_subgroup.setdefault(column, {})[cell] = of_cell
    return {
        "fitted": count_classes(result.out_of_fold.y, result.out_of_fold.patients, **names),
        "evaluated": count_classes(evaluated.y, evaluated.patients, **names),
        "by_subgroup": by_subgroup,
    }
