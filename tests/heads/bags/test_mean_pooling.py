"""Where attention starts: logistic regression on mean vectors, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from heads.bags.mean_pooling import mean_pooling, thresholds


@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_is_the_ridge_penalised_regression_of_each_problem(n_classes: int) -> None:
    generator = np.random.default_rng(0)
    means = generator.normal(size=(80, 5)) * [3, 2, 1, 1, 0.1]
    truth = generator.integers(0, n_classes, (80, 2))
    means[:, 0] += truth[:, 0]
    weight = generator.random((80, 2))
    weight[::5, 1] = 0
    weight /= weight.sum(axis=0)
    l2 = torch.tensor([0.1, 0.01], dtype=torch.float64)
    outputs = 1 if n_classes == 2 else n_classes
    values, biases = mean_pooling(torch.from_numpy(means), truth, weight, l2, outputs=outputs)
    for problem in range(2):
        reference = LogisticRegression(C=1 / float(l2[problem]), tol=1e-10, max_iter=10_000)
        reference.fit(means, truth[:, problem], weight[:, problem])
        expected = reference.predict_proba(means)
        scores = means @ values[problem].numpy() + biases[problem].numpy()
        if n_classes == 2:
            found = 1 / (1 + np.exp(-scores[:, 0]))
            assert found == pytest.approx(expected[:, 1], abs=1e-3)
        else:
            odds = np.exp(scores)
            assert odds / odds.sum(axis=1, keepdims=True) == pytest.approx(expected, abs=1e-3)


def test_a_class_that_no_unit_has_is_next_to_impossible() -> None:
    means = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 3)))
    truth, weight = np.repeat([0, 2], 20)[:, None], np.full((40, 1), 1 / 40)
    values, biases = mean_pooling(means, truth, weight, torch.ones(1, dtype=torch.float64), outputs=3)
    scores = means @ values[0] + biases[0]
    assert float(torch.softmax(scores, 1)[:, 1].max()) < 1e-3


def test_thresholds_state_the_share_of_each_class() -> None:
    scores = np.random.default_rng(1).normal(size=500) * 2
    truth = np.repeat([0, 1, 2, 3], [50, 200, 150, 100])
    found = thresholds(scores, truth, np.full(500, 1 / 500), 4)
    assert (np.diff(found) > 0).all()
    stated = [np.mean(1 / (1 + np.exp(-(threshold - scores)))) for threshold in found]
    assert stated == pytest.approx([0.1, 0.5, 0.8], abs=1e-5)
