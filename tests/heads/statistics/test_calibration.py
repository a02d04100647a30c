"""Calibrators: what they must find, never break, and bring back from JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from embedstore.errors import DataError, UsageError
from heads.scores import probabilities_from_scores
from heads.statistics import metric_functions as metrics
from heads.statistics.calibration import (
    KINDS,
    Kind,
    LinearCalibrator,
    calibrate,
    calibrator_from_json,
    fit_calibrator,
)
from tests.paths import PROJECT

BINARY = ("identity", "temperature", "platt", "dirichlet", "isotonic")
SEVERAL = ("identity", "temperature", "vector", "dirichlet", "isotonic")


def _binary(
    n: int = 4000, *, factor: float = 1.0, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores that overstate a true logit by `factor` and `shift`, labels, and folds."""
    generator = np.random.default_rng(0)
    logit = generator.normal(size=n) * 1.5
    y = (generator.random(n) < 1 / (1 + np.exp(-logit))).astype(int)
    return (factor * logit + shift)[:, None], y, np.arange(n) % 5


def _several(n: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(n, 3)) * 1.5
    y = (logits + generator.gumbel(size=logits.shape)).argmax(1)
    return 3 * logits + np.array([0.0, 1.0, -1.0]), y, np.arange(n) % 5


@pytest.mark.parametrize("kind", BINARY[1:])
def test_every_kind_lowers_the_error_of_an_overconfident_head(kind: str) -> None:
    scores, y, folds = _binary(factor=3.0)
    calibrated = fit_calibrator(kind, scores[folds > 0], y[folds > 0])(scores[folds == 0])
    uncalibrated = probabilities_from_scores(scores[folds == 0])
    assert metrics.ece(y[folds == 0], calibrated)[0] < metrics.ece(y[folds == 0], uncalibrated)[0] / 2
    assert (
        metrics.log_loss(y[folds == 0], calibrated)[0]
        < metrics.log_loss(y[folds == 0], uncalibrated)[0] - 0.1
    )


def test_temperature_is_the_factor_that_the_scores_were_overstated_by() -> None:
    scores, y, _ = _binary(n=20_000, factor=4.0)
    matrix = fit_calibrator("temperature", scores, y).to_json()["matrix"]
    assert matrix[0][0] == pytest.approx(1 / 4, rel=0.05)


def test_platt_takes_a_shift_back() -> None:
    scores, y, _ = _binary(n=20_000, factor=2.0, shift=1.0)
    calibrated = fit_calibrator("platt", scores, y)(scores)
    truth = probabilities_from_scores((scores - 1) / 2)
    assert np.abs(calibrated - truth).max() < 0.02


@pytest.mark.parametrize("kind", SEVERAL[1:])
def test_every_kind_helps_several_classes(kind: str) -> None:
    scores, y, folds = _several()
    calibrated = fit_calibrator(kind, scores[folds > 0], y[folds > 0])(scores[folds == 0])
    before = metrics.log_loss(y[folds == 0], probabilities_from_scores(scores[folds == 0]))[0]
    assert metrics.log_loss(y[folds == 0], calibrated)[0] < before
    assert calibrated.sum(1) == pytest.approx(1)


def test_isotonic_is_scikit_learns() -> None:
    scores, y, _ = _binary()
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores[:, 0], y).predict(scores[:, 0])
    assert fit_calibrator("isotonic", scores, y)(scores)[:, 1] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", BINARY[1:])
def test_classes_that_look_the_same_get_their_prevalence(kind: str) -> None:
    scores, y = np.zeros((4000, 1)), (np.arange(4000) % 10 < 3).astype(int)
    if kind == "temperature":
        pytest.skip("a factor alone cannot move a score of 0")
    assert fit_calibrator(kind, scores, y)(scores)[:, 1] == pytest.approx(0.3, abs=2e-3)


@pytest.mark.parametrize("kind", ["temperature", "platt", "dirichlet", "isotonic"])
def test_scores_that_point_the_wrong_way_are_never_turned_around(kind: str) -> None:
    scores, y, _ = _binary(factor=-1.0)
    rising = np.sort(scores, axis=0)
    calibrated = fit_calibrator(kind, scores, y)(rising)[:, 1]
    assert (np.diff(calibrated) >= -1e-12).all()
    assert np.ptp(calibrated) < 0.05


