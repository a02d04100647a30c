"""Vectors in, calibrated probabilities of units out: the one path of evaluation and of later prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from heads.base import Floats, Head
from heads.calibration import Calibrator
from heads.pooling import pool_scores, pool_vectors


@dataclass(frozen=True)
class Predictor:
    """Everything between an image's vector and a unit's probability.

    Parameters
    ----------
    heads
        One fitted head per target.
    calibrators
        One per target.
    pooling
        As `heads.pooling`.
    training_weights
        (n_classes,) class weights that the heads were trained with, by target; all 1 where there were none.
        They are undone here.
    """

    heads: Sequence[Head]
    calibrators: Sequence[Calibrator]
    pooling: str
    training_weights: tuple[tuple[float, ...], ...]

    def scores(
        self, X: npt.NDArray[np.float32], unit_of_image: npt.NDArray[np.int64], *, n_units: int
    ) -> Floats:
        """Return (n_units, targets, columns) decision scores; arguments as `heads.pooling.pool_vectors`.

        Raises
        ------
        UsageError
            If a vector has another length than those of training, or a number is NaN.
        """
        rows, unit_of_row = pool_vectors(X, unit_of_image, n_units=n_units, pooling=self.pooling)
        if not np.isfinite(rows).all():
            bad = int((~np.isfinite(rows)).any(axis=1).sum())
            raise UsageError(
                f"X must be finite; {bad} of {len(rows)} rows hold NaN (failed images?): leave them out"
            )
        pooled = []
        for head, weights in zip(self.heads, self.training_weights, strict=True):
            scores = np.asarray(head.decision_function(rows), np.float64).reshape(len(rows), -1)
            scores = scores - class_weight_shift(weights)
            pooled.append(pool_scores(scores, unit_of_row, n_units=n_units))
        return np.stack(pooled, axis=1)

    def probabilities(self, scores: Floats) -> Floats:
        """Return (n_units, targets, n_classes) calibrated probabilities of `scores`."""
        calibrated = [calibrator(scores[:, target]) for target, calibrator in enumerate(self.calibrators)]
        return np.stack(calibrated, axis=1)


def class_weight_shift(weights: Sequence[float]) -> Floats:
    """Return what class weights of training added to decision scores, (columns,) float64.

    A head trained with weight w_k on class k learns ``p_k * w_k`` up to a factor (Elkan 2001, IJCAI, theorem
    2), so its logit is too large by ``log(w_k)``.
    """
    shift: Floats = np.log(np.asarray(weights, np.float64))
    return shift[1:] - shift[:1] if len(shift) == 2 else shift
