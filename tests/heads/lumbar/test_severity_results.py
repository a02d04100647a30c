"""Results by condition, level and side: cells of several targets counted together, held against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, log_loss, roc_auc_score

from embedstore.lumbar.levels import TARGETS
from embedstore.view import MISSING
from heads.lumbar.complete_answers import complete_answers
from heads.lumbar.severity_results import SEVERITY_METRICS, draw_severity, parts_of_targets
from heads.statistics.bootstrap import draw_patients
from heads.statistics.evaluation import Scored

STUDIES = 40


@pytest.fixture(scope="module")
def scored() -> Scored:
    generator = np.random.default_rng(5)
    y = generator.choice([0, 1, 2, MISSING], (STUDIES, 25), p=[0.6, 0.2, 0.15, 0.05])
    logits = generator.normal(size=(STUDIES, 25, 3)) + 1.5 * (y[..., None] == np.arange(3))
    probabilities = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    # Two cells without an image: no part of anything.
    probabilities[3, 7] = probabilities[8, 0] = np.nan
    return Scored(y, probabilities, draw_patients(np.arange(STUDIES).astype(str), draws=30, seed=0))


def test_targets_fall_into_three_conditions_five_levels_and_two_sides() -> None:
    parts = parts_of_targets(TARGETS)
    assert {column: {cell: len(at) for cell, at in cells.items()} for column, cells in parts.items()} == {
        "condition": {"spinal": 5, "foraminal": 10, "subarticular": 10},
        "level": dict.fromkeys(("l1_l2", "l2_l3", "l3_l4", "l4_l5", "l5_s1"), 5),
        "side": {"left": 10, "right": 10},
    }
    named = [TARGETS[at] for at in parts["side"]["right"]]
    assert all(name.startswith("right") for name in named)
    assert parts_of_targets(TARGETS[:2]) == {
        "condition": {"spinal": [0, 1]},
        "level": {"l1_l2": [0], "l2_l3": [1]},
        "side": {},
    }


def cells(scored: Scored, targets: list[int], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities of all cells, each study as often as it was drawn."""
    studies = np.repeat(np.arange(STUDIES), weights.astype(int))
    y, p = scored.y[studies][:, targets].ravel(), scored.probabilities[studies][:, targets].reshape(-1, 3)
    known = (y != MISSING) & ~np.isnan(p[:, 0])
    return y[known], p[known]


@pytest.mark.parametrize(
    ("column", "cell"), [("condition", "foraminal"), ("level", "l1_l2"), ("side", "left")]
)
def test_metrics_of_a_part_are_scikit_learns_on_all_studies_and_in_a_draw(
    scored: Scored, column: str, cell: str
) -> None:
    found = draw_severity(scored, TARGETS)[column][cell]
    assert set(found) == set(SEVERITY_METRICS)
    targets = parts_of_targets(TARGETS)[column][cell]
    for draw, weights in ((None, np.ones(STUDIES)), (4, scored.draws.weights()[4])):
        y, p = cells(scored, targets, weights)
        said, cost = p.argmax(1), np.array([1.0, 2.0, 4.0])[y]
        expected = {
            "kappa": cohen_kappa_score(y, said),
            "quadratic_kappa": cohen_kappa_score(y, said, weights="quadratic"),
            "accuracy": (y == said).mean(),
            "weighted_accuracy": ((y == said) * cost).sum() / cost.sum(),
            "weighted_f1": f1_score(y, said, average="weighted"),
            "auroc_severe": roc_auc_score(y == 2, p[:, 2]),
            "log_loss": log_loss(y, p, labels=[0, 1, 2]),
        }
        for name, value in expected.items():
            one = found[name].value if draw is None else found[name].drawn[draw]
            assert one == pytest.approx(value, rel=1e-6), name
    assert found["ece"].estimate().if_perfect > 0


def test_cells_without_an_answer_get_the_prevalence_of_the_other_folds(scored: Scored) -> None:
    folds = np.arange(STUDIES) % 4
    found = complete_answers(scored.y, scored.probabilities, folds, learned=scored.y, learned_folds=folds)
    others = scored.y[folds != 3, 7]
    shares = np.bincount(others[others != MISSING], minlength=3) / (others != MISSING).sum()
    assert found.probabilities[3, 7] == pytest.approx(shares)
    assert found.filled == sum(scored.y[place] != MISSING for place in ((3, 7), (8, 0)))
    assert found.cells == (scored.y != MISSING).sum()
    answered = ~np.isnan(scored.probabilities)
    assert np.array_equal(found.probabilities[answered], scored.probabilities[answered])
