"""Class weights, oversampling, the focal loss: what each learns leads back to the classes as they are distributed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from embedstore.errors import UsageError
from heads.estimators.attention import AttentionFamily, AttentionHead
from heads.estimators.mlp import MlpFamily, MlpHead
from heads.scores import probabilities_from_scores
from heads.solvers.imbalance import (
    IMBALANCES,
    case_weights,
    focal_to_natural,
    natural_to_focal,
    shift_of,
)


@pytest.mark.parametrize("p", [(0.8, 0.2), (0.77, 0.16, 0.07), (0.02, 0.9, 0.08), (1 / 3, 1 / 3, 1 / 3)])
def test_the_minimiser_of_the_focal_loss_leads_back_to_the_probabilities(p: tuple[float, ...]) -> None:
    """The expected focal loss is minimised by a general solver, over logits."""
    p = np.array(p)

    def expected(logits: np.ndarray) -> float:
        v = np.exp(logits - logits.max())
        v /= v.sum()
        return float(-np.sum(p * (1 - v) ** 2 * np.log(v)))

    v = minimize(expected, np.log(p), tol=1e-14).x
    scores = (v[1] - v[0])[None, None] if len(p) == 2 else v[None]
    assert probabilities_from_scores(focal_to_natural(scores))[0] == pytest.approx(p, abs=1e-5)
    there = natural_to_focal(focal_to_natural(scores))
    assert probabilities_from_scores(there) == pytest.approx(probabilities_from_scores(scores), abs=1e-9)


def test_weights_make_every_class_count_alike_and_draws_do_so_on_average() -> None:
    y = np.repeat([0, 1, 2], [80, 15, 5])
    weight = np.ones(100, np.float32)
    balanced = case_weights(y, weight, "balanced", n_classes=3, seed=0)
    assert np.bincount(y, balanced) == pytest.approx([100 / 3] * 3)
    drawn = np.mean([case_weights(y, weight, "oversample", n_classes=3, seed=s) for s in range(300)], axis=0)
    assert np.bincount(y, drawn) == pytest.approx([100 / 3] * 3, rel=0.05)
    assert set(case_weights(y, weight, "oversample", n_classes=3, seed=1).tolist()) > {0.0, 1.0}
    # Odds of class 2 to class 0 are learned 16 times too large: 80 / 5.
    shift = shift_of(y, weight, "balanced", n_classes=3)
    assert np.exp(shift[2] - shift[0]) == pytest.approx(16)
    assert not shift_of(y, weight, "focal", n_classes=3).any()
    assert case_weights(y, weight, "none", n_classes=3, seed=0) is weight


def blurred(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of one deviation, one deviation apart in the first number; one in ten cases is of the second."""
    generator = np.random.default_rng(seed)
    y = (generator.random(1500) < 0.1).astype(int)
    X = generator.normal(size=(1500, 3)).astype(np.float32)
    X[:, 0] += y
    return X, y


@pytest.mark.parametrize("imbalance", IMBALANCES)
@pytest.mark.parametrize("kind", [MlpHead, AttentionHead])
def test_a_head_states_the_probabilities_that_bayes_gives_however_it_was_trained(
    kind: type[MlpHead] | type[AttentionHead], imbalance: str
) -> None:
    X, y = blurred()
    small = (
        {"hidden": (8,), "epochs": 30, "learning_rate": 0.01}
        if kind is MlpHead
        else {"layer_norm": False, "l2": 1e-4}
    )
    head = kind(**small, imbalance=imbalance).fit(X, y)
    odds = 0.1 / 0.9 * np.exp(X[:, 0] - 0.5)
    bayes = odds / (1 + odds)
    said = head.predict_proba(X)[:, 1]
    assert said.mean() == pytest.approx(y.mean(), abs=0.025)
    assert np.abs(said - bayes).mean() < 0.06
    again = kind.from_arrays(head.to_arrays(), head.get_params())
    assert again.predict_proba(X).tobytes() == head.predict_proba(X).tobytes()


def test_grids_try_each_way_once_and_only_where_they_are_asked() -> None:
    for family in (MlpFamily(), AttentionFamily()):
        assert not any("imbalance" in point for point in family.points)
        added = family.with_imbalance().points[len(family.points) :]
        assert [point["imbalance"] for point in added] == ["balanced", "oversample", "focal"]
    with pytest.raises(
        UsageError, match="imbalance must be one of none, balanced, oversample, focal; found 'smote'"
    ):
        MlpHead(imbalance="smote").fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(UsageError, match="no way back"):
        AttentionHead(ordered=True, imbalance="focal").fit(np.eye(6), [0, 1, 2, 0, 1, 2])
