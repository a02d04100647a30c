"""A head over bags of images goes through the whole protocol; every score is worked out again by hand."""

from __future__ import annotations

from importlib.metadata import EntryPoint, version
from pathlib import Path

import numpy as np
import pytest

from embedstore import plugins
from embedstore.errors import UsageError
from embedstore.view import View
from heads.inputs.input_ways import all_inputs
from heads.protocol.learning_curve import learning_curve
from heads.protocol.options import ProbeOptions
from heads.protocol.probe_result import ProbeResult
from heads.runs.answers import predict_units
from heads.runs.run_files import load_run, save_run
from heads.testing import check_family, check_head
from tests.heads.bag_head import STRENGTHS, NoisyOrFamily, NoisyOrHead
from tests.views import make_view, probed

NAME = "noisy-or"


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = plugins.entry_points
    own = EntryPoint(NAME, "tests.heads.bag_head:NoisyOrHead", plugins.HEADS)
    monkeypatch.setattr(
        plugins,
        "entry_points",
        lambda group: [*installed(group=group), *([own] if group == plugins.HEADS else [])],
    )


@pytest.fixture(scope="module")
def view() -> View:
    return make_view(patients=60)


def bag_scores(view: View, learned: np.ndarray, scored: np.ndarray, strength: float) -> np.ndarray:
    """Score units by what the labelled units of a mask teach: every unit apart, in float64."""
    bags = [view.X[view.unit_of_image == unit].astype(np.float64) for unit in range(len(view.unit_ids))]
    y = view.y[:, 0]
    abnormal = np.mean([bags[unit].mean(0) for unit in np.flatnonzero(learned & (y == 1))], axis=0)
    normal = np.mean([bags[unit].mean(0) for unit in np.flatnonzero(learned & (y == 0))], axis=0)
    prior = np.log((learned & (y == 1)).sum() / (learned & (y == 0)).sum())
    scores = []
    for unit in np.flatnonzero(scored):
        logits = [
            strength * ((np.sum((x - normal) ** 2) - np.sum((x - abnormal) ** 2)) / 2) + prior
            for x in bags[unit]
        ]
        none = np.prod([1 / (1 + np.exp(logit)) for logit in logits])
        scores.append(np.log((1 - none) / none))
    return np.array(scores)


def bag_losses(view: View, result: ProbeResult) -> list[np.ndarray]:
    """Return the out-of-fold scores of both strengths."""
    learned = view.splits == "train"
    fold = np.full(len(learned), -1)
    fold[learned] = result.fitted.folds
    found = []
    for strength in STRENGTHS:
        scores = np.empty(len(learned))
        for held in np.unique(result.fitted.folds):
            inside = fold == held
            scores[inside] = bag_scores(view, learned & ~inside, inside, strength)
        found.append(scores[learned])
    return found


def log_loss(scores: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(np.log1p(np.exp(np.where(y == 1, -scores, scores)))))


def test_the_head_keeps_the_contract_of_every_head() -> None:
    check_head(NoisyOrHead(), n_classes=2)
    check_family(NoisyOrFamily(), NoisyOrHead, n_classes=2)


def test_every_score_of_the_protocol_is_that_of_a_bag(view: View) -> None:
    result = probed(view, NAME, draws=20, folds=3)
    y = view.y[:, 0]
    learned = view.splits == "train"
    by_strength = bag_losses(view, result)
    losses = [log_loss(scores, y[learned]) for scores in by_strength]
    assert result.fitted.losses[:, 0] == pytest.approx(losses, rel=1e-5)
    best = int(np.argmin(losses))
    assert result.fitted.points == ({"strength": STRENGTHS[best]},)
    assert result.fitted.out_of_fold_scores[:, 0, 0] == pytest.approx(by_strength[best], rel=1e-4, abs=1e-5)
    evaluated = bag_scores(view, learned, view.splits == "valid", STRENGTHS[best])
    assert result.evaluated.scores[:, 0, 0] == pytest.approx(evaluated, rel=1e-4, abs=1e-5)


