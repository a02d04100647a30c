"""One self-contained HTML page about one run or several: no scripts, nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined

from embedstore.errors import UsageError
from embedstore.files import StrPath, write_durable
from embedstore.view import MISSING
from heads.lumbar.rsna_score import SCORE_LABELS
from heads.lumbar.severity_results import LABELS
from heads.reporting.charts import forest_chart, precision_recall_chart, reliability_chart, roc_chart
from heads.reporting.run_charts import abstention_chart, decision_chart, interval_of, learning_chart
from heads.reporting.words import (
    PHANTOM,
    binned_text,
    bins_text,
    counted_text,
    data_in_words,
    estimate_text,
    interval_text,
    lacks_interval,
    number_text,
    preprocess_rows,
    run_names,
    setting_text,
)
from heads.runs.comparison import best_first, compare_runs, p_value_in_words, require_one_task
from heads.runs.confident_errors import confident_errors
from heads.runs.patient_vectors import vectors_in_words
from heads.runs.run import Run
from heads.runs.run_warnings import warnings_in_words
from heads.scores import Floats, probabilities_from_scores
from heads.stages import counted
from heads.statistics.evaluation import decide
from heads.statistics.metric_functions import confusion
from heads.statistics.metrics import METRICS, computed_in, ece_bins, in_order, metric_label, shown_in
from heads.statistics.subgroups import listed

REPORT_FILE = "report.html"
COMPARISON_FILE = "comparison.html"
# A page with the curves of 25 targets is not read; all of their numbers are in the table.
_TARGETS_DRAWN = 6
_LABELS_SHOWN = 20
# A reliability diagram is drawn of fewer units than an ECE is stated for; its bins show their counts.
_FEWEST_BINS = 2


def render_report(runs: Sequence[Run], *, thumbnails: Mapping[str, bytes] | None = None) -> str:
    """Return the page.

    Parameters
    ----------
    runs
        One or more of one task, shown from the best to the worst; those evaluated on the same units are
        compared, paired.
    thumbnails
        Unit id -> small JPEG file, shown beside confident errors; heads know no pixels.

    Raises
    ------
    UsageError
        If there is no run, or runs are of different tasks.
    """
    if not runs:
        raise UsageError("a report needs one run or more; found none")
    require_one_task(runs)
    settings = runs[0].document["settings"]
    runs = [runs[position] for position in best_first(runs)]
    environment = Environment(
        loader=PackageLoader("heads.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "binned": binned_text,
        "bins": bins_text,
        "counted": counted_text,
        "estimate": estimate_text,
        "interval": interval_text,
        "metric": metric_label,
        "number": number_text,
        "setting": setting_text,
    }
    names = run_names(runs)
    page = environment.get_template("report.html").render(
        runs=[
            _of_run(run, name, index)
            for index, (run, name) in enumerate(counted("drawing run", list(zip(runs, names, strict=True))))
        ],
        comparisons=compare_runs(runs, draws=settings["draws"], seed=settings["seed"]),
        p_value=p_value_in_words,
        data=list(dict.fromkeys(data_in_words(run.document["sources"]) for run in runs)),
        phantom=PHANTOM,
        phantoms=_phantoms(runs),
        lacks_interval=any(lacks_interval(run.document) for run in runs),
        pictures={
            unit_id: "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
            for unit_id, jpeg in (thumbnails or {}).items()
        },
        names=names,
        metrics=METRICS,
        tiles=shown_in("tiles"),
        cell_columns=shown_in("cells"),
        decision_columns=shown_in("decisions"),
        severity_labels=LABELS,
        score_labels=SCORE_LABELS,
    )
    return str(page)


def save_report(path: StrPath, runs: Sequence[Run], *, thumbnails: Mapping[str, bytes] | None = None) -> None:
    """Write the page of `render_report` to `path`; its folder must exist.

    Examples
    --------
    >>> heads.save_report("comparison.html", [run, heads.load_run("runs/nearest")])
    """
    write_durable(Path(path), render_report(runs, thumbnails=thumbnails).encode(), label="report")


def _of_run(run: Run, name: str, index: int) -> dict[str, Any]:
    document = run.document
    by_subgroup = listed(document["by_subgroup"], document["task"]["subgroups"])
    primary = document["task"]["primary_metric"]
    return {
        "name": name,
        "document": document,
        "run_id": run.run_id,
        "primary": primary,
        "data": data_in_words(document["sources"]),
        "patient_vectors": vectors_in_words(document),
        "metrics": [name for name in _tabled(run) if name not in _without_mean(run)],
        "without_mean": _without_mean(run),
        "warnings": warnings_in_words(document),
        "chance": _chance(run),
        "by_subgroup": by_subgroup,
        "preprocess": preprocess_rows(document["identity"]["preprocess"]),
        "targets": [
            _of_target(run, target, f"r{index}t{target}")
            for target in range(min(len(run.targets), _TARGETS_DRAWN))
        ],
        "undrawn": max(0, len(run.targets) - _TARGETS_DRAWN),
        "forest": _forest(document["metrics"], by_subgroup, primary, f"r{index}f"),
        "counted_classes": [document["task"]["classes"][k] for k in _shown(run)],
        "cell_counts": _cell_counts(run),
        "learning": learning_chart(document, primary, f"r{index}l")
        or learning_chart(document, computed_in("learning curve")[0], f"r{index}l"),
        "errors": confident_errors(run),
        "doubtful": run.label_noise.slice(0, _LABELS_SHOWN).to_pylist(),
        "doubtful_count": run.label_noise.num_rows,
    }


def _of_target(run: Run, target: int, name: str) -> dict[str, Any]:
    evaluated = run.evaluated
    labelled = evaluated.y[:, target] != MISSING
    y, probabilities = evaluated.y[labelled, target], evaluated.probabilities[labelled, target]
    uncalibrated = probabilities_from_scores(evaluated.scores[labelled, target])
    head = run.document["heads"][target]
    shown = _shown(run)
    curves = {run.classes[k]: (y == k, probabilities[:, k]) for k in shown}
    rule = "youden" if head["thresholds"] else "likeliest class"
    decisions = decide(probabilities, head["thresholds"].get("youden", 0.5))
    at_half = decide(probabilities)
    n_classes = len(run.classes)
    bins = ece_bins(len(y)) or _FEWEST_BINS
    matrices = [(rule, head["thresholds"].get("youden"), decisions)]
    if head["thresholds"]:
        matrices.insert(0, ("half", 0.5, at_half))
    return {
        "target": run.targets[target],
        "n": len(y),
        "classes": run.classes,
        "positive": run.positive,
        "roc": roc_chart(curves, name=f"{name}roc"),
        "pr": precision_recall_chart(curves, name=f"{name}pr"),
        "reliability": _reliability(run, y, (uncalibrated, probabilities), bins=bins, name=f"{name}rel"),
        "bins": bins,
        "decision": decision_chart(run.document, run.targets[target], f"{name}dec"),
        "abstention": abstention_chart(run.document, run.targets[target], f"{name}abs"),
        "sets": run.document["conformal_sets"].get(run.targets[target], {}),
        "head": head,
        "confusions": [
            {
                "rule": label,
                "threshold": threshold,
                "matrix": confusion(y, decided, n_classes=n_classes)[0].astype(int).tolist(),
            }
            for label, threshold, decided in matrices
        ],
    }


def _reliability(
    run: Run, y: npt.NDArray[np.int64], before_and_after: tuple[Floats, Floats], *, bins: int, name: str
) -> str | None:
    """Draw the reliability of the positive class; None where the task names none."""
    if run.positive is None:
        return None
    positive = run.classes.index(run.positive)
    before, after = before_and_after
    curves = {"before calibration": before[:, positive], "after calibration": after[:, positive]}
    return reliability_chart(curves, y == positive, bins=bins, name=name)


def _phantoms(runs: Sequence[Run]) -> str | None:
    flags = [source["phantom"] for run in runs for source in run.document["sources"]]
    if not any(flags):
        return None
    return "The data is" if all(flags) else "Some of the data is"


def _shown(run: Run) -> list[int]:
    """Return the positive class of two, or all classes."""
    return [1] if len(run.classes) == 2 else list(range(len(run.classes)))


def _cell_counts(run: Run) -> dict[str, dict[str, list[int]]]:
    """Return the evaluated units of each shown class in each subgroup, summed over targets."""
    return {
        column: {
            cell: [
                sum(of_class[run.classes[k]]["units"] for of_class in by_target.values()) for k in _shown(run)
            ]
            for cell, by_target in cells.items()
        }
        for column, cells in run.document["classes"]["by_subgroup"].items()
    }


def _tabled(run: Run) -> list[str]:
    """Return the metrics of the full table: all but those that say nothing of their own about these classes."""
    names = in_order(run.document["metrics"])
    return [name for name in names if name not in METRICS or METRICS[name].speaks(len(run.classes))]


def _without_mean(run: Run) -> list[str]:
    """Return the metrics that a target lacks, so that there is no mean over targets; none of a task of one target."""
    if len(run.targets) == 1:
        return []
    stated = (
        run.document["metrics"],
        run.document["before_calibration"],
        run.document["without_image"] or {},
    )
    return [
        name
        for name in _tabled(run)
        if all((entries.get(name) or {"value": None})["value"] is None for entries in stated)
    ]


def _chance(run: Run) -> dict[str, float]:
    """Return what chance reaches in each metric where that depends on the data."""
    prevalence = _mean_prevalence(run)
    return {
        name: prevalence
        for name, row in METRICS.items()
        if row.chance == "prevalence" and prevalence is not None
    }


def _mean_prevalence(run: Run) -> float | None:
    """Return the share of the positive class, of several classes and targets the mean."""
    shares = []
    for of_class in run.document["classes"]["evaluated"].values():
        units = [of_class[name]["units"] for name in run.classes]
        if sum(units):
            shares += [units[k] / sum(units) for k in _shown(run)]
    return sum(shares) / len(shares) if shares else None


def _forest(
    overall: Mapping[str, Any],
    by_subgroup: Mapping[str, Mapping[str, Mapping[str, Any]]],
    metric: str,
    name: str,
) -> str | None:
    entries = [("all", overall.get(metric))]
    entries += [
        (f"{column}: {cell}", of_cell.get(metric))
        for column, cells in by_subgroup.items()
        for cell, of_cell in cells.items()
    ]
    rows = [
        (f"{legend} (n = {entry['n']})", *interval_of(entry))
        for legend, entry in entries
        if entry is not None and entry["value"] is not None
    ]
    return forest_chart(rows, label=metric_label(metric), name=name) if len(rows) > 1 else None
