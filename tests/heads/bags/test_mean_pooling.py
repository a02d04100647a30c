"""Where attention starts: logistic regression on mean vectors, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from heads.bags.mean_pooling import mean_pooling, thresholds


@pytest.mark.parametrize("width", [5, 120])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_is_the_ridge_penalised_regression_of_each_problem(n_classes: int, width: int) -> None:
    generator = np.random.default_rng(0)
    means = 1 + generator.normal(size=(80, width)) * np.geomspace(3, 0.1, width)
    truth = generator.integers(0, n_classes, (80, 2))
    means[:, 0] += truth[:, 0]
    weight = generator.random((80, 2))
    weight[::5, 1] = 0
    weight /= weight.sum(axis=0)
    l2 = torch.tensor([0.1, 0.01], dtype=torch.float64)
    outputs = 1 if n_classes == 2 else n_classes
    values, biases = mean_pooling(
        torch.tensor(means, dtype=torch.float32), truth, weight, l2, outputs=outputs
    )
    for problem in range(2):
        reference = LogisticRegression(C=1 / float(l2[problem]), tol=1e-10, max_iter=10_000)
        reference.fit(means, truth[:, problem], weight[:, problem])
        scores = means @ values[problem].numpy() + biases[problem].numpy()
        logits = np.concatenate([np.zeros((80, 1)), scores], axis=1) if n_classes == 2 else scores
        found = softmax(logits, axis=1)

        def objective(probabilities: np.ndarray, weights: np.ndarray, problem: int = problem) -> float:
            losses = -np.log(probabilities[np.arange(80), truth[:, problem]])
            return float(weight[:, problem] @ losses + l2[problem] / 2 * np.square(weights).sum())

        expected = reference.predict_proba(means)
        least = objective(expected, reference.coef_)
        assert least <= objective(found, values[problem].numpy()) + 1e-6 < least + 2e-4
        assert found == pytest.approx(expected, abs=1e-3 if width == 5 else 0.03)


def test_a_class_that_no_unit_has_is_next_to_impossible() -> None:
    means = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 3))).float()
    truth, weight = np.repeat([0, 2], 20)[:, None], np.full((40, 1), 1 / 40)
    values, biases = mean_pooling(means.clone(), truth, weight, torch.ones(1, dtype=torch.float64), outputs=3)
    scores = means.double() @ values[0] + biases[0]
    assert float(torch.softmax(scores, 1)[:, 1].max()) < 1e-3


def test_thresholds_state_the_share_of_each_class() -> None:
    scores = np.random.default_rng(1).normal(size=500) * 2
    truth = np.repeat([0, 1, 2, 3], [50, 200, 150, 100])
    found = thresholds(scores, truth, np.full(500, 1 / 500), 4)
    assert (np.diff(found) > 0).all()
    stated = [np.mean(1 / (1 + np.exp(-(threshold - scores)))) for threshold in found]
    assert stated == pytest.approx([0.1, 0.5, 0.8], abs=1e-5)
