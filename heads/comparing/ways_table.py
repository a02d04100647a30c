"""Ways from images to a study's 25 severities, and heads, in one table: scored on the same cells, folds and draws.

A way may have no image for a target: no axial series, no level found, a target that is too rare for a head of its own.
It then says the prevalence of the other folds for this target (`heads.lumbar.complete_answers`), and how often is
counted, so that all rows are scored on every labelled cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.view import View
from heads.lumbar.complete_answers import CompleteAnswers, complete_answers
from heads.lumbar.rsna_score import SCORE, draw_run_score
from heads.lumbar.severity_results import draw_all_cells, draw_severity, severity_to_json
from heads.runs.run import Run
from heads.runs.severity_document import ORACLE, points_of
from heads.scores import Floats
from heads.statistics.bootstrap import DRAWS, Difference, Estimate, draw_patients, holm, paired_difference
from heads.statistics.evaluation import Drawn, Scored

PRIOR = "no image"
PRIOR_HEAD = "prevalence"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The studies that every way is scored on.

    Parameters
    ----------
    unit_ids, patients
        (n_studies,) str.
    y
        (n_studies, 25) int64 in the order of the competition's targets, `MISSING` where there is no label.
    folds
        (n_studies,) int64: outer folds, the same in every run.
    """

    unit_ids: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    y: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]

    @classmethod
    def of_view(cls, view: View, folds: npt.NDArray[np.int64]) -> Reference:
        """Return the studies of a view of all 25 targets, with their outer folds."""
        columns = [view.task.targets.index(target) for target in TARGETS]
        return cls(
            unit_ids=view.unit_ids, patients=view.patients, y=view.y[:, columns], folds=np.asarray(folds)
        )

    def answers_of(self, run: Run) -> CompleteAnswers:
        """Return what a run says of every labelled cell.

        Raises
        ------
        UsageError
            If the run has other classes or targets, evaluated other studies, or learned from other folds.
        """
        unknown = [target for target in run.targets if target not in TARGETS]
        if unknown or run.classes != CLASSES:
            raise UsageError(
                f"run {run.folder}: ways are compared on the competition's targets and the classes "
                f"{', '.join(CLASSES)}; found {', '.join(map(repr, unknown[:1])) or ', '.join(run.classes)}"
            )
        row_of = {unit: row for row, unit in enumerate(self.unit_ids.tolist())}
        said = run.evaluated
        strange = [unit for unit in said.unit_ids.tolist() if unit not in row_of]
        if strange:
            raise UsageError(f"run {run.folder}: evaluated study {strange[0]!r}, which the other ways lack")
        rows = np.array([row_of[unit] for unit in said.unit_ids.tolist()], np.int64)
        if not np.array_equal(said.fold, self.folds[rows]):
            raise UsageError(
                f"run {run.folder}: was evaluated on other folds than the other ways; probe again"
            )
        probabilities = np.full((*self.y.shape, len(CLASSES)), np.nan)
        for column, target in enumerate(run.targets):
            probabilities[rows, TARGETS.index(target)] = said.probabilities[:, column]
        return self._complete(probabilities)

    def prior(self) -> CompleteAnswers:
        """Return the prevalence of the other folds for every cell."""
        return self._complete(np.full((*self.y.shape, len(CLASSES)), np.nan))

    def _complete(self, probabilities: Floats) -> CompleteAnswers:
        return complete_answers(self.y, probabilities, self.folds, learned=self.y, learned_folds=self.folds)


@dataclass(frozen=True, kw_only=True)
class WayRow:
    """One way with one head.

    Parameters
    ----------
    way, head
        Names.
    run
        Its run; None for the prevalence.
    points
        ``oracle`` or ``localised`` level points; ``""`` of whole slices.
    filled
        Labelled cells that the prevalence answers.
    metrics
        `heads.lumbar.rsna_score.RUN_SCORES`, and metrics of the decisions over all cells.
    conditions
        Condition -> metric -> estimate, as plain JSON values.
    differences
        Metric -> this row minus the best one (by the score); ``{}`` for the best itself.
    corrected_p
        Metric -> p-value after Holm, over all rows but the best.
    """

    way: str
    head: str
    run: Run | None
    points: str
    filled: int
    metrics: Mapping[str, Estimate]
    conditions: Mapping[str, Any]
    differences: Mapping[str, Difference]
    corrected_p: Mapping[str, float]

    @property
    def is_oracle(self) -> bool:
        """Whether it rests on coordinates that no new study has."""
        return self.points == ORACLE

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        return {
            "way": self.way,
            "head": self.head,
            "run": None if self.run is None else str(self.run.folder),
            "run_id": None if self.run is None else self.run.run_id,
            "points": self.points,
            "cells_from_prevalence": self.filled,
            "metrics": {name: found.to_json() for name, found in self.metrics.items()},
            "conditions": dict(self.conditions),
            "differences": {
                name: found.estimate.to_json()
                | {"p_value": found.p_value, "p_value_holm": self.corrected_p[name]}
                for name, found in self.differences.items()
            },
        }