@pytest.mark.parametrize("kind", BINARY)
def test_separable_scores_end_finite_and_never_certain(kind: str) -> None:
    scores = np.concatenate([np.full(600, -50.0), np.full(600, 50.0)])[:, None]
    y = np.repeat([0, 1], 600)
    calibrated = fit_calibrator(kind, scores, y)(np.array([[-1e6], [-800.0], [0.0], [800.0], [1e6]]))
    assert np.isfinite(calibrated).all()
    assert (calibrated > 0).all()
    assert (calibrated < 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibrator_comes_back_from_json_to_the_bit(kind: str) -> None:
    scores, y, _ = _several() if kind == "vector" else _binary()
    calibrator = fit_calibrator(kind, scores, y)
    again = calibrator_from_json(json.loads(json.dumps(calibrator.to_json())), source="here")
    assert again == calibrator
    assert again(scores).tobytes() == calibrator(scores).tobytes()


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_probability_has_the_same_bits_in_every_batch(kind: str) -> None:
    scores, y, _ = _several()
    calibrator = fit_calibrator(kind, scores, y)
    whole = calibrator(scores)
    for batch in (1, 3, 5, 17):
        rows = np.arange(100, 100 + batch)
        assert calibrator(scores[rows]).tobytes() == whole[rows].tobytes()


def test_the_choice_is_by_loss_on_folds_that_were_not_fitted() -> None:
    scores, y, folds = _binary(factor=3.0)
    chosen = calibrate(scores, y, folds)
    assert chosen.calibrator.kind == min(chosen.losses, key=lambda kind: chosen.losses[kind])
    other = fit_calibrator(chosen.calibrator.kind, scores[folds != 2], y[folds != 2])
    assert (chosen.probabilities[folds == 2] == other(scores[folds == 2])).all()


def test_scores_that_are_right_already_are_hardly_changed() -> None:
    scores, y, folds = _binary(n=20_000)
    chosen = calibrate(scores, y, folds)
    assert np.abs(chosen.calibrator(scores) - probabilities_from_scores(scores)).max() < 0.03


def test_isotonic_needs_a_thousand_points() -> None:
    scores, y, folds = _binary(n=1200)
    assert "isotonic" not in calibrate(scores, y, folds).losses
    scores, y, folds = _binary(n=1300)
    assert "isotonic" in calibrate(scores, y, folds).losses


def test_a_kind_that_does_not_suit_is_refused() -> None:
    scores, y, _ = _several()
    with pytest.raises(UsageError, match="found 'platt'"):
        fit_calibrator("platt", scores, y)
    with pytest.raises(DataError, match=r"here: calibrator kind must be one of .*; found 'magic'"):
        calibrator_from_json({"kind": "magic"}, source="here")
    with pytest.raises(DataError, match="here: not a calibrator"):
        calibrator_from_json({"kind": "platt"}, source="here")


def test_a_kind_is_fitted_only_where_its_row_says_that_it_suits() -> None:
    two, several = _binary(), _several()
    for kind, row in KINDS.items():
        for scores, y, _ in (two, several):
            n_classes = max(2, scores.shape[1])
            if row.suits(n_classes):
                assert fit_calibrator(kind, scores, y).kind == kind
            else:
                with pytest.raises(
                    UsageError, match=rf"of {n_classes} classes must be one of .* found '{kind}'"
                ):
                    fit_calibrator(kind, scores, y)
    assert [kind for kind, row in KINDS.items() if row.suits(2)] == list(BINARY)
    assert [kind for kind, row in KINDS.items() if row.suits(3)] == list(SEVERAL)


@pytest.mark.parametrize(("n", "tried"), [(1249, False), (1250, True)])
def test_isotonic_is_tried_from_a_thousand_points_on(n: int, tried: bool) -> None:
    """Of 1,250 points in five folds 1,000 are left when one fold is left out; of 1,249 only 999."""
    assert ("isotonic" in calibrate(*_binary(n)).losses) is tried


def test_a_row_more_is_a_kind_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores with the wrong sign: none of the others may turn them around, so the new kind must win."""

    class Turned(LinearCalibrator):
        def __call__(self, scores: np.ndarray) -> np.ndarray:
            return super().__call__(-scores)

    def fit(scores: np.ndarray, y: np.ndarray) -> Turned:
        return Turned("turned", ((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0))

    def from_json(document: object) -> Turned:
        return fit(np.zeros((0, 1)), np.zeros(0, int))

    monkeypatch.setitem(KINDS, "turned", Kind(name="turned", fit=fit, from_json=from_json, classes="two"))
    scores, y, folds = _binary(factor=-1.0)
    chosen = calibrate(scores, y, folds)
    assert chosen.calibrator.kind == "turned"
    again = calibrator_from_json(chosen.calibrator.to_json(), source="here")
    assert again(scores).tobytes() == chosen.calibrator(scores).tobytes()
    assert "turned" not in calibrate(*_several()).losses


def test_the_protocol_page_has_a_line_for_each_kind() -> None:
    page = (PROJECT / "docs" / "protocols.md").read_text()
    words = {"any": "any number", "two": "two", "several": "more than two"}
    expected = [
        f"| `{name}` | {words[row.classes]} |{f' {row.least_points:,} ' if row.least_points else ' '}|"
        for name, row in KINDS.items()
    ]
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    assert [line for line in lines if line.split("`")[1] in KINDS] == expected


@pytest.mark.parametrize(
    ("kind", "n_classes"), [("platt", 2), ("dirichlet", 2), ("vector", 3), ("dirichlet", 3)]
)
def test_a_linear_map_is_the_minimum_that_scipy_finds(kind: str, n_classes: int) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(300, n_classes))
    y = (logits + generator.gumbel(size=logits.shape) + np.arange(n_classes)).argmax(1)
    scores = 2 * (logits[:, 1:] - logits[:, :1] if n_classes == 2 else logits)
    logs = np.log(probabilities_from_scores(scores))
    counts = np.bincount(y, minlength=n_classes)[y][:, None]
    targets = (np.eye(n_classes)[y] * counts + 1) / (counts + n_classes)
    full = kind == "dirichlet" and n_classes == 3

    def loss(matrix: np.ndarray, offset: np.ndarray) -> float:
        mapped = logs @ matrix.T + offset
        value = (targets * (np.log(np.exp(mapped).sum(1, keepdims=True)) - mapped)).sum() / len(y)
        off_diagonal = matrix - np.diag(np.diag(matrix))
        return float(value + (1e-3 * ((off_diagonal**2).sum() + (offset**2).sum()) if full else 0))

    def unpacked(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        factors, offset = numbers[:-n_classes], numbers[-n_classes:]
        return factors.reshape(n_classes, -1) if full else np.diag(factors * np.ones(n_classes)), offset

    count = n_classes**2 if full else 1 if kind == "platt" else n_classes
    start = np.concatenate([np.eye(n_classes).ravel() if full else np.ones(count), np.zeros(n_classes)])
    least = minimize(lambda numbers: loss(*unpacked(numbers)), start, tol=1e-10).fun
    found = fit_calibrator(kind, scores, y)
    assert isinstance(found, LinearCalibrator)
    assert loss(np.array(found.matrix), np.array(found.offset)) == pytest.approx(least, abs=1e-7)


@pytest.mark.parametrize("kind", ["temperature", "platt", "dirichlet"])
def test_scores_that_point_the_wrong_way_are_not_turned_around(kind: str) -> None:
    scores, y, _ = _binary(n=500, factor=-2.0)
    found = fit_calibrator(kind, scores, y)
    assert isinstance(found, LinearCalibrator)
    assert np.array(found.matrix) == pytest.approx(0, abs=1e-12)
    prevalence = 0.5 if kind == "temperature" else y.mean()
    assert found(scores)[:, 1] == pytest.approx(prevalence, abs=5e-3)


def test_certain_scores_of_parted_classes_end_finite() -> None:
    scores = np.array([-1e3] * 5 + [1e3] * 5)[:, None]
    y = np.repeat([0, 1], 5)
    # Platt's targets are 6/7 and 1/7: a logit of log(6) at a score of 1,000.
    matrix = fit_calibrator("temperature", scores, y).to_json()["matrix"]
    assert matrix[1][1] * 1e3 == pytest.approx(np.log(6), rel=1e-4)
