"""The logistic head and its batched solver against scikit-learn, one problem at a time."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedstore.errors import DataError, UsageError
from heads.base import Training
from heads.estimators.logistic import LogisticFamily, LogisticHead
from heads.exact_products import reproducible_norms, reproducible_product
from heads.protocol.select_point import best_points, point_losses
from heads.registry import head_class, head_names
from heads.scores import probabilities_from_scores
from heads.solvers import logistic_rows
from heads.solvers.logistic_grid import NOTHING_HELD_OUT, Grid, solve
from heads.solvers.logistic_problems import Preconditioner, Problems, contrasts
from heads.solvers.newton import newton_step

STRENGTHS = (1e-6, 1e-3, 1.0, 1e2, 1e5)


@parametrize_with_checks(
    [LogisticHead(), LogisticHead(normalisation="standardise"), LogisticHead(normalisation="l2")]
)
def test_the_head_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


def _cases(n_classes: int, *, n: int = 300, dim: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    spread = np.arange(1, dim + 1) ** -1.0
    X = generator.normal(size=(n, dim)) * spread + 0.5
    logits = (X - 0.5) / spread @ generator.normal(size=(dim, n_classes)) / np.sqrt(dim)
    y = (1.5 * logits + generator.gumbel(size=logits.shape)).argmax(1)
    return X.astype(np.float32), y


def _training(X: np.ndarray, y: np.ndarray, n_classes: int, weight: np.ndarray | None = None) -> Training:
    y = y.reshape(len(X), -1)
    weight = np.ones(y.shape, np.float32) if weight is None else weight.reshape(y.shape)
    return Training.of_rows(X, y, sample_weight=weight, groups=np.arange(len(X)), n_classes=n_classes)


def _reference(
    X: np.ndarray, y: np.ndarray, C: float, weight: np.ndarray | None = None
) -> LogisticRegression:
    model = LogisticRegression(C=C, tol=1e-10, max_iter=20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X.astype(np.float64), y, weight)


def _normalised(X: np.ndarray, fitted: np.ndarray, normalisation: str) -> np.ndarray:
    if normalisation == "standardise":
        return StandardScaler().fit(X[fitted].astype(np.float64)).transform(X.astype(np.float64))
    return normalize(X.astype(np.float64)) if normalisation == "l2" else X


def _log_loss(probabilities: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(y)), y]).mean())


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("normalisation", ["none", "standardise", "l2"])
def test_every_strength_has_scikit_learns_log_loss(n_classes: int, normalisation: str) -> None:
    X, y = _cases(n_classes)
    solution = solve(
        _training(X, y, n_classes),
        np.zeros(len(X), np.int64),
        held_out=[NOTHING_HELD_OUT],
        strengths=STRENGTHS,
        normalisation=normalisation,
    )
    normalised = _normalised(X, np.arange(len(X)), normalisation)
    given = normalised if normalisation == "l2" else X
    for index, C in enumerate(STRENGTHS):
        scores = given @ solution.coef[index, 0, 0].T + solution.intercept[index, 0, 0]
        own = _log_loss(probabilities_from_scores(scores), y)
        theirs = _log_loss(_reference(normalised, y, C).predict_proba(normalised.astype(np.float64)), y)
        assert own == pytest.approx(theirs, abs=1e-6), C


@pytest.mark.parametrize("normalisation", ["none", "standardise"])
def test_a_held_out_fold_is_scored_by_the_other_folds_alone(normalisation: str) -> None:
    X, y = _cases(2)
    # One fold with another scale: a leak of its statistics would show.
    folds = np.arange(len(X)) % 3
    X[folds == 1] *= 4
    solution = solve(
        _training(X, y, 2), folds, held_out=[0, 1, 2], strengths=[0.01, 1.0], normalisation=normalisation
    )
    for index, C in enumerate([0.01, 1.0]):
        for fold in range(3):
            fitted = np.flatnonzero(folds != fold)
            normalised = _normalised(X, fitted, normalisation).astype(np.float64)
            expected = _reference(normalised[fitted], y[fitted], C).decision_function(
                normalised[folds == fold]
            )
            found = solution.held_out_scores[index, folds == fold, 0, 0]
            assert found == pytest.approx(expected, abs=2e-4)


def test_held_out_scores_do_not_change_with_held_out_labels_or_vectors() -> None:
    X, y = _cases(2)
    folds = np.arange(len(X)) % 3
    options = {"held_out": [0, 1, 2], "strengths": [1.0], "normalisation": "standardise"}
    before = solve(_training(X, y, 2), folds, **options)
    changed_X, changed_y = X.copy(), y.copy()
    changed_X[folds == 0] += 100
    changed_y[folds == 0] = 1 - changed_y[folds == 0]
    after = solve(_training(changed_X, changed_y, 2), folds, **options)
    assert after.coef[0, 0] == pytest.approx(before.coef[0, 0], abs=1e-5)
    assert after.intercept[0, 0] == pytest.approx(before.intercept[0, 0], abs=1e-4)


def test_targets_are_solved_apart_and_missing_labels_leave_rows_out() -> None:
    X, y = _cases(2)
    other = np.roll(y, 7)
    labels = np.stack([y, np.where(np.arange(len(y)) % 4 == 0, -1, other)], axis=1)
    solution = solve(
        _training(X, labels, 2), np.zeros(len(X), np.int64), held_out=[NOTHING_HELD_OUT], strengths=[1.0]
    )
    known = labels[:, 1] >= 0
    assert solution.coef[0, 0, 0] == pytest.approx(_reference(X, y, 1.0).coef_, abs=1e-4)
    assert solution.coef[0, 0, 1] == pytest.approx(_reference(X[known], other[known], 1.0).coef_, abs=1e-4)


def test_sample_weights_are_scikit_learns() -> None:
    X, y = _cases(3)
    weight = np.random.default_rng(1).random(len(X)).astype(np.float32)
    found = LogisticHead(C=2.0).fit(X, y, weight)
    expected = _reference(X, y, 2.0, weight)
    assert found.predict_proba(X) == pytest.approx(expected.predict_proba(X), abs=1e-4)


def test_single_precision_has_scikit_learns_log_loss() -> None:
    X, y = _cases(2, n=30_000, dim=150)
    assert X.size > 1 << 22
    solution = solve(
        _training(X, y, 2),
        np.zeros(len(X), np.int64),
        held_out=[NOTHING_HELD_OUT],
        strengths=[1e-3, 1.0, 1e3],
    )
    assert solution.converged.all()
    for index, C in enumerate([1e-3, 1.0, 1e3]):
        scores = X @ solution.coef[index, 0, 0].T + solution.intercept[index, 0, 0]
        model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-8).fit(X.astype(np.float64), y)
        expected = _log_loss(model.predict_proba(X), y)
        assert _log_loss(probabilities_from_scores(scores), y) == pytest.approx(expected, abs=1e-6)


def test_blocks_of_problems_give_the_same_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = _cases(3)
    folds = np.arange(len(X)) % 3
    options = {"held_out": [0, 1, 2], "strengths": [1e-3, 1.0, 10.0]}
    whole = solve(_training(X, y, 3), folds, **options)
    monkeypatch.setattr("heads.solvers.logistic_grid._BLOCK_CELLS", 1)
    monkeypatch.setattr("heads.solvers.logistic_grid._BLOCK_COLUMNS", 6)
    parts = solve(_training(X, y, 3), folds, **options)
    assert parts.held_out_scores == pytest.approx(whole.held_out_scores, abs=1e-4)


def test_read_only_vectors_are_not_written_to() -> None:
    X, y = _cases(2)
    kept = X.copy()
    X.setflags(write=False)
    LogisticFamily().out_of_fold(_training(X, y, 2), np.arange(len(X)) % 3, seed=0)
    assert (kept == X).all()


def test_a_problem_stopped_early_says_so() -> None:
    X, y = _cases(3)
    assert not LogisticHead(C=1e5, max_iterations=2).fit(X, y).converged_


def test_a_strength_that_is_not_positive_is_refused() -> None:
    X, y = _cases(2)
    with pytest.raises(UsageError, match=r"C must be positive and finite; found 0.0"):
        LogisticHead(C=0.0).fit(X, y)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_arrays_bring_a_head_back_to_the_bit(n_classes: int) -> None:
    X, y = _cases(n_classes)
    head = LogisticHead(C=3.0, normalisation="l2").fit(X, y)
    again = LogisticHead.from_arrays(head.to_arrays(), head.get_params())
    assert again.decision_function(X).tobytes() == head.decision_function(X).tobytes()
    assert again.get_params() == head.get_params()


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    X, y = _cases(3)
    arrays = LogisticHead().fit(X, y).to_arrays()
    with pytest.raises(DataError, match="needs 3 rows"):
        LogisticHead.from_arrays(arrays | {"coef": arrays["coef"][:1]}, {})
    with pytest.raises(DataError, match=r"lacks \['coef'\]"):
        LogisticHead.from_arrays({name: arrays[name] for name in ("intercept", "classes")}, {})


def test_heads_are_found_by_name() -> None:
    assert "logistic" in head_names()
    assert head_class("logistic") is LogisticHead
    with pytest.raises(UsageError, match=r"no head named 'nothing'; installed: .*logistic"):
        head_class("nothing")


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("batch", [1, 3, 17, 64])
def test_a_product_has_the_same_bits_in_every_batch(columns: int, batch: int) -> None:
    generator = np.random.default_rng(0)
    X = (generator.normal(size=(200, 1152)) * 10.0 ** generator.integers(-3, 4, 1152)).astype(np.float32)
    coefficients = generator.normal(size=(columns, 1152))
    whole, norms = reproducible_product(X, coefficients), reproducible_norms(X)
    order = generator.permutation(len(X))
    for start in range(0, len(X), batch):
        rows = order[start : start + batch]
        assert reproducible_product(X[rows], coefficients).tobytes() == whole[rows].tobytes()
        assert reproducible_norms(X[rows]).tobytes() == norms[rows].tobytes()
    # The order of the columns is the order of summation, which a product of whole numbers does not see.
    shuffled = generator.permutation(1152)
    assert reproducible_product(X[:, shuffled], coefficients[:, shuffled]).tobytes() == whole.tobytes()


def test_a_product_is_right_to_ten_digits_of_its_terms() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(50, 1152)).astype(np.float32)
    coefficients = generator.normal(size=(2, 1152))
    exact = X.astype(np.longdouble) @ coefficients.T.astype(np.longdouble)
    assert np.abs(reproducible_product(X, coefficients) - exact).max() < 1e-9
    lengths = np.linalg.norm(X.astype(np.float64), axis=1)
    assert reproducible_norms(X)[:, 0] == pytest.approx(lengths, rel=1e-10)


def test_a_product_of_nothing_but_zeros_is_zero() -> None:
    assert (reproducible_product(np.zeros((2, 3), np.float32), np.zeros((1, 3))) == 0).all()
    assert (reproducible_norms(np.zeros((2, 3), np.float32)) == 0).all()


def test_a_product_with_nan_is_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 rows"):
        reproducible_product(np.array([[np.nan], [1.0]]), np.ones((1, 1)))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("normalisation", ["none", "standardise"])
def test_classes_that_can_be_parted_are_solved_to_the_end_at_every_strength(
    normalisation: str, n_classes: int
) -> None:
    """Fewer rows than dimensions and random labels: the training loss nearly vanishes long before the end."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(60, 200)) * np.arange(1, 201) ** -0.5 + generator.normal(size=200)
    X, y, folds = X.astype(np.float32), generator.integers(0, n_classes, 60), np.arange(60) % 3
    strengths = (1e-2, 1.0, 1e2, 1e4)
    family = LogisticFamily(strengths, (normalisation,))
    scores = family.out_of_fold(_training(X, y, n_classes), folds, seed=0).scores
    for index, strength in enumerate(strengths):
        for fold in range(3):
            inside = folds != fold
            rows = _normalised(X, inside, normalisation)
            theirs = _reference(rows[inside], y[inside], strength).predict_proba(rows[~inside])
            own = probabilities_from_scores(scores[index, ~inside, 0])
            assert own == pytest.approx(theirs, abs=2e-3)


