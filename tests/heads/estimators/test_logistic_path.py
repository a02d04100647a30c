"""The path along strengths against every strength solved, and the space of few rows against scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from heads.base import Training
from heads.estimators import logistic_path
from heads.estimators.logistic import STRENGTHS, LogisticFamily
from heads.protocol.select_point import point_losses
from heads.scores import probabilities_from_scores
from heads.solvers.logistic_grid import solve
from heads.solvers.logistic_rows import RowSpace, row_space, spreads, working_copy


def _training(
    n: int, dim: int, *, targets: int = 1, n_classes: int = 2, images_per_unit: int = 1, seed: int = 0
) -> tuple[Training, np.ndarray]:
    """Make vectors with a decaying spectrum, labels that follow its widest axes, and five patient folds."""
    generator = np.random.default_rng(seed)
    n_units = n // images_per_unit
    unit_of_row = np.repeat(np.arange(n_units), images_per_unit)
    spectrum = np.arange(1, dim + 1) ** -0.7
    latent = generator.normal(size=(n, dim))
    rotation = np.linalg.qr(generator.normal(size=(dim, dim)))[0]
    X = (latent * spectrum) @ rotation + generator.normal(size=dim)
    by_unit = np.stack([np.bincount(unit_of_row, latent[:, k]) for k in range(targets + n_classes)], axis=1)
    columns = []
    for target in range(targets):
        logits = 2 * by_unit[:, target : target + n_classes] + generator.gumbel(size=(n_units, n_classes))
        columns.append(logits.argmax(1))
    y = np.stack(columns, axis=1)[unit_of_row]
    training = Training(
        X=X.astype(np.float32),
        y=y,
        sample_weight=np.ones(y.shape, np.float32),
        groups=unit_of_row,
        n_classes=n_classes,
        unit_of_row=unit_of_row,
        n_units=n_units,
    )
    return training, unit_of_row % 5


def _losses(family: LogisticFamily, training: Training, folds: np.ndarray) -> np.ndarray:
    scores = family.out_of_fold(training, folds, seed=0).scores
    return point_losses(scores, training.y[training.row_of_unit], training.unit_of_row)


@pytest.mark.parametrize(("n_classes", "images_per_unit"), [(2, 1), (2, 2), (3, 1)])
def test_what_is_left_out_would_not_have_been_chosen(n_classes: int, images_per_unit: int) -> None:
    n = 240 * images_per_unit
    training, folds = _training(n, 300, n_classes=n_classes, images_per_unit=images_per_unit)
    family = LogisticFamily()
    along, every = (
        _losses(replace(family, doubt=doubt), training, folds) for doubt in (family.doubt, np.inf)
    )
    solved = np.isfinite(along)
    assert 0.2 < np.mean(~solved) < 0.8
    best = int(np.argmin(every))
    assert np.argmin(along) == best
    assert along[best] == pytest.approx(every[best], abs=5e-5)
    # Only weak regularisation is left out.
    by_normalisation = solved.reshape(2, len(STRENGTHS)).astype(int)
    assert (np.diff(by_normalisation, axis=1) <= 0).all()
    assert along[solved] == pytest.approx(every[solved], abs=2e-3)


def test_strengths_may_come_in_any_order() -> None:
    training, folds = _training(300, 400)
    sorted_family = LogisticFamily((1e-3, 1e-2, 0.1, 1.0, 1e5), ("none",))
    mixed = LogisticFamily((1e5, 0.1, 1e-3, 1.0, 1e-2), ("none",))
    in_order, out_of_order = (_losses(each, training, folds) for each in (sorted_family, mixed))
    assert out_of_order[:, 0] == pytest.approx(in_order[[4, 2, 0, 3, 1], 0], abs=1e-6)


def test_fewer_than_a_hundred_patients_are_solved_at_every_strength() -> None:
    training, folds = _training(190, 400, images_per_unit=2)
    assert np.isfinite(_losses(LogisticFamily(), training, folds)).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_strengths_tried_on_some_patients_are_finished_on_all(
    monkeypatch: pytest.MonkeyPatch, n_classes: int
) -> None:
    training, folds = _training(3000, 20, targets=2, n_classes=n_classes)
    every = _losses(LogisticFamily(doubt=np.inf), training, folds)
    monkeypatch.setattr(logistic_path, "_TRIED_ROWS", 500)
    seen = []
    descend = logistic_path._Walk.descend
    monkeypatch.setattr(
        logistic_path._Walk,
        "descend",
        lambda walk, doubt: (seen.append(len(walk.path.training.X)), descend(walk, doubt)),
    )
    along = _losses(LogisticFamily(), training, folds)
    assert set(seen) == {501}
    solved = np.isfinite(along)
    assert solved.mean() < 0.5
    assert along[solved] == pytest.approx(every[solved], abs=2e-5)
    # Among strengths that differ by less than is worth another one, either may be chosen.
    assert along.min(axis=0) == pytest.approx(every.min(axis=0), abs=logistic_path._VISIBLE)


def test_the_best_strength_is_found_where_some_patients_point_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Labels of the patients who are tried are noise: they ask for the strongest regularisation."""
    training, folds = _training(3000, 20)
    monkeypatch.setattr(logistic_path, "_TRIED_ROWS", 500)
    rank = np.random.default_rng(0).permutation(3000)
    misled = training.y.copy()
    misled[rank <= 500] = np.random.default_rng(1).integers(0, 2, (501, 1))
    training = replace(training, y=misled)
    family = LogisticFamily(normalisations=("none",))
    along, every = (
        _losses(replace(family, doubt=doubt), training, folds) for doubt in (family.doubt, np.inf)
    )
    assert along.min() == pytest.approx(every.min(), abs=logistic_path._VISIBLE)
    assert along.min() < every[0].min() - 0.05


