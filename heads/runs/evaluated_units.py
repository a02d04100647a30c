"""The judged units of a run as arrays again, from its table of predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from embedstore.view import MISSING
from heads.runs.run import Run
from heads.scores import Floats, probabilities_from_scores
from heads.statistics.bootstrap import draw_patients
from heads.statistics.evaluation import Scored


@dataclass(frozen=True)
class Judged:
    """What a run said of the units it was judged by.

    Parameters
    ----------
    unit_ids, patients
        (n_units,) str.
    y
        (n_units, targets) int64, `MISSING` where there is no label.
    probabilities, uncalibrated
        (n_units, targets, n_classes) float64, after and before calibration.
    """

    unit_ids: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    y: npt.NDArray[np.int64]
    probabilities: Floats
    uncalibrated: Floats

    def scored(self, *, draws: int, seed: int) -> Scored:
        """Return the probabilities with bootstrap draws of their patients."""
        return Scored(self.y, self.probabilities, draw_patients(self.patients, draws=draws, seed=seed))


def judged_units(run: Run) -> Judged:
    """Return the judged units of a run, in the order of its table."""
    table = run.predictions.filter(pc.equal(run.predictions.column("split"), "test"))
    code: dict[str | None, int] = {None: MISSING}
    code |= {name: index for index, name in enumerate(run.classes)}
    scores = ["score"] if len(run.classes) == 2 else [f"score_{name}" for name in run.classes]
    labels, logits, probabilities = [], [], []
    for target in run.targets:
        rows = table.filter(pc.equal(table.column("target"), target))
        labels.append([code[label] for label in rows.column("label").to_pylist()])
        logits.append(np.column_stack([rows.column(name).to_numpy() for name in scores]))
        probabilities.append(
            np.column_stack([rows.column(f"prob_{name}").to_numpy() for name in run.classes])
        )
    return Judged(
        unit_ids=np.array(rows.column("unit_id").to_pylist(), np.str_),
        patients=np.array(rows.column("patient_id").to_pylist(), np.str_),
        y=np.array(labels, np.int64).T,
        probabilities=np.stack(probabilities, axis=1),
        uncalibrated=probabilities_from_scores(np.stack(logits, axis=1)),
    )
