"""From vectors to calibrated probabilities of units: the one path of evaluation and of later prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.view import PLACE
from heads.base import FittedHead
from heads.inputs.binned import Bins
from heads.inputs.class_weights import class_weight_shift
from heads.inputs.input_ways import head_rows
from heads.inputs.metadata import Cells, MetadataBlocks
from heads.inputs.pooling import IMAGES
from heads.inputs.unit_images import TargetImages, UnitImages, image_groups
from heads.scores import Floats, blended, log_odds_of
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
        Their effect on the scores is undone (`heads.base.FittedHead.unit_scores`).
    blocks
        How metadata columns become numbers; None where the heads get vectors alone.
    bins
        The places of binned pooling; None for other poolings.
    """

    heads: Sequence[FittedHead]
    calibrators: Sequence[Calibrator]
    pooling: str
    training_weights: tuple[tuple[float, ...], ...]
    blocks: MetadataBlocks | None = None
    bins: Bins | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Every metadata column that it needs of an image."""
        return (*(self.blocks.columns if self.blocks else ()), *((PLACE,) if self.bins else ()))

    def scores(
        self,
        X: npt.NDArray[np.float32],
        unit_of_image: npt.NDArray[np.int64],
        *,
        n_units: int,
        metadata: Cells | None = None,
        image_of_target: npt.NDArray[np.bool_] | None = None,
    ) -> Floats:
        """Return (n_units, targets, columns) decision scores; NaN where a unit has no image for a target.

        Parameters
        ----------
        X, unit_of_image, n_units
            As `heads.inputs.pooling.pool_vectors`.
        metadata
            Manifest column -> (n_images,) str, with those of `columns`.
        image_of_target
            (n_images, targets) bool: which images speak for which target; all for all by default.

        Raises
        ------
        UsageError
            If a vector has another length than those of training, a number is NaN, metadata is missing, or a unit has
            no image.
        """
        images = UnitImages(
            X=X,
            metadata=self._cells(metadata),
            unit_of_row=unit_of_image,
            y=np.empty((n_units, len(self.heads)), np.int64),
            groups=np.arange(n_units),
            image_of_target=image_of_target,
        )
        spoken_for = [part for part in images.by_images() if part.units.any()]
        parts = [(part, self._scores_together(part)) for part in spoken_for]
        if len(parts) == 1 and parts[0][0].units.all() and len(parts[0][0].targets) == len(self.heads):
            return parts[0][1]
        n_classes = len(self.training_weights[0])
        columns = 1 if n_classes == 2 else n_classes
        scores = np.full((n_units, len(self.heads), columns), np.nan)
        for part, found in parts:
            for column, target in enumerate(part.targets):
                scores[part.units, target] = found[:, column]
        return scores

    def image_weights(
        self,
        X: npt.NDArray[np.float32],
        unit_of_image: npt.NDArray[np.int64],
        *,
        metadata: Cells | None = None,
        image_of_target: npt.NDArray[np.bool_] | None = None,
    ) -> list[Floats | None]:
        """Return, of each target, how much each image has to say in its unit (`heads.base.FittedHead.image_weights`).

        Parameters
        ----------
        X, unit_of_image, metadata, image_of_target
            As `scores`.

        Returns
        -------
        list of ndarray or None
            (n_images,) float64, 0 for an image that does not speak for the target; None where the target's head hears
            all images alike, or gets a pooled vector.
        """
        found: list[Floats | None] = [None] * len(self.heads)
        if self.pooling != IMAGES:
            return found
        for targets, speaking in image_groups(image_of_target, len(self.heads)):
            mask = np.ones(len(X), np.bool_) if speaking is None else speaking
            if not mask.any():
                continue
            cells = {column: np.asarray(of_image)[mask] for column, of_image in (metadata or {}).items()}
            rows = X[mask] if self.blocks is None else self.blocks.append(X[mask], cells)
            units, own = np.unique(unit_of_image[mask], return_inverse=True)
            for target in targets:
                weights = self.heads[target].image_weights(rows, own, len(units))
                if weights is not None:
                    of_target = np.zeros(len(X))
                    of_target[mask] = weights
                    found[target] = of_target
        return found

    def _cells(self, metadata: Cells | None) -> Cells:
        """Return the cells of `columns`; raises UsageError where one is missing."""
        given = self.blocks.require(metadata) if self.blocks else metadata or {}
        return {column: np.asarray(given[column]) for column in self.columns if column in given}

    def _scores_together(self, part: TargetImages) -> Floats:
        """Return (n_units, targets, columns) scores of targets that have the same images."""
        images = part.images
        rows, unit_of_row = head_rows(
            images.X,
            images.metadata,
            images.unit_of_row,
            n_units=images.n_units,
            pooling=self.pooling,
            blocks=self.blocks,
            bins=self.bins,
        )
        if not np.isfinite(rows).all():
            bad = int((~np.isfinite(rows)).any(axis=1).sum())
            raise UsageError(
                f"X must be finite; {bad} of {len(rows)} rows hold NaN (failed images?): leave them out"
            )
        of_target = [
            self.heads[target].unit_scores(
                rows, unit_of_row, images.n_units, shift=class_weight_shift(self.training_weights[target])
            )
            for target in part.targets
        ]
        return np.stack(of_target, axis=1)

    def probabilities(self, scores: Floats) -> Floats:
        """Return (n_units, targets, n_classes) calibrated probabilities of `scores`; NaN where these are NaN."""
        return calibrated(self.calibrators, scores)


@dataclass(frozen=True, kw_only=True)
class BlendedPredictor:
    """Several predictors that answer as one: the sum of their calibrated log odds, each times its weight.

    Parameters
    ----------
    parts
        Head -> predictor, in the order of the weights.
    weights
        By target, one for each part.
    calibrators
        One per target, of the sums.
    """

    parts: Mapping[str, Predictor]
    weights: tuple[tuple[float, ...], ...]
    calibrators: Sequence[Calibrator]

    @property
    def columns(self) -> tuple[str, ...]:
        """Every metadata column that a part needs of an image."""
        return tuple(dict.fromkeys(column for part in self.parts.values() for column in part.columns))

    @property
    def bins(self) -> None:
        """None: each part has its own."""

    @property
    def blocks(self) -> MetadataBlocks | None:
        """Every metadata column that becomes numbers of a part; None where none does."""
        return MetadataBlocks.joined([part.blocks for part in self.parts.values() if part.blocks])

    def scores(
        self,
        X: npt.NDArray[np.float32],
        unit_of_image: npt.NDArray[np.int64],
        *,
        n_units: int,
        metadata: Cells | None = None,
        image_of_target: npt.NDArray[np.bool_] | None = None,
    ) -> Floats:
        """Return (n_units, targets, columns) decision scores, as `Predictor.scores`, which says what it takes."""
        found = [
            log_odds_of(
                part.probabilities(
                    part.scores(
                        X, unit_of_image, n_units=n_units, metadata=metadata, image_of_target=image_of_target
                    )
                )
            )
            for part in self.parts.values()
        ]
        return blended(np.stack(found, axis=1), self.weights)

    def image_weights(
        self,
        X: npt.NDArray[np.float32],
        unit_of_image: npt.NDArray[np.int64],
        *,
        metadata: Cells | None = None,
        image_of_target: npt.NDArray[np.bool_] | None = None,
    ) -> list[Floats | None]:
        """Return None for each target: what weighs images in one part does not in the others."""
        del X, unit_of_image, metadata, image_of_target
        return [None] * len(self.weights)

    def probabilities(self, scores: Floats) -> Floats:
        """Return (n_units, targets, n_classes) calibrated probabilities of `scores`; NaN where these are NaN."""
        return calibrated(self.calibrators, scores)


def calibrated(calibrators: Sequence[Calibrator], scores: Floats) -> Floats:
    """Return (n_units, targets, n_classes) probabilities of scores, by target; NaN where these are NaN."""
    n_units, n_targets, columns = scores.shape
    probabilities = np.full((n_units, n_targets, 2 if columns == 1 else columns), np.nan)
    for target, calibrator in enumerate(calibrators):
        known = np.flatnonzero(~np.isnan(scores[:, target]).any(axis=1))
        probabilities[known, target] = calibrator(scores[known, target])
    return probabilities