def test_all_are_solved_where_some_patients_would_lack_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    training, folds = _training(3000, 20)
    rare = np.where(np.arange(3000)[:, None] < 100, 1, 0)
    monkeypatch.setattr(logistic_path, "_TRIED_ROWS", 500)
    family = LogisticFamily((0.1, 1.0), ("none",))
    along, every = (
        _losses(replace(family, doubt=doubt), replace(training, y=rare), folds)
        for doubt in (family.doubt, np.inf)
    )
    assert along == pytest.approx(every, abs=2e-4)


def _reference(X: np.ndarray, y: np.ndarray, weight: np.ndarray, C: float) -> LogisticRegression:
    return LogisticRegression(C=C, tol=1e-10, max_iter=20_000).fit(X, y, weight)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("normalisation", ["none", "standardise"])
def test_few_rows_are_solved_in_their_space_as_scikit_learn_does(normalisation: str, n_classes: int) -> None:
    """Weights, missing labels, and a column that varies in one fold alone."""
    training, folds = _training(80, 300, targets=2, n_classes=n_classes)
    generator = np.random.default_rng(3)
    X = training.X.copy()
    X[:, 7] = np.where(folds == 0, 5 * generator.normal(size=80), 1.5)
    y = training.y.copy()
    y[generator.random(80) < 0.2, 1] = -1
    weight = generator.random(y.shape).astype(np.float32) + 0.2
    training = replace(training, X=X, y=y, sample_weight=weight)
    solution = solve(
        training, folds, held_out=[0, 1], strengths=[1e-3, 0.1, 10.0], normalisation=normalisation
    )
    assert solution.converged.all()
    for index, C in enumerate([1e-3, 0.1, 10.0]):
        for target in range(2):
            for fold in range(2):
                inside = (folds != fold) & (y[:, target] >= 0)
                own = weight[inside, target].astype(np.float64)
                rows = X.astype(np.float64)
                if normalisation == "standardise":
                    rows = StandardScaler().fit(rows[inside], sample_weight=own).transform(rows)
                rows[:, 7] = 0 if fold == 0 else rows[:, 7]
                model = _reference(rows[inside], y[inside, target], own, C)
                found = probabilities_from_scores(
                    solution.held_out_scores[index, folds == fold, target].astype(np.float64)
                )
                assert found == pytest.approx(model.predict_proba(rows[folds == fold]), abs=1e-4)


def test_the_space_of_rows_keeps_products_and_lengths() -> None:
    training, folds = _training(40, 100)
    working = working_copy(training.X, "standardise", "cpu")
    held = folds == np.arange(5)[:, None, None]
    penalty, constant = spreads(working, training.sample_weight, held)
    space = row_space(working, penalty, constant[:, :, :-1])
    assert isinstance(space, RowSpace)
    coordinates = np.random.default_rng(0).normal(size=space.out_of.shape[1])
    for fold in range(5):
        group = space.group_of[fold, 0]
        coef = coordinates @ space.out_of[group]
        vectors = working.rows[:, :-1].numpy()
        assert vectors @ coef == pytest.approx(space.rows[group, :, :-1].numpy() @ coordinates, abs=1e-9)
        in_space = coef @ space.into[group]
        assert (penalty[fold, 0].numpy() * coef**2).sum() == pytest.approx((in_space**2).sum())


def test_leading_axes_precondition_as_well_as_all() -> None:
    """Between few rows and many the eigenbasis is of the largest eigenvalues only."""
    training, folds = _training(600, 700)
    working = working_copy(training.X, "none", "cpu", precision="single")
    assert working.basis is not None
    assert working.basis.eigenvectors.shape == (700, 128)
    solution = solve(training, folds, held_out=[0], strengths=[0.01, 1.0])
    assert solution.converged.all()
    inside = folds != 0
    for index, C in enumerate([0.01, 1.0]):
        model = _reference(training.X[inside].astype(np.float64), training.y[inside, 0], None, C)
        expected = model.decision_function(training.X[~inside])
        assert solution.held_out_scores[index, ~inside, 0, 0] == pytest.approx(expected, abs=1e-4)