@dataclass(frozen=True, kw_only=True)
class WaysTable:
    """Ways and heads, the smallest score first.

    Parameters
    ----------
    rows
        One for each run, and the prevalence.
    studies, patients, cells
        What all are scored on.
    folds
        Number of outer folds.
    draws, seed
        Of the bootstrap.
    sources
        Stores and data sets, as ``run.json`` has them.
    """

    rows: tuple[WayRow, ...]
    studies: int
    patients: int
    cells: int
    folds: int
    draws: int
    seed: int
    sources: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the table as plain JSON values."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "studies": self.studies,
            "patients": self.patients,
            "cells": self.cells,
            "folds": self.folds,
            "draws": self.draws,
            "seed": self.seed,
            "sources": [dict(source) for source in self.sources],
        }


def compare_ways(
    runs: Sequence[tuple[str, str, Run]], reference: Reference, *, draws: int = DRAWS, seed: int = 0
) -> WaysTable:
    """Score runs on the same cells and draws of patients, each against the best.

    Parameters
    ----------
    runs
        Way, head and run.
    reference
        The studies with their labels and folds.
    draws, seed
        Of the bootstrap.

    Raises
    ------
    UsageError
        As `Reference.answers_of`.
    """
    answers = [reference.answers_of(run) for _, _, run in runs] + [reference.prior()]
    drawn_patients = draw_patients(reference.patients, draws=draws, seed=seed)
    drawn, conditions = [], []
    for of_one in answers:
        scored = Scored(of_one.y, of_one.probabilities, drawn_patients)
        by_condition = draw_severity(scored, TARGETS, columns=("condition",))["condition"]
        kappas = {f"kappa_{name}": found["kappa"] for name, found in by_condition.items()}
        drawn.append({**draw_run_score(scored, TARGETS), **draw_all_cells(scored), **kappas})
        conditions.append(severity_to_json({"condition": by_condition})["condition"])
    best = int(np.argmin([found[SCORE].value for found in drawn]))
    differences = [{} if at == best else _differences(found, drawn[best]) for at, found in enumerate(drawn)]
    corrected = _corrected(differences)
    named = [*((way, head, run) for way, head, run in runs), (PRIOR, PRIOR_HEAD, None)]
    rows = [
        WayRow(
            way=way,
            head=head,
            run=run,
            points="" if run is None else points_of(run.document["identity"]),
            filled=answers[at].filled,
            metrics={name: entry.estimate() for name, entry in drawn[at].items()},
            conditions=conditions[at],
            differences=differences[at],
            corrected_p=corrected[at],
        )
        for at, (way, head, run) in enumerate(named)
    ]
    order = sorted(range(len(rows)), key=lambda at: drawn[at][SCORE].value)
    sources = [source for _, _, run in runs for source in run.document["sources"]]
    return WaysTable(
        rows=tuple(rows[at] for at in order),
        studies=len(reference.unit_ids),
        patients=len(np.unique(reference.patients)),
        cells=answers[-1].cells,
        folds=len(np.unique(reference.folds)),
        draws=draws,
        seed=seed,
        sources=tuple(source for at, source in enumerate(sources) if source not in sources[:at]),
    )


def _differences(one: Mapping[str, Drawn], best: Mapping[str, Drawn]) -> dict[str, Difference]:
    return {
        name: paired_difference(
            (one[name].value, best[name].value), (one[name].drawn, best[name].drawn), n=one[name].n
        )
        for name in one
        if np.isfinite([one[name].value, best[name].value]).all()
    }


def _corrected(differences: Sequence[Mapping[str, Difference]]) -> list[dict[str, float]]:
    """Return metric -> p-value corrected for the number of rows that are compared in it, for each row."""
    corrected: list[dict[str, float]] = [{} for _ in differences]
    for name in dict.fromkeys(name for found in differences for name in found):
        rows = [row for row, found in enumerate(differences) if name in found]
        for row, p in zip(rows, holm([differences[row][name].p_value for row in rows]), strict=True):
            corrected[row][name] = p
    return corrected
