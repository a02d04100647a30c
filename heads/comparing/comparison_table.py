"""Encoders and heads against a baseline: metrics on common units, paired differences on the same draws of patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embedstore.brief import Brief
from embedstore.errors import DataError, UsageError, did_you_mean, require_whole_number
from embedstore.files import StrPath
from heads.comparing.compared_cells import ComparedCell, cell_parts, compared_cells, kept_columns
from heads.comparing.compared_names import compared_names, encoder_differences, encoder_names, head_name
from heads.comparing.matched_units import MatchedUnits, match_units
from heads.lumbar.rsna_score import RUN_SCORES, draw_run_score, is_of_the_competition
from heads.runs.comparison import leading_metric
from heads.runs.run import Run
from heads.runs.run_files import load_run
from heads.runs.run_warnings import TRAINED
from heads.stages import counted
from heads.statistics.bootstrap import Difference, Estimate, draw_patients, holm, paired_difference
from heads.statistics.evaluation import Drawn, Scored, draw_metrics
from heads.statistics.metrics import computed_in, metric, shown_in


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One run in a table, on the units that all have in common.

    Parameters
    ----------
    run
        The run.
    name
        What it is called: encoder, head, and more where these are not enough.
    encoder, head
        The parts of its name.
    metrics
        Metric -> estimate.
    differences
        Metric -> this run minus the baseline; ``{}`` for the baseline itself.
    corrected_p
        Metric -> p-value after Holm, over all runs of the table (heads x encoders) but the baseline.
    """

    run: Run
    name: str
    encoder: str
    head: str
    metrics: Mapping[str, Estimate]
    differences: Mapping[str, Difference]
    corrected_p: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, repr=False)
