"""A few labelled cases to learn from, the same ones for every encoder; everybody else stays for the evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.files import sha256_bytes
from embedstore.view import MISSING, View

# What units are called that no official split names: drawn to learn from, and left to be evaluated. With an official
# split the second are those of its training units that were not drawn.
DRAWN, NOT_DRAWN = "drawn", "not drawn"


def few_shots(view: View, shots: int, *, groups: npt.NDArray[np.int64], seed: int) -> View:
    """Return the view with only so many units to learn from: one of each of `shots` patients.

    Patients are drawn from those that may be learned from (with an official split its training patients), as many of
    each combination of labels as there are among them, by a digest of seed and patient: the same patients in every
    store of the same units, whatever their order. With an official split its evaluation set stays as it is; without one
    every unit of the patients who were not drawn is evaluated.

    Parameters
    ----------
    view
        The labelled units.
    shots
        Number of units to learn from, above 0.
    groups
        (n_units,) int64: the patients that must stay together (`heads.inputs.leakage.leakage_groups`).
    seed
        Of the draw.

    Returns
    -------
    View
        With other `View.splits`. With an official split its training units that were not drawn are `NOT_DRAWN`, which
        is neither learned from nor evaluated. Without one, the units are `DRAWN`, ``""`` (further ones of a drawn
        patient) and `NOT_DRAWN`, which are evaluated.

    Raises
    ------
    DataError
        If there are fewer patients with a label to learn from, or without an official split nobody would be left.
    """
    labelled = (view.y != MISSING).any(axis=1)
    official = bool(np.any(view.splits[labelled] != ""))
    evaluation = "test" if "test" in view.splits[labelled] else "valid"
    no_part = ["", evaluation, NOT_DRAWN]
    may_learn = labelled & ~np.isin(view.splits, no_part) if official else labelled
    units = _one_of_each_patient(view, np.flatnonzero(may_learn), groups, seed)
    if len(units) < shots or (len(units) == shots and not official):
        kept = "" if official else ", and one more to be evaluated on"
        raise DataError(
            f"task {view.task.name!r}: `shots={shots}` needs as many patients with a label to learn from{kept}; found "
            f"{len(units)}"
        )
    learned = _drawn(view, units, shots, seed)
    if official:
        # What the official split calls a unit that is learned from stays its word.
        splits = np.where(may_learn, NOT_DRAWN, view.splits)
        splits[learned] = view.splits[learned]
    else:
        splits = np.where(np.isin(groups, groups[learned]), "", NOT_DRAWN)
        splits[learned] = DRAWN
    return replace(view, splits=splits)


def _one_of_each_patient(
    view: View, units: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.int64]:
    """Return one unit of each patient, in an order that only seed and ids decide."""
    keys = [_key(seed, str(view.patients[unit]), str(view.unit_ids[unit])) for unit in units.tolist()]
    first: dict[int, int] = {}
    for _, unit in sorted(zip(keys, units.tolist(), strict=True)):
        first.setdefault(int(groups[unit]), unit)
    return np.array(list(first.values()), np.int64)


def _drawn(view: View, units: npt.NDArray[np.int64], shots: int, seed: int) -> npt.NDArray[np.int64]:
    """Return `shots` of the units, as many with each combination of labels as is their share (largest remainders)."""
    _, stratum = np.unique(view.y[units], axis=0, return_inverse=True)
    stratum = stratum.ravel()
    exact = np.bincount(stratum) * (shots / len(units))
    quota = np.floor(exact + 1e-9).astype(np.int64)
    # Of equal remainders, those of the strata that a digest puts first.
    ties = [_key(seed, "stratum", str(view.y[units][stratum == at][0].tolist())) for at in range(len(quota))]
    by_remainder = sorted(range(len(quota)), key=lambda at: (-round(exact[at] - quota[at], 9), ties[at]))
    quota[by_remainder[: shots - int(quota.sum())]] += 1
    rank = np.empty(len(units), np.int64)
    for at, count in enumerate(np.bincount(stratum)):
        rank[stratum == at] = np.arange(count)
    return np.sort(units[rank < quota[stratum]])


def _key(seed: int, *names: str) -> str:
    return sha256_bytes("\0".join([str(seed), *names]).encode())
