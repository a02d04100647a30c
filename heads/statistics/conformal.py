"""Sets of classes that hold the true one at a chosen rate, class by class and counted per patient.

Every class has its own bar, taken from the cross-fitted probabilities of the units that carry its label
(Mondrian or label-conditional conformal prediction; Vovk 2012, ACML, arXiv 1209.2673). A rare class is
therefore covered as often as a common one, and stays covered when the prevalence changes.

Units of one patient are alike, so the patient is what is exchangeable. Each patient has the weight of one,
shared evenly among the units of the class, and the new patient has one more: hierarchical conformal prediction
(Lee, Barber & Willett 2023, arXiv 2306.06342). Drawing one unit per patient is valid too, but throws evidence
away and depends on a seed; treating units as independent is not valid. The rate holds for a random unit of a
random new patient.

What is not exact: probabilities are out of fold while the final head has seen all patients, as in
cross-conformal prediction (Vovk 2015, doi 10.1007/s10472-013-9368-4), and the calibrator was chosen on them.
The final head is made as sharp as the folds' (`heads.base.HeadFamily.refit`); that its scores are exchangeable with
theirs stays an assumption. The rate on the evaluation set stands in every run for that reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from embedstore.view import MISSING
from heads.scores import Floats
from heads.statistics.bootstrap import Draws, Estimate, estimate

COVERAGE = 0.90
# In `members`: no bars were found, so nothing is said about the unit.
UNKNOWN = -1
# Cumulated weights of a few hundred thousand units are this exact; a rate is never asked for so finely.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ConformalSets:
    """The bars of one target, or why there are none.

    Parameters
    ----------
    coverage
        Rate at which a set holds the true class, from 0 to 1, for each class.
    bars
        (n_classes,) smallest probability with which a class is in the set; ``()`` when refused.
    patients
        (n_classes,) patients that each bar rests on.
    refused
        The reason, or ``""``.
    """

    coverage: float
    bars: tuple[float, ...]
    patients: tuple[int, ...]
    refused: str = ""

    def members(self, probabilities: Floats) -> npt.NDArray[np.int8]:
        """Return which classes are in each unit's set.

        Parameters
        ----------
        probabilities
            (n, n_classes) calibrated, for the prevalence of training.

        Returns
        -------
        ndarray
            (n, n_classes) int8, 1 or 0, or `UNKNOWN` where probabilities are NaN and everywhere when refused. A set
            may be empty: the unit is like none of the classes.
        """
        if self.refused:
            return np.full(probabilities.shape, UNKNOWN, np.int8)
        inside = np.asarray(probabilities >= np.asarray(self.bars), np.int8)
        inside[np.isnan(probabilities).any(axis=1)] = UNKNOWN
        return inside

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values for `conformal_sets_from_json`."""
        return {
            "coverage": self.coverage,
            "bars": list(self.bars),
            "patients": list(self.patients),
            "refused": self.refused,
        }


def conformal_sets(
    probabilities: Floats,
    y: npt.NDArray[np.int64],
    patients: npt.NDArray[Any],
    *,
    classes: Sequence[str],
    coverage: float = COVERAGE,
) -> ConformalSets:
    """Find each class's bar.

    Parameters
    ----------
    probabilities
        (n, n_classes) cross-fitted and calibrated; rows without a label are not looked at.
    y
        (n,) int64, `MISSING` where there is no label.
    patients
        (n,) the patient of each unit.
    classes
        Names, for the reason of a refusal.
    coverage
        Wanted rate, above 0 and below 1.

    Returns
    -------
    ConformalSets
        Refused when a class has so few patients that it would have to be in every set: with K patients the
        surest statement is 1 / (K + 1), so K must be ``1 / (1 - coverage) - 1`` at least, 9 for 90 %.

    Raises
    ------
    UsageError
        If `coverage` is no rate.
    """
    if not 0 < coverage < 1:
        raise UsageError(f"coverage must be above 0 and below 1; found {coverage}")
    counts = tuple(len(np.unique(patients[y == k])) for k in range(len(classes)))
    needed = patients_needed(coverage)
    rarest = int(np.argmin(counts))
    if counts[rarest] < needed:
        reason = (
            f"class {classes[rarest]!r} has {counts[rarest]} patients; sets that hold the true class at a rate "
            f"of {coverage:g} need {needed} of every class"
        )
        return ConformalSets(coverage, (), counts, reason)
    bars = [_bar(probabilities[y == k, k], patients[y == k], coverage) for k in range(len(classes))]
    return ConformalSets(coverage, tuple(bars), counts)


