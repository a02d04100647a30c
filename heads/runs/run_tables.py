"""The tables of a run: what was said of every unit, and which labels to look at again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.view import MISSING
from heads.protocol.probe_result import Predictions, ProbeResult
from heads.statistics.conformal import UNKNOWN
from heads.statistics.label_noise import label_noise_candidates


def predictions_table(result: ProbeResult) -> pa.Table:
    """Return every unit and target, out of fold (``oof``) and judged (``test``), as an Arrow table.

    Columns: unit_id, patient_id, split, fold, target, label, score (of several classes ``score_<class>``),
    prob_<class>, and conformal_set: the list of its classes, null out of fold and where sets were refused. A unit
    without an image for the target has neither score nor probability.
    """
    task = result.view.task
    tables = [
        _table(part, split, target, index, task.classes)
        for split, part in (("oof", result.out_of_fold), ("test", result.judged))
        for index, target in enumerate(task.targets)
    ]
    return pa.concat_tables(tables).combine_chunks()


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


def _table(part: Predictions, split: str, target: str, index: int, classes: tuple[str, ...]) -> pa.Table:
    n = len(part.unit_ids)
    names = np.array([*classes, None], object)
    score_names = ["score"] if len(classes) == 2 else [f"score_{name}" for name in classes]
    columns: dict[str, Any] = {
        "unit_id": pa.array(part.unit_ids.tolist(), pa.string()),
        "patient_id": pa.array(part.patients.tolist(), pa.string()),
        "split": pa.array([split] * n, pa.string()),
        "fold": pa.array(part.fold, pa.int64(), mask=part.fold < 0),
        "target": pa.array([target] * n, pa.string()),
        "label": pa.array(names[part.y[:, index]].tolist(), pa.string()),
    }
    silent = np.isnan(part.scores[:, index, 0])
    columns |= {name: pa.array(part.scores[:, index, k], mask=silent) for k, name in enumerate(score_names)}
    unknown = np.isnan(part.probabilities[:, index, 0])
    columns |= {
        f"prob_{name}": pa.array(part.probabilities[:, index, k], mask=unknown)
        for k, name in enumerate(classes)
    }
    columns["conformal_set"] = pa.array(
        [
            None if row[0] == UNKNOWN else [name for name, inside in zip(classes, row, strict=True) if inside]
            for row in part.members[:, index].tolist()
        ],
        pa.list_(pa.string()),
    )
    return pa.table(columns)