def test_a_strength_that_was_not_solved_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = _cases(2)
    training, folds = _training(X, y, 2), np.arange(len(X)) % 3

    def hasty(self, block, **options):
        solved(self, block, **options)
        self.solution.converged[1, 2] = False

    solved = Grid.solve
    monkeypatch.setattr(Grid, "solve", hasty)
    scores = LogisticFamily((0.1, 1.0, 10.0), ("none",)).out_of_fold(training, folds, seed=0).scores
    losses = point_losses(scores, y[:, None], np.arange(len(X)))
    assert np.isinf(losses[:, 0]).tolist() == [False, True, False]
    assert best_points(losses) != [1]
    with pytest.raises(DataError, match="no point of the head's grid could be fitted"):
        best_points(losses[1:2])


@pytest.mark.parametrize("classes", [1, 3, 5])
def test_newtons_step_and_decrement_are_those_of_the_whole_second_derivative(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = max(1, classes - 1)
    generator = torch.Generator().manual_seed(0)
    n, dim, count = 40, 5, 2
    rows = torch.cat([torch.randn(n, dim, generator=generator), torch.ones(n, 1)], dim=1).double()
    weights = torch.rand(count, n, generator=generator).double()
    weights /= weights.sum(1, keepdim=True)
    truth = torch.zeros(count, classes, n, dtype=torch.uint8)
    truth[:, 0] = 1
    penalty = torch.full((count * columns, dim + 1), 0.01).double()
    problems = Problems(rows, weights, truth, penalty)
    coefficients = torch.randn(count * columns, dim + 1, generator=generator).double()
    gram = rows[:, :dim].T @ rows[:, :dim] / n
    values, vectors = torch.linalg.eigh(gram)
    preconditioner = Preconditioner(
        vectors,
        values,
        torch.full((count,), 0.01).double(),
        torch.eye(columns).double().expand(count, -1, -1),
    )
    scores = coefficients @ rows.T
    # The curvature of what all classes have in common is zero.
    bends = problems.curvature(scores).diagonal(dim1=1, dim2=2).sum(1) / classes
    assert torch.allclose(problems.mean_curvature(scores), bends)
    gradient = problems.residuals(scores) @ rows + penalty * coefficients
    rough = newton_step(problems, preconditioner, scores, gradient, products=50)[1]
    monkeypatch.setattr("heads.solvers.newton._RESIDUAL_LEFT", 1e-6)
    step, decrement, exact, taken = newton_step(problems, preconditioner, scores, gradient, products=50)
    assert exact.all()
    assert (taken <= dim + 1).all() if columns == 1 else (taken < 50).all()
    assert not newton_step(problems, preconditioner, scores, gradient, products=1)[2].any()
    for problem in range(count):
        own = slice(problem * columns, (problem + 1) * columns)

        def objective(flat: torch.Tensor, problem: int = problem, own: slice = own) -> torch.Tensor:
            scored = rows @ flat.view(columns, dim + 1).T
            # Without the term of the truth, which does not bend.
            of_classes = torch.cat([scored, 0 * scored], 1) if classes == 1 else scored @ contrasts(classes).T
            loss = torch.logsumexp(of_classes, 1)
            return (weights[problem] * loss).sum() + (penalty[own].flatten() * flat**2).sum() / 2

        at = coefficients[own].flatten()
        second = torch.autograd.functional.hessian(objective, at)
        whole = -torch.linalg.solve(second, gradient[own].flatten())
        assert torch.linalg.vector_norm(step[own].flatten() - whole) < 0.01 * torch.linalg.vector_norm(whole)
        distance = float(-(whole @ gradient[own].flatten()) / 2)
        assert decrement[problem] == pytest.approx(distance, rel=1e-4)
        # Of the steps that a descent takes it is too small, if anything, and never by much.
        assert 0.75 * distance < rough[problem] <= 1.001 * distance


@pytest.mark.parametrize("n_classes", [2, 3])
def test_rows_some_at_a_time_and_newtons_steps_by_every_so_many_lead_to_the_same_solution(
    monkeypatch: pytest.MonkeyPatch, n_classes: int
) -> None:
    monkeypatch.setattr(logistic_rows, "SMALL_CELLS", 0)  # single precision, as with many rows
    generator = np.random.default_rng(2)
    X = generator.normal(size=(900, 8)).astype(np.float32)
    scores = X @ generator.normal(size=(8, n_classes)) + generator.gumbel(size=(900, n_classes))
    training = _training(X, scores.argmax(axis=1)[:, None], n_classes)
    folds = np.arange(900) % 3
    asked = {"held_out": [0, 1], "strengths": [0.1, 10.0]}
    whole = solve(training, folds, **asked)
    monkeypatch.setattr("heads.solvers.logistic_problems._SCORED_ROWS", 128)
    monkeypatch.setattr("heads.solvers.logistic_problems._HELD_ROWS", 200)
    monkeypatch.setattr("heads.solvers.newton._BENT_ROWS", 225)
    found = solve(training, folds, **asked)
    assert found.converged.all()
    np.testing.assert_allclose(found.coef, whole.coef, atol=2e-4)
    np.testing.assert_allclose(found.held_out_scores, whole.held_out_scores, atol=1e-3)


@pytest.mark.parametrize("normalisation", ["none", "standardise"])
def test_a_column_that_only_the_held_out_fold_moves_has_no_part_in_its_scores(
    monkeypatch: pytest.MonkeyPatch, normalisation: str
) -> None:
    """In single precision nothing but rounding would hold its coefficient where regularisation is weak."""
    monkeypatch.setattr(logistic_rows, "SMALL_CELLS", 0)
    generator = np.random.default_rng(0)
    X = generator.normal(size=(400, 6)).astype(np.float32)
    folds = np.arange(400) % 4
    y = (X[:, :1] + generator.logistic(size=(400, 1)) > 0).astype(np.int64)
    X[:, 5] = np.where((folds == 0) & (generator.random(400) < 0.5), 8, 1)
    training = _training(X, y, 2)
    found = solve(training, folds, held_out=[0], strengths=[1.0, 1e5], normalisation=normalisation)
    lacking = replace(training, X=np.ascontiguousarray(X[:, :5]))
    without = solve(lacking, folds, held_out=[0], strengths=[1.0, 1e5], normalisation=normalisation)
    assert found.coef[..., 5] == pytest.approx(0, abs=1e-12)
    assert found.converged.all()
    of_fold = folds == 0
    assert found.held_out_scores[:, of_fold] == pytest.approx(without.held_out_scores[:, of_fold], abs=1e-3)


@pytest.mark.parametrize("C", [-1, 0, float("inf"), float("nan")])
def test_a_strength_out_of_range_is_refused_by_the_name_of_the_parameter(C):
    with pytest.raises(UsageError, match=f"C must be positive and finite; found {C}"):
        LogisticHead(C=C).fit(np.eye(4, dtype=np.float32), [0, 1, 0, 1])


def test_every_head_fits_on_the_same_device_unless_told_otherwise():
    devices = {name: head_class(name)().get_params().get("device") for name in ("logistic", "mlp", "xgboost")}
    assert devices == {"logistic": "cpu", "mlp": "cpu", "xgboost": "cpu"}
