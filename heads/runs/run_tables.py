"""The tables of a run: what was said of every unit, and which labels to look at again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.view import MISSING
from heads.protocol.predictions import EVALUATION, OUT_OF_FOLD
from heads.protocol.probe_result import ProbeResult
from heads.statistics.label_noise import label_noise_candidates


def predictions_table(result: ProbeResult) -> pa.Table:
    """Return every unit and target, out of fold and of the evaluation set (`heads.protocol.predictions.schema`)."""
    task = result.view.task
    named = {"targets": task.targets, "classes": task.classes}
    parts = [
        result.out_of_fold.to_table(OUT_OF_FOLD, **named),
        result.evaluated.to_table(EVALUATION, **named),
    ]
    return pa.concat_tables(parts).combine_chunks()


def label_noise_table(result: ProbeResult) -> pa.Table:
    """Return doubtful labels of the units learned from, by target, the most doubtful first.

    Columns: unit_id, patient_id, target, label, suggested, probability_of_label, probability_of_suggested.
    """
    task, part = result.view.task, result.out_of_fold
    rows = [
        {
            "unit_id": str(part.unit_ids[candidate.row]),
            "patient_id": str(part.patients[candidate.row]),
            "target": target,
            "label": candidate.label,
            "suggested": candidate.suggested,
            "probability_of_label": candidate.probability_of_label,
            "probability_of_suggested": candidate.probability_of_suggested,
        }
        for index, target in enumerate(task.targets)
        for candidate in label_noise_candidates(part.y[:, index], part.probabilities[:, index], task.classes)
    ]
    return pa.Table.from_pylist(rows, schema=_LABEL_NOISE)


def class_shares(y: npt.NDArray[np.int64], n_classes: int) -> list[float]:
    """Return the share of each class among the labelled of (n,) labels."""
    counts = np.bincount(y[y != MISSING], minlength=n_classes)
    return [float(share) for share in counts / counts.sum()]


_LABEL_NOISE = pa.schema(
    [(name, pa.string()) for name in ("unit_id", "patient_id", "target", "label", "suggested")]
    + [(name, pa.float64()) for name in ("probability_of_label", "probability_of_suggested")]
)
