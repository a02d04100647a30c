"""The table of metrics: what it says is true of the functions, and the pages say what it says."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.errors import UsageError
from heads.statistics.metrics import METRICS, computed_in, in_order, metric, metric_label, shown_in
from tests.paths import PROJECT


def _by(name: str, probabilities: np.ndarray, y: np.ndarray) -> float:
    return float(METRICS[name].values(y, probabilities, probabilities.argmax(1), None)[0])


@pytest.mark.parametrize("name", METRICS)
def test_the_better_value_is_that_of_the_better_head(name: str) -> None:
    """Labels are drawn with the stated probabilities; the worse head states the opposite too surely."""
    generator = np.random.default_rng(0)
    stated = generator.uniform(0.02, 0.98, 4000)
    y = (generator.random(4000) < stated).astype(np.int64)
    turned = 0.9 * (1 - stated) ** 2
    good, bad = (np.column_stack([1 - p, p]) for p in (stated, turned))
    row = METRICS[name]
    assert row.rank(_by(name, good, y)) < row.rank(_by(name, bad, y))


def test_a_value_nearer_to_the_right_one_ranks_first_on_either_side() -> None:
    slope, intercept = METRICS["calibration_slope"], METRICS["calibration_intercept"]
    assert sorted([2.0, 0.9, 0.1, 1.3], key=slope.rank) == [0.9, 1.3, 0.1, 2.0]
    assert sorted([0.5, -0.2, 0.1], key=intercept.rank) == [0.1, -0.2, 0.5]


@pytest.mark.parametrize("name", METRICS)
def test_a_row_is_shown_only_where_it_is_computed(name: str) -> None:
    row = METRICS[name]
    assert row.name == name
    assert "decisions" not in row.shown or "thresholds" in row.computed
    assert "thresholds" not in row.computed or row.of == "decisions"
    assert "cells" not in row.shown or "subgroups" in row.computed


def test_names_are_listed_in_the_order_of_the_table_and_strangers_last() -> None:
    assert in_order(["brier", "stranger", "auroc", "kappa"]) == ["auroc", "kappa", "brier", "stranger"]
    assert metric_label("log_loss") == "log loss"
    assert metric_label("stranger") == "stranger"


def test_an_unknown_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"found 'aurok'\. Did you mean 'auroc'\?"):
        metric("aurok")


def test_places_name_metrics_in_the_order_of_the_table() -> None:
    named = (
        "auroc",
        "auprc",
        "kappa",
        "quadratic_kappa",
        "accuracy",
        "log_loss",
        "brier",
        "ece",
        "calibration_slope",
    )
    assert shown_in("summary") == named
    assert computed_in("without image") == ("log_loss", "weighted_log_loss", "brier")
    assert computed_in("comparison") == ("auroc", "kappa", "log_loss", "brier")
    assert {"calibration_slope", "calibration_intercept"}.isdisjoint(computed_in("subgroups"))


def test_the_protocol_page_has_a_line_for_each_metric() -> None:
    """`docs/protocols.md` says of each row: its name, label, which values are better, and what it needs."""
    page = (PROJECT / "docs" / "protocols.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    expected = []
    for name, row in METRICS.items():
        needs = [
            *(["ordered classes"] if row.needs_order else []),
            *(["class weights"] if row.needs_class_weights else []),
            *([f"{row.least_units} units"] if row.least_units > 1 else []),
        ]
        expected.append(
            f"| `{name}` | {row.label} | {row.of} | {row.better} | {', '.join(needs)} |".replace(
                "|  |", "| |"
            )
        )
    assert [line for line in lines if line.split("`")[1] in METRICS] == expected