class ComparisonTable(Brief):
    """Runs against a baseline.

    Parameters
    ----------
    task, unit
        Name and unit of the task.
    targets
        Targets that every run has; metrics are their mean.
    metric
        The metric that leads.
    runs
        In the order given.
    baseline
        Position of the run that the others are compared with.
    units, patients
        How many are compared.
    draws, seed
        Of the bootstrap, which draws whole patients, the same for every run, metric and cell.
    cells
        The leading metric by subgroup.
    notes
        What must be known: units left out, other training sets, fields in which encoders of one name differ.
    """

    task: str
    unit: str
    targets: tuple[str, ...]
    metric: str
    runs: tuple[ComparedRun, ...]
    baseline: int
    units: int
    patients: int
    draws: int
    seed: int
    cells: tuple[ComparedCell, ...]
    notes: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The metrics to show where there is no room for all: the leading one, those of heads, and the RSNA score."""
        names = dict.fromkeys((self.metric, *shown_in("heads"), *RUN_SCORES[:1]))
        return tuple(name for name in names if any(name in entry.metrics for entry in self.runs))

    @property
    def best_first(self) -> tuple[int, ...]:
        """Positions of the runs, the best in the leading metric first; undefined ones come last."""
        row = metric(self.metric)

        def rank(position: int) -> float:
            found = self.runs[position].metrics.get(self.metric)
            return float("inf") if found is None or np.isnan(found.value) else row.rank(found.value)

        return tuple(sorted(range(len(self.runs)), key=rank))

    def to_json(self) -> dict[str, Any]:
        """Return the table as plain JSON values."""
        return {
            "task": self.task,
            "unit": self.unit,
            "targets": list(self.targets),
            "metric": self.metric,
            "baseline": self.runs[self.baseline].name,
            "units": self.units,
            "patients": self.patients,
            "draws": self.draws,
            "seed": self.seed,
            "runs": [_run_json(entry) for entry in self.runs],
            "subgroups": [cell.to_json([entry.name for entry in self.runs]) for cell in self.cells],
            "notes": list(self.notes),
        }

    def _facts(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "baseline": self.runs[self.baseline].name,
            "units": self.units,
            self.metric: {
                entry.name: round(entry.metrics[self.metric].value, 3)
                for entry in self.runs
                if self.metric in entry.metrics
            },
        }


def comparison_table(
    runs: Sequence[Run | StrPath],
    *,
    baseline: Run | StrPath | None = None,
    subgroups: Sequence[str] | None = None,
    draws: int | None = None,
    seed: int | None = None,
    trained_patients: Literal["refuse", "use"] = "refuse",
) -> ComparisonTable:
    """Compare runs of one task, of the same store or of stores of different encoders, with one of them.

    Only units that were evaluated in every run count, matched by id, images, patient, label and split
    (`heads.comparing.matched_units.match_units`).

    Parameters
    ----------
    runs
        Two or more, loaded or by their folders.
    baseline
        The one that the others are compared with; the first by default. Added to `runs` where it is not among them.
    subgroups
        Columns by which the leading metric is split; all that the baseline keeps by default.
    draws, seed
        Of the bootstrap; those of the baseline by default.
    trained_patients
        Whether a run counts that was evaluated on patients whom its encoder has seen in its own training.

    Raises
    ------
    UsageError
        If there are fewer than two runs, a column is not kept by the baseline, or runs cannot be compared.
    DataError
        If a run cannot be read.

    Examples
    --------
    >>> table = heads.comparison_table([run, "runs/nearest"], draws=100)
    >>> table.runs[table.baseline].head, sorted(table.runs[1].differences)
    ('logistic', ['auroc', 'brier', 'kappa', 'log_loss'])
    """
    loaded, position = _loaded(runs, baseline)
    if trained_patients != "use":
        _require_untrained(loaded)
    settings = loaded[position].document["settings"]
    draws, seed = settings["draws"] if draws is None else draws, settings["seed"] if seed is None else seed
    require_whole_number("draws", draws)
    require_whole_number("seed", seed)
    if draws < 1 or seed < 0:
        raise UsageError(f"draws must be 1 or more and seed 0 or more; found draws={draws}, seed={seed}")
    names = compared_names(loaded)
    columns = _columns(loaded[position], names[position], subgroups)
    matched = match_units(loaded, names, baseline=position)
    scored = _scored(loaded, matched, position, draws=draws, seed=seed)
    leading = leading_metric(loaded[position])
    wanted = tuple(
        dict.fromkeys((leading, *shown_in("heads"), *shown_in("tiles"), *computed_in("comparison")))
    )
    drawn: list[Mapping[str, Drawn]] = [
        draw_metrics(of_run, wanted) for of_run in counted("metrics of run", scored)
    ]
    if is_of_the_competition(matched.targets, loaded[0].classes):
        drawn = [
            {**of_run, **draw_run_score(of, matched.targets)}
            for of_run, of in zip(drawn, scored, strict=True)
        ]
    differences = _differences(drawn, position)
    corrected = _corrected(differences)
    compared = tuple(
        ComparedRun(
            run=run,
            name=name,
            encoder=encoder,
            head=head_name(run),
            metrics={key: entry.estimate() for key, entry in of_run.items()},
            differences=difference,
            corrected_p=p,
        )
        for run, name, encoder, of_run, difference, p in zip(
            loaded, names, encoder_names(loaded), drawn, differences, corrected, strict=True
        )
    )
    parts = cell_parts(loaded[position], matched, columns)
    return ComparisonTable(
        task=loaded[position].document["task"]["name"],
        unit=loaded[position].document["task"]["unit"],
        targets=matched.targets,
        metric=leading,
        runs=compared,
        baseline=position,
        units=len(matched.unit_ids),
        patients=len(np.unique(matched.patients)),
        draws=draws,
        seed=seed,
        cells=compared_cells(scored, matched, parts, loaded[0].classes, metric=leading, baseline=position),
        notes=(*matched.notes, *encoder_differences(loaded, position)),
    )


def _loaded(runs: Sequence[Run | StrPath], baseline: Run | StrPath | None) -> tuple[list[Run], int]:
    """Return the runs, each once, and where the baseline is among them."""
    if isinstance(runs, str):
        raise UsageError(f"runs must be a sequence of runs; found {runs!r}: write [{runs!r}, ...]")
    asked = [*runs] if baseline is None else [*runs, baseline]
    by_place: dict[Path, Run] = {}
    for run in asked:
        place = (run.folder if isinstance(run, Run) else Path(run)).resolve()
        if place not in by_place:
            by_place[place] = run if isinstance(run, Run) else load_run(run)
    if len(by_place) < 2:
        raise UsageError(f"runs must be two or more to be compared; found {len(by_place)}")
    if baseline is None:
        return list(by_place.values()), 0
    place = (baseline.folder if isinstance(baseline, Run) else Path(baseline)).resolve()
    return list(by_place.values()), list(by_place).index(place)


def _columns(run: Run, name: str, wanted: Sequence[str] | None) -> list[str]:
    kept = kept_columns(run)
    for column in wanted or ():
        if column not in kept:
            raise UsageError(
                f"`subgroups`: {name} keeps no column {column!r}; it keeps {', '.join(kept) or 'none'}: "
                f"name it when probing, too{did_you_mean(column, kept)}"
            )
    return kept if wanted is None else list(wanted)


def _scored(
    runs: Sequence[Run], matched: MatchedUnits, baseline: int, *, draws: int, seed: int
) -> list[Scored]:
    """Return the probabilities of each run beside the common labels, all on the same draws."""
    task = runs[baseline].document["task"]
    weights = task.get("class_weights")
    from_patients = draw_patients(matched.patients, draws=draws, seed=seed)
    return [
        Scored(
            matched.y,
            of_run,
            from_patients,
            None if weights is None else tuple(weights),
            bool(task.get("ordered")),
        )
        for of_run in matched.probabilities
    ]


def _differences(drawn: Sequence[Mapping[str, Drawn]], baseline: int) -> list[dict[str, Difference]]:
    """Return, for each run, metric -> it minus the baseline; nothing where either is undefined."""
    base = drawn[baseline]
    return [
        {
            name: paired_difference(
                (of_run[name].value, base[name].value),
                (of_run[name].drawn, base[name].drawn),
                n=of_run[name].n,
            )
            for name in (*computed_in("comparison"), *RUN_SCORES)
            if name in of_run and np.isfinite([of_run[name].value, base[name].value]).all()
        }
        if position != baseline
        else {}
        for position, of_run in enumerate(drawn)
    ]


def _corrected(differences: Sequence[Mapping[str, Difference]]) -> list[dict[str, float]]:
    """Return, for each run, metric -> p-value corrected for the number of runs that are compared in it."""
    corrected: list[dict[str, float]] = [{} for _ in differences]
    for name in (*computed_in("comparison"), *RUN_SCORES):
        compared = [position for position, of_run in enumerate(differences) if name in of_run]
        p_values = holm([differences[position][name].p_value for position in compared])
        for position, p in zip(compared, p_values, strict=True):
            corrected[position][name] = p
    return corrected


def _run_json(entry: ComparedRun) -> dict[str, Any]:
    return {
        "name": entry.name,
        "encoder": entry.encoder,
        "head": entry.head,
        "run": str(entry.run.folder),
        "run_id": entry.run.run_id,
        "identity_sha256": entry.run.identity.sha256,
        "metrics": {name: found.to_json() for name, found in entry.metrics.items()},
        "differences": {
            name: found.estimate.to_json()
            | {"p_value": found.p_value, "p_value_holm": entry.corrected_p[name]}
            for name, found in entry.differences.items()
        },
    }


def _require_untrained(runs: Sequence[Run]) -> None:
    for run in runs:
        for entry in run.document["warnings"]:
            if entry["kind"] == TRAINED:
                raise DataError(
                    f"run {run.folder}: {entry['text']}. Probe with `trained_patients='leave-out'`, or compare "
                    "all the same with `trained_patients='use'`"
                )
