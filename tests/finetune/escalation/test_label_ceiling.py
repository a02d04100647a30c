"""How many labels are wrong, on heads whose errors are known, and what that leaves to reach, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from finetune.escalation.label_ceiling import LabelEvidence, label_ceiling, label_evidence

BALANCED = np.repeat([[0], [1]], 1000, axis=0)


def judged(scores: np.ndarray, y: np.ndarray) -> LabelEvidence:
    """Judge (n,) labels by (n,) probabilities of the second class."""
    said = np.stack([1 - scores, scores], axis=-1)[:, None]
    return label_evidence(y[:, None], said, ("no", "yes"), evaluated=y[:, None], metric="accuracy")


@pytest.mark.parametrize(
    ("metric", "wrong", "by_hand"),
    [
        ("accuracy", 0.1, 0.9),
        # Of balanced classes 1 - 2 e: (1 - e - 1/2) / (1/2).
        ("kappa", 0.1, 0.8),
        # Of two values of the score: specificity and sensitivity are both 1 - e, and the area under two edges is too.
        ("auroc", 0.1, 0.9),
        ("log_loss", 0.1, -0.9 * np.log(0.9) - 0.1 * np.log(0.1)),
        ("brier", 0.1, 0.09),
        ("accuracy", 0.0, 1.0),
    ],
)
def test_the_best_answer_is_as_good_as_the_labels(metric: str, wrong: float, by_hand: float) -> None:
    assert label_ceiling(BALANCED, 2, wrong, metric=metric) == pytest.approx(by_hand, abs=0.005)


def test_three_classes_are_turned_into_either_other() -> None:
    y = np.repeat([[0], [1], [2]], 500, axis=0)
    assert label_ceiling(y, 3, 0.3, metric="accuracy") == pytest.approx(0.7, abs=0.005)
    # 1 - e in agreement, 1/3 by chance.
    assert label_ceiling(y, 3, 0.3, metric="kappa") == pytest.approx((0.7 - 1 / 3) / (2 / 3), abs=0.01)


def test_wrong_labels_are_told_from_a_head_that_lacks_something() -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 2, 600)
    y = np.where(generator.random(600) < 0.2, 1 - truth, truth)
    # All is learned, so that the probability is 0.8 up to the noise of learning.
    knows = judged(np.clip(np.where(truth == 1, 0.8, 0.2) + generator.normal(0, 0.03, 600), 0.01, 0.99), y)
    assert knows.saturated
    # The lower end of the exact interval of 23 errors among 150, which holds 0.2.
    assert (knows.surest_errors, knows.surest) == (23, 150)
    assert knows.wrong_share == pytest.approx(binomtest(23, 150).proportion_ci(method="exact").low)
    assert knows.ceiling == pytest.approx(1 - knows.wrong_share, abs=0.01)
    # Right labels, and a score that overlaps: surer where it is further out.
    for apart in (0.4, 0.8, 1.6, 2.4):
        score = generator.normal(0, 1, 600) + apart * (truth - 0.5)
        lacks = judged(1 / (1 + np.exp(-apart * score)), truth)
        assert not lacks.saturated
        assert np.isnan(lacks.ceiling)
    # Labels of nothing: the head errs alike everywhere, as often as chance does.
    guesses = judged(np.clip(generator.normal(0.5, 0.03, 600), 0.01, 0.99), y)
    assert not guesses.saturated


def test_a_few_sure_units_and_a_perfect_head_say_nothing_of_labels() -> None:
    y = np.array([0, 1] * 40)
    few = judged(np.where(y == 1, 0.9, 0.1), y)
    assert (few.surest, few.surest_errors, few.others, few.saturated) == (20, 0, 60, False)
    assert few.doubtful == 0


def test_where_the_surest_err_more_by_chance_all_are_gone_by() -> None:
    y = np.array([0, 1] * 100)
    wrong = np.zeros(200, bool)
    wrong[:16] = wrong[50:74] = True  # 16 of the 50 surest, 24 of the 150 others
    sure = np.where(np.arange(200) < 50, 0.9, 0.8)
    found = judged(np.where((y == 1) ^ wrong, sure, 1 - sure), y)
    assert (found.surest_errors, found.other_errors, found.saturated) == (16, 24, True)
    assert found.wrong_share == pytest.approx(binomtest(40, 200).proportion_ci(method="exact").low)
