"""How many units and patients of each class there are: without them no metric can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.protocol.probe_result import ProbeResult

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
    """Return the counts of the fitted and the judged units, and of the judged ones in each subgroup."""
    view, judged = result.view, result.judged
    names: dict[str, Any] = {"targets": view.task.targets, "classes": view.task.classes}
    row_of = {unit: row for row, unit in enumerate(view.unit_ids.tolist())}
    rows = np.array([row_of[unit] for unit in judged.unit_ids.tolist()], np.int64)
    subgroups = {name: view.subgroups[name][rows] for name in result.evaluation.by_subgroup}
    return {
        "fitted": count_classes(result.out_of_fold.y, result.out_of_fold.patients, **names),
        "judged": count_classes(judged.y, judged.patients, **names),
        "by_subgroup": {
            column: {
                str(cell) or "unknown": count_classes(
                    judged.y[cells == cell], judged.patients[cells == cell], **names
                )
                for cell in np.unique(cells)
            }
            for column, cells in subgroups.items()
        },
    }