def patients_needed(coverage: float) -> int:
    """Return how many patients of a class a bar needs.

    Examples
    --------
    >>> patients_needed(0.90), patients_needed(0.95)
    (9, 19)
    """
    return math.ceil(coverage / (1 - coverage) - _ROUNDING)


def patient_shares(patients: npt.NDArray[Any]) -> Floats:
    """Return each unit's share of its patient, (n,) float64: one over the patient's number of units."""
    _, inverse, counts = np.unique(patients, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[inverse], np.float64)


def evaluate_sets(
    members: npt.NDArray[np.int8], y: npt.NDArray[np.int64], draws: Draws, *, classes: Sequence[str]
) -> dict[str, Estimate]:
    """Count how often sets hold the true class, and how large they are.

    Parameters
    ----------
    members
        (n, n_classes) of units that no bar was taken from.
    y
        (n,) int64; units without a label or without a set are left out.
    draws
        Bootstrap draws of the same units.
    classes
        Names.

    Returns
    -------
    dict
        ``coverage``, ``size`` (mean number of classes), ``single`` (share of sets of one class), ``empty``,
        and ``coverage of <class>``; empty when no unit has a set.
    """
    units = np.flatnonzero((y != MISSING) & (members[:, 0] != UNKNOWN))
    if not len(units):
        return {}
    sets, truth = members[units].astype(np.float64), y[units]
    held, size = sets[np.arange(len(units)), truth], sets.sum(1)
    everyone = np.ones(len(units), np.bool_)
    of_interest = {
        "coverage": (held, everyone),
        "size": (size, everyone),
        "single": (size == 1, everyone),
        "empty": (size == 0, everyone),
    } | {f"coverage of {name}": (held, truth == k) for k, name in enumerate(classes) if (truth == k).any()}
    weights, patients = draws.weights(units), draws.patient_of_unit[units]
    return {
        # All sets have one class or none: that mean number is no rate.
        name: _share(values, among, weights, None if name == "size" else patients)
        for name, (values, among) in of_interest.items()
    }


def conformal_sets_from_json(document: Mapping[str, Any], *, source: str) -> ConformalSets:
    """Build the bars from `ConformalSets.to_json`.

    Raises
    ------
    DataError
        If the document is not one; `source` names the file.
    """
    try:
        return ConformalSets(
            float(document["coverage"]),
            tuple(float(bar) for bar in document["bars"]),
            tuple(int(count) for count in document["patients"]),
            str(document["refused"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source}: not conformal sets: {error!r}") from error


def _bar(probability: Floats, patients: npt.NDArray[Any], coverage: float) -> float:
    """Return the largest probability that enough of the patients' weight reaches."""
    shares = patient_shares(patients)
    order = np.argsort(-probability, kind="stable")
    # The new patient weighs one too, and counts as not reaching: hence the one in the denominator.
    reached = np.cumsum(shares[order]) / (len(np.unique(patients)) + 1)
    return float(probability[order[np.argmax(reached >= coverage - _ROUNDING)]])


def _share(
    values: npt.NDArray[Any],
    among: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float32],
    patients: npt.NDArray[np.int64] | None,
) -> Estimate:
    wanted = np.asarray(values, np.float64)[among]
    of_class = weights[:, among]
    total = of_class.sum(1, dtype=np.float64)
    drawn = np.full(len(weights), np.nan)
    np.divide(of_class @ wanted, total, out=drawn, where=total > 0)
    counted = 0 if patients is None else len(np.unique(patients[among]))
    return estimate(float(wanted.mean()), drawn, n=len(wanted), patients=counted)
