"""Parts of the same units solved at once: each as if it had been alone, and as scikit-learn fits it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from heads.base import Training
from heads.estimators.logistic import LogisticFamily
from heads.inputs.nested import NestedParts, Nests, Part, SolvedGrid
from tests.views import make_view, probed

GRID = LogisticFamily(strengths=(1e-2, 0.1, 1.0), normalisations=("none", "standardise"))
EXACT = replace(GRID, doubt=np.inf)
N_UNITS, TARGETS = 120, 2


class Apart(LogisticFamily):
    """The same grid, whose parts are solved one after the other."""

    def nests(self, training: Training, parts: int) -> bool:
        return False


def _everyone() -> Training:
    generator = np.random.default_rng(0)
    unit_of_row = np.repeat(np.arange(N_UNITS), 2)
    X = generator.normal(size=(2 * N_UNITS, 6)) * [3, 2, 1, 1, 0.5, 0.5] + 1
    unit = (X[::2] + X[1::2]) / 2 - 1
    y = (unit[:, :TARGETS] + generator.normal(size=(N_UNITS, TARGETS)) > 0).astype(np.int64)
    y[generator.random(y.shape) < 0.1] = -1
    return Training(
        X=X.astype(np.float32),
        y=y[unit_of_row],
        sample_weight=generator.choice([0.5, 1.0, 2.0], (N_UNITS, TARGETS)).astype(np.float32)[unit_of_row],
        groups=unit_of_row,
        n_classes=2,
        unit_of_row=unit_of_row,
        n_units=N_UNITS,
    )


def _nested(everyone: Training) -> tuple[NestedParts, list[np.ndarray], list[np.ndarray]]:
    """Return all units, and two parts of them with folds of their own."""
    units = [np.ones(N_UNITS, np.bool_), np.arange(N_UNITS) % 4 != 0, np.arange(N_UNITS) % 4 != 1]
    folds = [np.random.default_rng(index).integers(0, 3, mask.sum()) for index, mask in enumerate(units)]
    parts = [
        Part(units=mask, folds=own, sample_weight=everyone.sample_weight[mask[everyone.unit_of_row]])
        for mask, own in zip(units, folds, strict=True)
    ]
    return NestedParts.of(everyone, parts), units, folds


def test_each_part_has_the_scores_and_heads_that_it_has_alone() -> None:
    everyone = _everyone()
    nested, units, folds = _nested(everyone)
    assert isinstance(EXACT, Nests)
    assert EXACT.nests(everyone, 3)
    scores = EXACT.out_of_fold(nested.training, nested.folds, seed=0).scores
    params = [{"C": 0.1, "normalisation": "standardise"}, {"C": 1.0, "normalisation": "none"}]
    heads = EXACT.refit(nested.training, params * 3, seed=0)
    for part, (mask, own_folds) in enumerate(zip(units, folds, strict=True)):
        alone = everyone.take_units(mask)
        expected = EXACT.out_of_fold(alone, own_folds[alone.unit_of_row], seed=0).scores
        assert nested.of_part(part, scores) == pytest.approx(expected, abs=1e-3)
        known = alone.y[:, 1] >= 0
        model = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000)
        model.fit(alone.X[known].astype(np.float64), alone.y[known, 1], alone.sample_weight[known, 1])
        head = heads[nested.targets(part)][1]
        assert head.decision_function(alone.X) == pytest.approx(model.decision_function(alone.X), abs=1e-4)


def test_units_outside_of_a_part_move_nothing_of_it() -> None:
    """They are rows of the same product, so that only their weight of 0 keeps them out."""
    everyone = _everyone()
    nested, units, _ = _nested(everyone)
    outside = ~units[1][everyone.unit_of_row]
    X, y = everyone.X.copy(), everyone.y.copy()
    X[outside] = 5 - 3 * X[outside]
    y[outside] = 1 - np.maximum(y[outside], 0)
    moved, _, _ = _nested(replace(everyone, X=X, y=y))
    before, after = (EXACT.out_of_fold(each.training, each.folds, seed=0).scores for each in (nested, moved))
    assert moved.of_part(1, after) == pytest.approx(nested.of_part(1, before), abs=1e-3)
    assert np.abs(moved.of_part(0, after)[:, ~outside] - nested.of_part(0, before)[:, ~outside]).max() > 0.05
    params = [{"C": 0.1, "normalisation": "standardise"}] * (3 * TARGETS)
    heads = [EXACT.refit(each.training, params, seed=0)[nested.targets(1)] for each in (nested, moved)]
    for one, other in zip(*heads, strict=True):
        assert other.coef_ == pytest.approx(one.coef_, abs=1e-6)


def test_a_cross_validated_probe_says_the_same_with_its_folds_apart() -> None:
    view = make_view(valid_share=0, patients=120)
    together, apart = (
        probed(view, draws=20, family=family, class_weights="balanced")
        for family in (GRID, Apart(GRID.strengths, GRID.normalisations))
    )
    assert together.fitted.points == apart.fitted.points
    assert together.evaluated.probabilities == pytest.approx(apart.evaluated.probabilities, abs=1e-3)
    assert together.evidence.inner.folds.tolist() == apart.evidence.inner.folds.tolist()


def test_parameters_that_were_not_solved_are_fitted() -> None:
    everyone = _everyone()
    solved = SolvedGrid(grid=GRID, scores=np.zeros((6, 240, 2, 1), np.float32), params=[{}, {}], heads=[])
    heads = solved.refit(everyone, [{"C": 0.1, "normalisation": "none"}] * 2, seed=0)
    assert [head.C for head in heads] == [0.1, 0.1]
    assert solved.points == GRID.points
