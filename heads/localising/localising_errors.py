"""How far localised points lie from the readers', and whether their names are right, with intervals by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.lumbar.level_points import STRUCTURES
from embedstore.lumbar.levels import LEVELS
from heads.localising.spine_prior import Floats
from heads.statistics.bootstrap import Draws, Estimate, blocks, draw_patients, estimate

Bools = npt.NDArray[np.bool_]
GROUPS = {
    "canal": ("canal",),
    "foramen": ("left_foramen", "right_foramen"),
    "subarticular": ("left_subarticular", "right_subarticular"),
}
# A name is right only near its disc: half the way to the next one at most.
NAMED_WITHIN_MM = 20.0
_NEAR_MM = (5.0, 10.0)


@dataclass(frozen=True, eq=False)
class Compared:
    """Predicted and true points of n studies.

    Parameters
    ----------
    errors_mm
        (n, structures, levels): distance of a point from the readers'; NaN where readers placed none, infinite where
        the localiser did not.
    right
        Same shape: of all points of the structure that readers placed in the study the one of the same level is the
        nearest, and within `NAMED_WITHIN_MM`; False where there is nothing to compare.
    """

    errors_mm: Floats
    right: Bools

    @property
    def known(self) -> Bools:
        """(n, structures, levels) where readers placed a point."""
        return ~np.isnan(self.errors_mm)

    def all_right(self) -> tuple[Bools, Bools]:
        """Return (n,) whether all canal points of a study have the right name, and (n,) whether it has any.

        Studies without canal points are judged by their foramina.
        """
        known = self.known
        use = np.where(known[:, :1].any(axis=2, keepdims=True), known[:, :1], known[:, 1:3])
        right = np.where(known[:, :1].any(axis=2, keepdims=True), self.right[:, :1], self.right[:, 1:3])
        all_right = np.asarray((right | ~use).all(axis=(1, 2)), np.bool_)
        return all_right, np.asarray(use.any(axis=(1, 2)), np.bool_)


def compare_points(predicted: Floats, true: Floats) -> Compared:
    """Compare (n, 5 structures, 5 levels, 3) points, NaN where there are none."""
    errors = np.linalg.norm(predicted - true, axis=-1)
    known = np.isfinite(true).all(axis=-1)
    errors[~np.isfinite(predicted).all(axis=-1)] = np.inf
    errors[~known] = np.nan
    to_all = np.linalg.norm(predicted[:, :, :, None] - true[:, :, None], axis=-1)
    to_all = np.where(np.isnan(to_all), np.inf, to_all)
    own = np.diagonal(to_all, axis1=2, axis2=3)
    right = known & (own <= to_all.min(axis=3)) & (own <= NAMED_WITHIN_MM)
    return Compared(errors, right)


def summarise(
    compared: Compared, patients: Sequence[str], *, draws: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Return the errors by group of structures, each number with its interval.

    Parameters
    ----------
    patients
        Of each study.

    Returns
    -------
    Group of `GROUPS` -> ``median_mm``, ``p95_mm``, ``within_5_mm``, ``within_10_mm``, ``level_accuracy`` and
    ``level_accuracy_<level>`` -> `heads.statistics.bootstrap.Estimate`; for the canal ``all_levels_right``, of studies,
    as well. A group without points is left out. A point that was not found counts as infinitely far.
    """
    drawn = draw_patients(np.array(patients, str), draws=draws, seed=seed)
    found: dict[str, dict[str, Any]] = {}
    for group, members in GROUPS.items():
        places = [STRUCTURES.index(name) for name in members]
        known = compared.known[:, places]
        if not known.any():
            continue
        study, _, level = np.nonzero(known)
        errors, right = compared.errors_mm[:, places][known], compared.right[:, places][known]
        of_group = _distances(errors, study, drawn)
        of_group["level_accuracy"] = _rate(right, study, drawn)
        for number, name in enumerate(LEVELS):
            if (level == number).any():
                own = level == number
                of_group[f"level_accuracy_{name}"] = _rate(right[own], study[own], drawn)
        if group == "canal":
            all_right, judged = compared.all_right()
            of_group["all_levels_right"] = _rate(all_right[judged], np.flatnonzero(judged), drawn)
        found[group] = of_group
    return found


def _distances(errors: Floats, study: npt.NDArray[np.int64], draws: Draws) -> dict[str, Estimate]:
    order = np.argsort(errors, kind="stable")
    ordered, of_study = errors[order], study[order]
    weights = draws.weights(of_study)
    shares = {"median_mm": 0.5, "p95_mm": 0.95}
    drawn: dict[str, list[Floats]] = {name: [] for name in shares}
    for block in blocks(weights):
        cumulative = np.cumsum(block, axis=1, dtype=np.float64)
        for name, share in shares.items():
            wanted = share * cumulative[:, -1:]
            at = (cumulative >= wanted).argmax(axis=1)
            drawn[name].append(np.where(cumulative[:, -1] > 0, ordered[at], np.nan))
    found = {}
    for name, share in shares.items():
        value = ordered[max(0, int(np.ceil(share * len(ordered))) - 1)]
        found[name] = estimate(float(value), np.concatenate(drawn[name]), n=len(errors))
    for limit in _NEAR_MM:
        found[f"within_{limit:g}_mm"] = _rate(errors <= limit, study, draws)
    return found


def _rate(hits: Bools, study: npt.NDArray[np.int64], draws: Draws) -> Estimate:
    weights = draws.weights(study)
    with np.errstate(invalid="ignore"):
        drawn = (weights @ hits.astype(np.float32)) / weights.sum(axis=1)
    patients = len(np.unique(draws.patient_of_unit[study]))
    return estimate(float(hits.mean()), drawn.astype(float), n=len(hits), patients=patients)
