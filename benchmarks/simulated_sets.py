"""Count on fresh patients what sets of final heads hold, and what is claimed of labels that images do not know.

The frame, and the collections, are those of `simulations`; a case draws images to learn from and fresh ones, and fits.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from heads.inputs.unit_images import UnitImages
from heads.protocol.fitting import Fitted
from heads.statistics.bootstrap import draw_patients, paired_difference
from heads.statistics.conformal import ConformalSets, conformal_sets, patient_shares
from heads.statistics.evaluation import Scored, draw_metrics

Floats = npt.NDArray[np.float64]
COVERAGE = 0.9
_DRAWS = 500
_CLASSES = ("absent", "present")


class HeadCase(Protocol):
    """What is asked of a case."""

    @property
    def size(self) -> int:
        """Studies to learn from, about."""

    def draw(self, seed: int) -> tuple[UnitImages, UnitImages]:
        """Return images to learn from, and those of fresh patients."""

    def fit(self, images: UnitImages, *, seed: int) -> Fitted:
        """Run the protocol's selection, calibration and fit."""


def sets_of_final_heads(case: HeadCase, seed: int) -> dict[str, float]:
    """Return how often sets of fresh units hold the true class, and how large they are; NaN where sets are refused."""
    learned, fresh = case.draw(seed)
    fitted = case.fit(learned, seed=seed)
    return held_by_sets(_sets(fitted, learned), fresh_probabilities(fitted, fresh), fresh)


def null_labels(case: HeadCase, seed: int) -> dict[str, float]:
    """Return what is claimed of labels that have nothing to do with the images.

    On an evaluation set as large as the training set: how often the interval of the AUROC lies above 0.5, or that of
    the paired difference in log loss says that the head is better than the prevalence of training; beside them the
    mean AUROC and the mean log loss beyond that of the prevalence. A promise of 95 % allows 2.5 % of each.
    """
    learned, fresh = case.draw(seed)
    fitted = case.fit(learned, seed=seed)
    probabilities = fresh_probabilities(fitted, fresh)
    found = held_by_sets(_sets(fitted, learned), probabilities, fresh)
    units = np.flatnonzero(np.arange(fresh.n_units) < case.size)
    y, draws = fresh.y[units], draw_patients(fresh.groups[units].astype(str), draws=_DRAWS, seed=seed)
    prevalence = float((learned.y[:, 0] == 1).mean())
    constant = np.broadcast_to([1 - prevalence, prevalence], (len(units), 1, 2))
    of_head = draw_metrics(Scored(y, probabilities[units, None], draws), ["auroc", "log_loss"])
    of_constant = draw_metrics(Scored(y, np.array(constant), draws), ["log_loss"])
    auroc, loss, least = of_head["auroc"], of_head["log_loss"], of_constant["log_loss"]
    difference = paired_difference((loss.value, least.value), (loss.drawn, least.drawn), n=loss.n)
    return found | {
        "AUROC": auroc.value,
        "AUROC said to be above 0.5": float(auroc.estimate().low > 0.5),
        "log loss beyond the prevalence's": difference.estimate.value,
        "said to beat the prevalence": float(difference.estimate.high < 0),
    }


def held_by_sets(sets: ConformalSets, probabilities: Floats, fresh: UnitImages) -> dict[str, float]:
    """Return the share of fresh units whose set holds their class, by class, for a random unit of a random patient."""
    names = [f"coverage of {name}" for name in _CLASSES]
    if sets.refused:
        return dict.fromkeys([*names, "classes in a set"], np.nan)
    members, y = sets.members(probabilities), fresh.y[:, 0]
    found = {}
    for k, name in enumerate(names):
        own = np.flatnonzero(y == k)
        found[name] = float(np.average(members[own, k], weights=patient_shares(fresh.groups[own])))
    return found | {"classes in a set": float(members.sum(axis=1).mean())}


def fresh_probabilities(fitted: Fitted, fresh: UnitImages) -> Floats:
    """Return (n_units, 2) calibrated probabilities of the final heads."""
    scores = fitted.predictor.scores(fresh.X, fresh.unit_of_row, n_units=fresh.n_units)
    return np.asarray(fitted.predictor.probabilities(scores)[:, 0], np.float64)


def _sets(fitted: Fitted, learned: UnitImages) -> ConformalSets:
    return conformal_sets(
        fitted.cut_probabilities[:, 0],
        learned.y[:, 0],
        learned.groups,
        classes=_CLASSES,
        coverage=COVERAGE,
    )
