"""Runs against each other, paired on the same units and the same draws of patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from embedstore.errors import UsageError
from embedstore.files import StrPath
from heads.runs.run import Run
from heads.runs.run_files import load_run
from heads.statistics.bootstrap import DRAWS, Difference, holm, paired_difference
from heads.statistics.evaluation import Drawn, draw_metrics
from heads.statistics.metrics import computed_in, leading, metric


@dataclass(frozen=True)
class Comparison:
    """One run against the best one, in one metric.

    Parameters
    ----------
    run, best
        Positions in the list of runs.
    metric
        Lower-case name.
    difference
        The run minus the best, with interval and p-value.
    corrected_p
        After Holm, over all comparisons of this metric.
    """

    run: int
    best: int
    metric: str
    difference: Difference
    corrected_p: float


def compare(runs: Sequence[Run | StrPath], *, draws: int = DRAWS, seed: int = 0) -> list[Comparison]:
    """Compare runs with the best of them, metric by metric, paired on the same units and draws of patients.

    Parameters
    ----------
    runs
        Two or more of one task, loaded or by their folders.
    draws
        Bootstrap draws of patients.
    seed
        Of the draws.

    Returns
    -------
    list of Comparison
        ``run`` and ``best`` are positions in `runs`.

    Raises
    ------
    UsageError
        If there are fewer than two, or they answer different questions, or were evaluated on different units.

    Examples
    --------
    >>> found = heads.compare([run, "runs/nearest"], draws=100)
    >>> found[0].metric, {found[0].run, found[0].best} == {0, 1}
    ('auroc', True)
    """
    if len(runs) < 2:
        raise UsageError(f"runs must be two or more; found {len(runs)}")
    loaded = [run if isinstance(run, Run) else load_run(run) for run in runs]
    require_one_task(loaded)
    compared = compare_runs(loaded, draws=draws, seed=seed)
    if not compared:
        listed = ", ".join(str(run.folder) for run in loaded)
        raise UsageError(
            f"runs must be evaluated on the same units with the same labels to be compared; found others in {listed}"
        )
    return compared


def require_one_task(runs: Sequence[Run]) -> None:
    """Refuse runs that answer different questions: their numbers do not belong side by side.

    Raises
    ------
    UsageError
        If tasks differ in name, unit or classes; targets may differ.
    """
    first = runs[0]
    for other in runs[1:]:
        differing = [
            name
            for name in ("name", "unit", "classes")
            if first.document["task"][name] != other.document["task"][name]
        ]
        if differing:
            (one, found) = (_task_in_words(run) for run in (first, other))
            same = " ".join(str(run.folder) for run in runs if _task_in_words(run) == one)
            raise UsageError(
                f"runs side by side must be of one task; found {one} in {first.folder} and {found} in "
                f"{other.folder}. Take those of one task, such as {same}"
            )


def leading_metric(run: Run) -> str:
    """Return the metric by which runs are ranked: the task's primary one where it is compared, else AUROC."""
    return leading(run.document["task"]["primary_metric"], computed_in("comparison"))


def best_first(runs: Sequence[Run]) -> list[int]:
    """Return the positions of the runs, the best in the leading metric first; undefined ones come last."""
    row = metric(leading_metric(runs[0]))

    def rank(position: int) -> float:
        value = runs[position].document["metrics"].get(row.name, {}).get("value")
        return float("inf") if value is None else row.rank(value)

    return sorted(range(len(runs)), key=rank)


def compare_runs(runs: Sequence[Run], *, draws: int = DRAWS, seed: int = 0) -> list[Comparison]:
    """Compare runs with the best of them in each metric that is compared (`heads.statistics.metrics`).

    Returns
    -------
    list of Comparison
        Empty when there are fewer than two runs, or when they were not evaluated on the same units with
        the same labels: then nothing is paired.
    """
    if len(runs) < 2 or any(run.classes != runs[0].classes or run.targets != runs[0].targets for run in runs):
        return []
    first = runs[0].evaluated
    for other in runs[1:]:
        if not np.array_equal(first.unit_ids, other.evaluated.unit_ids) or not np.array_equal(
            first.y, other.evaluated.y
        ):
            return []
    names = computed_in("comparison")
    drawn = [draw_metrics(run.evaluated.scored(draws=draws, seed=seed), names) for run in runs]
    return [
        comparison
        for name in names
        if all(name in of_run for of_run in drawn)
        for comparison in _compare(drawn, name)
    ]


def _compare(drawn: list[dict[str, Drawn]], name: str) -> list[Comparison]:
    values = [of_run[name].value for of_run in drawn]
    if not np.isfinite(values).all():
        return []
    best = int(np.argmin([metric(name).rank(value) for value in values]))
    others = [index for index in range(len(drawn)) if index != best]
    differences = [
        paired_difference(
            (values[index], values[best]),
            (drawn[index][name].drawn, drawn[best][name].drawn),
            n=drawn[index][name].n,
        )
        for index in others
    ]
    corrected = holm([difference.p_value for difference in differences])
    return [
        Comparison(index, best, name, difference, p)
        for index, difference, p in zip(others, differences, corrected, strict=True)
    ]


def p_value_in_words(p_value: float, difference: Difference) -> str:
    """Write a p-value of a difference, corrected or not: as a bound where no draw lies on the other side.

    Examples
    --------
    >>> from heads.statistics.bootstrap import Difference, Estimate
    >>> at_floor = Difference(Estimate(0.1, 0.05, 0.15, 100), p_value=2 / 2001, smallest_p=2 / 2001)
    >>> p_value_in_words(at_floor.p_value, at_floor)
    '<= 0.001'
    """
    if difference.p_value > difference.smallest_p:
        return f"{p_value:.4f}"
    # Two digits, upwards: a bound must not lie below what it bounds.
    digit = 10.0 ** (floor(log10(p_value)) - 1)
    return f"<= {ceil(p_value / digit - 1e-9) * digit:.2g}"


def _task_in_words(run: Run) -> str:
    task = run.document["task"]
    return f"{task['name']!r} ({task['unit']} level; {', '.join(task['classes'])})"