def test_class_weights_are_undone_at_the_bag(view: View) -> None:
    """Weights move the intercept of images and nothing else here; log(w1 / w0) is then taken off the bag's score."""
    plain = probed(view, NAME, draws=2, folds=3, family=NoisyOrFamily())
    result = probed(view, NAME, draws=2, folds=3, class_weights="balanced", family=NoisyOrFamily())
    learned, y = view.splits == "train", view.y[:, 0]
    positive, negative = (learned & (y == 1)).sum(), (learned & (y == 0)).sum()
    ((low, high),) = result.fitted.predictor.training_weights
    assert high / low == pytest.approx(negative / positive)
    head, weighted = plain.fitted.predictor.heads[0], result.fitted.predictor.heads[0]
    bags = [view.X[view.unit_of_image == unit] for unit in np.flatnonzero(view.splits == "valid")]
    expected = []
    for bag in bags:
        # Balanced classes have even odds.
        logits = (
            weighted.strength / head.strength * (head.decision_function(bag) - np.log(positive / negative))
        )
        none = np.prod(1 / (1 + np.exp(logits)))
        expected.append(np.log((1 - none) / none) - np.log(negative / positive))
    assert result.evaluated.scores[:, 0, 0] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_loaded_run_predicts_bags_to_the_bit(view: View, tmp_path: Path) -> None:
    result = probed(view, NAME, draws=2, folds=3)
    run = load_run(save_run(tmp_path / "run", result).folder)
    units = np.flatnonzero(view.splits == "valid")
    images = np.flatnonzero(np.isin(view.unit_of_image, units))
    unit_of_image = np.searchsorted(units, view.unit_of_image[images])
    again = run.predict(view.X[images], unit_of_image)
    assert again.tobytes() == result.evaluated.probabilities.tobytes()
    one = unit_of_image == 3
    alone = run.predict(view.X[images][one], np.zeros(one.sum(), np.int64))
    assert alone.tobytes() == again[3:4].tobytes()
    (answer,) = predict_units(run, view.X[images][one], np.zeros(one.sum(), np.int64), ["study"])
    assert answer["targets"]["finding"]["probabilities"]["abnormal"] == again[3, 0, 1]
    assert run.document["versions"]["click"] == version("click")  # what the head declares
    assert run.document["heads"][0]["converged"] is None


def test_the_learning_curve_ends_at_the_probe(view: View) -> None:
    result = probed(view, NAME, draws=20, folds=3)
    curve = learning_curve(view, ProbeOptions(head=NAME, draws=20, folds=3), sizes=[30, 60], repeats=1)
    assert [point.patients for point in curve.points] == [
        30,
        len(np.unique(view.patients[view.splits == "train"])),
    ]
    value = curve.points[-1].metrics["log_loss"].value
    assert value == result.evaluation.overall["log_loss"].value


def test_inputs_are_selected_by_the_loss_of_bags(view: View) -> None:
    result = probed(view, NAME, draws=2, folds=3, inputs=all_inputs(view))
    tried = {trial.inputs.pooling: trial.log_loss for trial in result.fitted.trials}
    assert list(tried) == ["mean-probability", "mean-vector", "max-vector"]
    y = view.y[view.splits == "train", 0]
    expected = min(log_loss(scores, y) for scores in bag_losses(view, result))
    assert tried["mean-probability"] == pytest.approx(expected, rel=1e-5)
    assert result.fitted.inputs.pooling == min(tried, key=lambda pooling: tried[pooling])


def test_a_grid_that_scores_rows_but_says_units_is_refused(view: View) -> None:
    class Confused(NoisyOrFamily):
        scores_units = False

    with pytest.raises(
        UsageError, match=r"must return \(points, rows, targets, columns\) .* found \(2, \d+, 1, 1\)"
    ):
        probed(view, NAME, draws=2, folds=3, family=Confused())
