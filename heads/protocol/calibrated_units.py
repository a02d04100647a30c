"""Calibrators and thresholds of each target, learned from out-of-fold scores of units."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.scores import Floats
from heads.statistics.calibration import Calibration, calibrate, cross_fitted
from heads.statistics.thresholds import choose_thresholds


@dataclass(frozen=True)
class CalibratedUnits:
    """What was learned from out-of-fold scores; `heads.protocol.fitting.Fitted` says what each of it is."""

    calibrations: tuple[Calibration, ...]
    thresholds: tuple[Mapping[str, float], ...]
    probabilities: Floats
    cut: Floats


def calibrate_units(
    scores: Floats,
    y: npt.NDArray[np.int64],
    fold_of_unit: npt.NDArray[np.int64],
    n_classes: int,
    *,
    wide: Floats | None = None,
    without: Container[str] = (),
) -> CalibratedUnits:
    """Learn calibrators and thresholds by target, and state cross-fitted probabilities of the labelled units.

    Parameters
    ----------
    scores
        (n_units, targets, columns) out-of-fold scores, as steep as those of the heads that answer.
    y
        (n_units, targets) int64, `MISSING` where there is no label.
    fold_of_unit
        (n_units,) int64.
    n_classes
        Number of classes.
    wide
        Scores as wide as those of the heads that answer; None where `scores` are.
    without
        Kinds of calibrators that are not tried.
    """
    calibrations, thresholds = [], []
    probabilities, cut = np.full((2, *y.shape, n_classes), np.nan)
    for target in range(y.shape[1]):
        labelled = y[:, target] != MISSING
        known, folds = y[labelled, target], fold_of_unit[labelled]
        of_target = scores[labelled, target]
        calibration = calibrate(of_target, known, folds, without=without)
        probabilities[labelled, target] = cut[labelled, target] = calibration.probabilities
        if wide is not None:
            kind = calibration.calibrator.kind
            cut[labelled, target] = cross_fitted(
                kind, of_target, known, folds, applied_to=wide[labelled, target]
            )
        calibrations.append(calibration)
        if n_classes == 2:
            thresholds.append(choose_thresholds(known, cut[labelled, target, 1]))
    return CalibratedUnits(tuple(calibrations), tuple(thresholds), probabilities, cut)
