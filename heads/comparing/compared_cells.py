"""The leading metric of compared runs by subgroup: with its interval, or with the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.comparing.matched_units import MatchedUnits
from heads.runs.run import Run
from heads.runs.run_warnings import FEW_PATIENTS
from heads.runs.unit_table import unit_facts
from heads.statistics.bootstrap import Estimate, paired_difference
from heads.statistics.evaluation import Scored, draw_metrics
from heads.statistics.subgroups import Subgroup, cells_of, subgroups_of


@dataclass(frozen=True, kw_only=True)
class ComparedCell:
    """One subgroup.

    Parameters
    ----------
    column, cell
        Manifest column, and its value or band.
    units, patients
        How many of those compared are in it.
    refused
        Why no number stands there; ``""`` where one does.
    values
        The leading metric of each run, ``()`` where refused.
    differences
        Each run minus the baseline, without p-value; None for the baseline itself and where a value is undefined.
    """

    column: str
    cell: str
    units: int
    patients: int
    refused: str
    values: tuple[Estimate, ...] = ()
    differences: tuple[Estimate | None, ...] = ()

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Return plain JSON values; `names` are those of the runs."""
        return {
            "column": self.column,
            "cell": self.cell,
            "units": self.units,
            "patients": self.patients,
            "refused": self.refused or None,
            "values": {name: found.to_json() for name, found in zip(names, self.values, strict=False)},
            "differences": {
                name: found.to_json()
                for name, found in zip(names, self.differences, strict=False)
                if found is not None
            },
        }


def kept_columns(run: Run) -> list[str]:
    """Return the columns by which the results of a run may be split."""
    return [] if run.units is None else list(unit_facts(run.units).columns)


def cell_parts(run: Run, matched: MatchedUnits, columns: Sequence[str]) -> list[Subgroup]:
    """Return the subgroups of the common units, by the cells that the baseline keeps of all its units."""
    if run.units is None or not columns:
        return []
    facts = unit_facts(run.units)
    rows = np.array([facts.row_of[unit] for unit in matched.unit_ids.tolist()], np.int64)
    # Bands are cut once, on all units of the baseline, and so are those of its own results.
    values = {column: cells_of(column, facts.columns[column])[rows] for column in columns}
    return list(subgroups_of(columns, values, np.arange(len(rows))))


def compared_cells(
    scored: Sequence[Scored],
    matched: MatchedUnits,
    parts: Sequence[Subgroup],
    classes: Sequence[str],
    *,
    metric: str,
    baseline: int,
) -> tuple[ComparedCell, ...]:
    """Compare runs in each subgroup, on the draws of all; one with fewer than 10 patients of a class is refused.

    Parameters
    ----------
    scored
        Of each run, on the common units.
    matched
        These units.
    parts
        The subgroups.
    classes
        Names.
    metric
        The metric that leads.
    baseline
        Position of the run that the others are compared with.
    """
    found = []
    for column, cell, members in parts:
        patients = matched.patients[members]
        refused = _too_few(matched, members, classes)
        facts: dict[str, Any] = {
            "column": column,
            "cell": cell,
            "units": len(members),
            "patients": len(np.unique(patients)),
            "refused": refused,
        }
        if not refused:
            drawn = [draw_metrics(of_run.take(members), [metric])[metric] for of_run in scored]
            facts["values"] = tuple(entry.estimate() for entry in drawn)
            base = drawn[baseline]
            facts["differences"] = tuple(
                paired_difference((entry.value, base.value), (entry.drawn, base.drawn), n=entry.n).estimate
                if position != baseline and np.isfinite([entry.value, base.value]).all()
                else None
                for position, entry in enumerate(drawn)
            )
        found.append(ComparedCell(**facts))
    return tuple(found)


def _too_few(matched: MatchedUnits, members: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return which class has too few patients there; of several targets, the rarest of those with a label."""
    y, patients = matched.y[members], matched.patients[members]
    counts = []
    for column, target in enumerate(matched.targets):
        if (y[:, column] == MISSING).all():
            continue
        for number, name in enumerate(classes):
            of_class = len(np.unique(patients[y[:, column] == number]))
            counts.append((of_class, f"{name!r}" + (f" ({target})" if len(matched.targets) > 1 else "")))
    if not counts:
        return "no label"
    fewest, name = min(counts, key=lambda entry: entry[0])
    return f"{fewest} patient{'' if fewest == 1 else 's'} of {name}" if fewest < FEW_PATIENTS else ""
