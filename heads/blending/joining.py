"""One blend of what several heads said: weights, calibrators and thresholds, all that is judged out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.blending.weights import fit_weights, ridge_of
from heads.protocol.calibrated_units import CalibratedUnits, calibrate_units
from heads.scores import Floats, blended
from heads.statistics.calibration import Calibrator

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the parts said out of fold of the units that may be learned from.

    Parameters
    ----------
    y
        (n_units, targets) int64, `MISSING` where there is no label.
    groups, folds
        (n_units,) int64: patients and folds.
    log_odds
        (n_units, parts, targets, columns), as steep as those of the parts' final heads.
    cut
        The same, as wide; None where no part tells the two apart.
    """

    y: Labels
    groups: Labels
    folds: Labels
    log_odds: Floats
    cut: Floats | None


def cut_log_odds(own: Sequence[npt.NDArray[np.float32] | None], log_odds: Sequence[Floats]) -> Floats | None:
    """Return log odds as wide as the final ones: a part's own, or those that it has beside."""
    if all(of_part is None for of_part in own):
        return None
    pairs = zip(own, log_odds, strict=True)
    return np.stack([steep if wide is None else wide for wide, steep in pairs], axis=1).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A blend that was learned from some units.

    Parameters
    ----------
    weights
        By target, one for each part; of all units.
    scores
        (n_units, targets, columns) out of fold.
    calibrated
        What was learned from these.
    """

    weights: tuple[tuple[float, ...], ...]
    scores: Floats
    calibrated: CalibratedUnits

    @property
    def calibrators(self) -> list[Calibrator]:
        """One per target, fitted on all units."""
        return [calibration.calibrator for calibration in self.calibrated.calibrations]


def join(said: Said, n_classes: int) -> Joined:
    """Learn weights, those of each fold from the others, and calibrate the scores that these give out of fold."""
    y, log_odds = said.y, said.log_odds
    weights = tuple(
        _weights(said, target, y[:, target] != MISSING, n_classes) for target in range(y.shape[1])
    )
    scores = blended(log_odds, weights)
    wide = None if said.cut is None else blended(said.cut, weights)
    for target in range(y.shape[1]):
        labelled = y[:, target] != MISSING
        for fold in np.unique(said.folds[labelled]):
            inside = labelled & (said.folds == fold)
            of_fold = [_weights(said, target, labelled & (said.folds != fold), n_classes)]
            scores[inside, target] = blended(log_odds[inside][:, :, [target]], of_fold)[:, 0]
            if wide is not None and said.cut is not None:
                wide[inside, target] = blended(said.cut[inside][:, :, [target]], of_fold)[:, 0]
    calibrated_units = calibrate_units(scores, y, said.folds, n_classes, wide=wide)
    return Joined(weights=weights, scores=scores, calibrated=calibrated_units)


def _weights(said: Said, target: int, units: npt.NDArray[np.bool_], n_classes: int) -> tuple[float, ...]:
    """Return the weights of one target by labelled units of a mask."""
    y = said.y[units, target]
    ridge = ridge_of(y, said.groups[units], n_classes=n_classes)
    return tuple(fit_weights(said.log_odds[units, :, target], y, ridge=ridge).tolist())
