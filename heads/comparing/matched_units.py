"""The units that runs have in common: the same by id, images, patient, label and split, never by the order of rows.

Where ids of two runs have nothing in common (other keys, other tables), images alone say which unit is which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError, and_more
from embedstore.view import MISSING
from heads.comparing.renamed_units import by_content
from heads.protocol.predictions import Predictions
from heads.runs.comparison import require_one_task
from heads.runs.run import Run
from heads.runs.unit_table import unit_facts
from heads.scores import Floats

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class MatchedUnits:
    """Units that were evaluated in every run, in order of their ids.

    Parameters
    ----------
    unit_ids, patients
        (n,) str.
    targets
        Targets that every run has.
    y
        (n, targets) int64, `MISSING` where some run has no label.
    probabilities
        For each run (n, targets, n_classes).
    left_out
        For each run, how many of its evaluated units have no part.
    notes
        What must be known of the comparison: who is left out, and where runs learned from other units.
    """

    unit_ids: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    targets: tuple[str, ...]
    y: npt.NDArray[np.int64]
    probabilities: tuple[Floats, ...]
    left_out: tuple[int, ...]
    notes: tuple[str, ...]


def match_units(runs: Sequence[Run], names: Sequence[str], *, baseline: int = 0) -> MatchedUnits:
    """Find the units that were evaluated in every run, and refuse what cannot be compared.

    Parameters
    ----------
    runs
        Two or more of one task.
    names
        What each is called.
    baseline
        Position of the run that the others are compared with.

    Raises
    ------
    UsageError
        If tasks differ, runs have no target or no evaluated unit in common, or units of one id differ in split,
        patient or label: with the first of them.
    """
    require_one_task(runs)
    targets = tuple(target for target in runs[baseline].targets if all(target in run.targets for run in runs))
    if not targets:
        raise UsageError(
            "runs must have a target in common; found "
            + " and ".join(
                f"{', '.join(run.targets)} in {name}" for run, name in zip(runs, names, strict=True)
            )
        )
    notes = _targets_left_out(runs, names, targets)
    runs, renamed = _with_common_ids(runs, names, baseline)
    notes += renamed
    of_baseline = _Compared(runs[baseline], names[baseline], targets)
    for position, (run, name) in enumerate(zip(runs, names, strict=True)):
        if position != baseline:
            notes += _checked(of_baseline, _Compared(run, name, targets))
    common = sorted(set.intersection(*(set(run.evaluated.unit_ids.tolist()) for run in runs)))
    kept, other_images = _of_the_same_images(runs, common)
    if not kept:
        why = f"; {other_images:,} of one id have other images" if other_images else ""
        raise UsageError(
            f"runs must have evaluated units in common; found none in {', '.join(names)}{why}. Probe stores of the "
            "same images"
        )
    if other_images:
        notes.append(f"left out because their images are not the same in every run: {other_images:,} units")
    rows = [_rows_of(run.evaluated, kept) for run in runs]
    left_out = tuple(len(run.evaluated.unit_ids) - len(kept) for run in runs)
    notes += [
        f"{name}: {count:,} of its {len(run.evaluated.unit_ids):,} evaluated units are not in every run and are left "
        "out"
        for run, name, count in zip(runs, names, left_out, strict=True)
        if count
    ]
    labels = [_labels(run.evaluated, run, targets)[own] for run, own in zip(runs, rows, strict=True)]
    unlabelled = np.any([y == MISSING for y in labels], axis=0)
    return MatchedUnits(
        unit_ids=np.array(kept, np.str_),
        patients=runs[baseline].evaluated.patients[rows[baseline]],
        targets=targets,
        y=np.where(unlabelled, MISSING, labels[baseline]),
        probabilities=tuple(
            run.evaluated.probabilities[own][:, _columns(run, targets)]
            for run, own in zip(runs, rows, strict=True)
        ),
        left_out=left_out,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Compared:
    """A run and what it is called, and the targets that count."""

    run: Run
    name: str
    targets: tuple[str, ...]

    @property
    def split_of(self) -> dict[str, str]:
        """Unit -> the data set's word for its split, of learned and evaluated units."""
        parts = (self.run.out_of_fold, self.run.evaluated)
        return {
            unit: split
            for part in parts
            for unit, split in zip(part.unit_ids.tolist(), part.splits.tolist(), strict=True)
        }

    @property
    def patient_of(self) -> dict[str, str]:
        """Unit -> its patient, of learned and evaluated units."""
        parts = (self.run.out_of_fold, self.run.evaluated)
        return {
            unit: patient
            for part in parts
            for unit, patient in zip(part.unit_ids.tolist(), part.patients.tolist(), strict=True)
        }


