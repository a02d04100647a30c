"""Which targets can be learned from these patients in that many folds: asked of every fold before the first fit.

A target needs, among the patients that any of its heads learns from, as many of each class as there are folds: with
an official split among its training patients; in cross-validation among those that remain when an outer fold is left
out, for every outer fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.view import MISSING, View, take_targets
from heads.few_shots import NOT_DRAWN
from heads.folds import assign_folds
from heads.inputs.shared_heads import Groups, labels_of_heads, target_groups
from heads.protocol.splits import split_units

LEAST_FOLDS = 2
NO_LABEL = "no label to learn from"
ONE_CLASS = "one class only to learn from"
NO_PATIENT = "a class without any patient to learn from"


@dataclass(frozen=True)
class LeftOut:
    """Why a target is not learned.

    Parameters
    ----------
    reason
        In words; the same for every target that it holds for.
    patients
        Class -> patients with it among those that may be learned from.
    possible_folds
        The largest number of folds in which it can be learned; None where no number helps.
    """

    reason: str
    patients: Mapping[str, int]
    possible_folds: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "reason": self.reason,
            "patients": dict(self.patients),
            "possible_folds": self.possible_folds,
        }


@dataclass(frozen=True, kw_only=True)
class Learnable:
    """What can be learned of a view.

    Parameters
    ----------
    view
        Of the targets that can be learned.
    folds
        Number of folds: as many as were asked for, or the most in which any target can be learned.
    left_out
        Target -> why it is not in `view`.
    """

    view: View
    folds: int
    left_out: Mapping[str, LeftOut]


def learnable_targets(
    view: View,
    groups: npt.NDArray[np.int64],
    *,
    folds: int,
    seed: int,
    strict: bool = False,
    shared: Groups = (),
) -> Learnable:
    """Leave out the targets that cannot be learned.

    In fewer folds than were asked for only where no target can be learned otherwise: then in the largest number, 2 at
    least, in which one can.

    Parameters
    ----------
    view
        Units, targets and splits.
    groups
        (n_units,) int64: the patients that folds keep together (`heads.inputs.leakage.leakage_groups`).
    folds, seed
        Of the probe.
    strict
        Refuse instead, if there is any such target.
    shared
        Groups of targets that one head answers: then the patients of all of them count.

    Raises
    ------
    DataError
        If no target can be learned, or some cannot and `strict`: with all of them, their reasons and counts.
    """
    names = view.task.targets
    found = _left_out(view, groups, folds, seed, shared)
    if strict and found:
        raise DataError(_refusal(view, found, folds))
    possible = folds
    while len(found) == len(names) and possible > LEAST_FOLDS:
        possible -= 1
        found = _left_out(view, groups, possible, seed, shared)
    if len(found) == len(names):
        raise DataError(_refusal(view, found, possible))
    kept = [name for name in names if name not in found]
    return Learnable(
        view=take_targets(view, kept) if found else view,
        folds=possible,
        left_out=_with_possible_folds(found, view, groups, possible, seed, shared),
    )


def by_reason(left_out: Mapping[str, LeftOut]) -> dict[str, list[str]]:
    """Return reason -> targets, in the order of the targets."""
    listed: dict[str, list[str]] = {}
    for target, entry in left_out.items():
        listed.setdefault(entry.reason, []).append(target)
    return listed


def _left_out(
    view: View, groups: npt.NDArray[np.int64], folds: int, seed: int, shared: Groups
) -> dict[str, LeftOut]:
    """Return the targets that `folds` folds cannot learn; without them folds are dealt anew, and others may fail."""
    found: dict[str, LeftOut] = {}
    kept = list(view.task.targets)
    while kept:
        current = take_targets(view, kept)
        split = split_units(current)
        # Numbered as `UnitImages.take` will: folds are dealt by these numbers.
        own = np.unique(groups[split.fitted], return_inverse=True)[1]
        heads = target_groups(shared, kept) if shared else [[at] for at in range(len(kept))]
        y, own = labels_of_heads(current.y[split.fitted], own, heads)
        patients = _patients_by_class(y, own, len(view.task.classes))
        reasons = [_reason(of_class, folds) for of_class in patients]
        if split.mode == "outer cross-validation" and not any(reasons):
            dealt = None if view.folds is None else np.resize(view.folds[split.fitted], len(y))
            outside = _fewest_outside(y, own, folds, seed, len(view.task.classes), dealt)
            reasons = [_too_few_outside(folds) if fewest < folds else None for fewest in outside]
        for targets, reason, of_class in zip(heads, reasons, patients, strict=True):
            if reason is not None:
                counts = dict(zip(view.task.classes, of_class.tolist(), strict=True))
                found |= {kept[target]: LeftOut(reason, counts) for target in targets}
        if not any(reasons):
            break
        kept = [name for name in kept if name not in found]
    return {name: found[name] for name in view.task.targets if name in found}


def _reason(patients: npt.NDArray[np.int64], folds: int) -> str | None:
    present = int((patients > 0).sum())
    if present < 2:
        return ONE_CLASS if present else NO_LABEL
    if present < len(patients):
        return NO_PATIENT
    return _too_few(folds) if patients.min() < folds else None


def _too_few(folds: int) -> str:
    return f"a class with too few patients for {folds} folds"


def _too_few_outside(folds: int) -> str:
    return f"{_too_few(folds)} once the patients of an outer fold are left out"


def _patients_by_class(
    y: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], n_classes: int
) -> npt.NDArray[np.int64]:
    """Return (targets, n_classes) patients with a unit of the class."""
    counts = np.zeros((y.shape[1], n_classes), np.int64)
    for target in range(y.shape[1]):
        known = y[:, target] != MISSING
        pairs = np.unique(np.stack([groups[known], y[known, target]]), axis=1)
        counts[target] = np.bincount(pairs[1], minlength=n_classes)
    return counts


def _fewest_outside(
    y: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    folds: int,
    seed: int,
    n_classes: int,
    dealt: npt.NDArray[np.int64] | None,
) -> npt.NDArray[np.int64]:
    """Return, by head, the patients of the rarest class that the least lucky outer fold leaves to learn from."""
    fold = assign_folds(y, groups, folds=folds, n_classes=n_classes, seed=seed) if dealt is None else dealt
    counts = [
        _patients_by_class(y[fold != left], groups[fold != left], n_classes).min(axis=1)
        for left in range(folds)
    ]
    return np.asarray(np.min(counts, axis=0))


def _with_possible_folds(
    left_out: Mapping[str, LeftOut],
    view: View,
    groups: npt.NDArray[np.int64],
    folds: int,
    seed: int,
    shared: Groups,
) -> dict[str, LeftOut]:
    """Note of each target in how many folds it could be learned."""
    noted = dict(left_out)
    open_ones = [name for name, entry in noted.items() if entry.reason.startswith(_too_few(folds))]
    for fewer in range(folds - 1, LEAST_FOLDS - 1, -1):
        if not open_ones:
            break
        failing = _left_out(view, groups, fewer, seed, shared)
        noted |= {
            name: replace(noted[name], possible_folds=fewer) for name in open_ones if name not in failing
        }
        open_ones = [name for name in open_ones if name in failing]
    return noted


def _refusal(view: View, left_out: Mapping[str, LeftOut], folds: int) -> str:
    """Name every target with its reason and counts, and the targets that can be learned."""
    where, total = f"task {view.task.name!r}", len(view.task.targets)
    listed = "; ".join(
        f"{reason}: " + ", ".join(f"{target!r} ({_counted(left_out[target])})" for target in targets)
        for reason, targets in by_reason(left_out).items()
    )
    kept = [target for target in view.task.targets if target not in left_out]
    number = f"{len(left_out)} of {total} targets" if total > 1 else f"the target {view.task.targets[0]!r}"
    refused = f"{where}: {number} cannot be learned in {folds} folds (patients by class): {listed}"
    if kept:
        return f"{refused}. Those that can be: `targets={kept}`"
    hint = (
        "; where only the evaluation split has patients of a class, `cross_validate=True` learns from them too"
        if split_units(view).mode == "official split"
        else ""
    )
    few = "; `shots` of more draws more of each class" if NOT_DRAWN in view.splits else ""
    return f"{refused}. Bring more patients of these classes, or label a task with fewer classes{hint}{few}"


def _counted(entry: LeftOut) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in entry.patients.items())
