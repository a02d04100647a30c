"""From vectors to calibrated probabilities of units: the one path of evaluation and of later prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from heads.base import Head
from heads.inputs.class_weights import class_weight_shift
from heads.inputs.input_ways import head_rows
from heads.inputs.metadata import Cells, MetadataBlocks
from heads.scores import Floats
from heads.statistics.calibration import Calibrator


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Everything between an image's vector and a unit's probability.

    Parameters
    ----------
    heads
        One fitted head per target.
    calibrators
        One per target.
    pooling
        As `heads.inputs.pooling`.
    training_weights
        (n_classes,) class weights that the heads were trained with, by target; all 1 where there were none.
        Their effect on the scores is undone (`heads.base.Head.unit_scores`).
    blocks
        How metadata columns become numbers; None where the heads get vectors alone.
    """

    heads: Sequence[Head]
    calibrators: Sequence[Calibrator]
    pooling: str
    training_weights: tuple[tuple[float, ...], ...]
    blocks: MetadataBlocks | None = None

    def scores(
        self,
        X: npt.NDArray[np.float32],
        unit_of_image: npt.NDArray[np.int64],
        *,
        n_units: int,
        metadata: Cells | None = None,
    ) -> Floats:
        """Return (n_units, targets, columns) decision scores.

        Parameters
        ----------
        X, unit_of_image, n_units
            As `heads.inputs.pooling.pool_vectors`.
        metadata
            Manifest column -> (n_images,) str, with those that `blocks` names.

        Raises
        ------
        UsageError
            If a vector has another length than those of training, a number is NaN, or metadata is missing.
        """
        rows, unit_of_row = head_rows(
            X, metadata, unit_of_image, n_units=n_units, pooling=self.pooling, blocks=self.blocks
        )
        if not np.isfinite(rows).all():
            bad = int((~np.isfinite(rows)).any(axis=1).sum())
            raise UsageError(
                f"X must be finite; {bad} of {len(rows)} rows hold NaN (failed images?): leave them out"
            )
        of_target = [
            head.unit_scores(rows, unit_of_row, n_units, shift=class_weight_shift(weights))
            for head, weights in zip(self.heads, self.training_weights, strict=True)
        ]
        return np.stack(of_target, axis=1)

    def probabilities(self, scores: Floats) -> Floats:
        """Return (n_units, targets, n_classes) calibrated probabilities of `scores`."""
        calibrated = [calibrator(scores[:, target]) for target, calibrator in enumerate(self.calibrators)]
        return np.stack(calibrated, axis=1)