def _checked(one: _Compared, other: _Compared) -> list[str]:
    """Refuse units that differ between two runs, and return what is to be said of what they learned from."""
    unit = one.run.document["task"]["unit"]
    _require_equal("split", one, other, one.split_of, other.split_of, unit)
    _require_equal("patient", one, other, one.patient_of, other.patient_of, unit)
    _require_equal_labels(one, other, unit)
    modes = [compared.run.document["settings"]["mode"] for compared in (one, other)]
    if modes[0] != modes[1]:
        raise UsageError(
            f"runs must be evaluated in one mode to be compared; found {modes[0]} in {one.name} and {modes[1]} in "
            f"{other.name}: probe both with the same split, or both with `cross_validate=True`"
        )
    notes = []
    mine, theirs = one.run.learned_units, other.run.learned_units
    if mine != theirs:
        notes.append(
            f"training sets differ, not only encoders or heads: {other.name} learned from {len(theirs):,} units "
            f"({len(theirs - mine):,} only there), {one.name} from {len(mine):,} ({len(mine - theirs):,} only there)"
        )
    elif not _same_folds(one.run.evaluated, other.run.evaluated):
        notes.append(
            f"{other.name}: the outer folds are not those of {one.name}; each unit is still evaluated by a head that "
            "never saw its patient"
        )
    return notes


def _require_equal(
    what: str, one: _Compared, other: _Compared, mine: Mapping[str, str], theirs: Mapping[str, str], unit: str
) -> None:
    differing = sorted(name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name])
    if differing:
        listed = "; ".join(
            f"{unit} {name!r}: {mine[name]!r} in {one.name}, {theirs[name]!r} in {other.name}"
            for name in differing[:_SHOWN]
        )
        advice = (
            ": what one learned from, the other would be judged by. Probe both with the same split, `shots` and `seed`"
            if what == "split"
            else ". Label both stores from one table"
        )
        raise UsageError(
            f"a unit must have the same {what} in every run to be compared; {len(differing):,} differ: {listed}"
            f"{and_more(len(differing) - _SHOWN)}{advice}"
        )


def _require_equal_labels(one: _Compared, other: _Compared, unit: str) -> None:
    classes, found = one.run.classes, []
    for part in ("out_of_fold", "evaluated"):
        mine, theirs = getattr(one.run, part), getattr(other.run, part)
        _, at, there = np.intersect1d(mine.unit_ids, theirs.unit_ids, return_indices=True)
        y, z = _labels(mine, one.run, one.targets)[at], _labels(theirs, other.run, one.targets)[there]
        for row, column in np.argwhere((y != z) & (y != MISSING) & (z != MISSING)).tolist():
            found.append(
                f"{unit} {str(mine.unit_ids[at[row]])!r}, target {one.targets[column]!r}: "
                f"{classes[y[row, column]]!r} in {one.name}, {classes[z[row, column]]!r} in {other.name}"
            )
    found = list(dict.fromkeys(found))
    if found:
        raise UsageError(
            f"a unit must have the same label in every run to be compared; {len(found):,} differ: "
            f"{'; '.join(found[:_SHOWN])}{and_more(len(found) - _SHOWN)}. Label both stores from one table, and probe "
            "again"
        )


def _of_the_same_images(runs: Sequence[Run], common: Sequence[str]) -> tuple[list[str], int]:
    """Return the units whose images are the same wherever they are known, and how many are not."""
    content: dict[str, str] = {}
    differing: set[str] = set()
    for run in runs:
        if run.units is None:
            continue
        facts = unit_facts(run.units)
        for name in common:
            digest = str(facts.content[facts.row_of[name]])
            if digest and content.setdefault(name, digest) != digest:
                differing.add(name)
    return [name for name in common if name not in differing], len(differing)


def _with_common_ids(runs: Sequence[Run], names: Sequence[str], baseline: int) -> tuple[list[Run], list[str]]:
    """Return the runs with the baseline's ids where theirs have nothing in common with it, and what is to be said."""
    found, notes = list(runs), []
    for position, (run, name) in enumerate(zip(runs, names, strict=True)):
        renamed = by_content(run, runs[baseline]) if position != baseline else None
        if renamed is not None:
            found[position] = renamed
            notes.append(f"{name}: no id is one of {names[baseline]}; units are matched by their images")
    return found, notes


def _targets_left_out(runs: Sequence[Run], names: Sequence[str], targets: tuple[str, ...]) -> list[str]:
    lines = []
    for run, name in zip(runs, names, strict=True):
        others = [target for target in run.targets if target not in targets]
        if others:
            lines.append(f"{name}: {', '.join(others)} left out, not a target of every run")
    return lines


def _same_folds(one: Predictions, other: Predictions) -> bool:
    """Say whether two runs deal their common units into the same folds, whatever the numbers of these."""
    _, at, there = np.intersect1d(one.unit_ids, other.unit_ids, return_indices=True)
    pairs = np.unique(np.stack([one.fold[at], other.fold[there]]), axis=1)
    return all(len(np.unique(of_run)) == len(of_run) for of_run in pairs)


def _rows_of(part: Predictions, units: Sequence[str]) -> npt.NDArray[np.int64]:
    row_of = {unit: row for row, unit in enumerate(part.unit_ids.tolist())}
    return np.array([row_of[unit] for unit in units], np.int64)


def _columns(run: Run, targets: Sequence[str]) -> list[int]:
    return [run.targets.index(target) for target in targets]


def _labels(part: Predictions, run: Run, targets: Sequence[str]) -> npt.NDArray[np.int64]:
    return part.y[:, _columns(run, targets)]
