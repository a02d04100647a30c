"""What a run warns of, on evaluated probabilities that are made to deserve it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from heads.protocol.predictions import Predictions
from heads.protocol.probe_result import ProbeResult
from heads.runs.run_warnings import CONSTANT, FEW, NEVER_SAID, SLOPE, warnings_in_words, warnings_of
from heads.statistics.evaluation import evaluate
from heads.statistics.metric_functions import kappa
from tests.views import make_view, probed


@pytest.fixture(scope="module")
def result() -> ProbeResult:
    return probed(make_view(patients=200, valid_share=0.5), draws=100)


def saying(
    result: ProbeResult,
    positive: np.ndarray,
    *,
    y: np.ndarray | None = None,
    youden: float = 0.2,
    patients: np.ndarray | None = None,
) -> ProbeResult:
    """Return the result as if the head had said these probabilities of the positive class."""
    changes = {"probabilities": np.stack([1 - positive, positive], axis=-1)[:, None]}
    changes |= {} if y is None else {"y": y[:, None]}
    changes |= {} if patients is None else {"patients": patients}
    evaluated: Predictions = replace(result.evaluated, **changes)
    found = evaluate(evaluated.scored(draws=100, seed=0))
    target = result.view.task.targets[0]
    return replace(
        result,
        evaluated=evaluated,
        evaluation=replace(result.evaluation, overall=found, by_target={target: found}),
        fitted=replace(result.fitted, thresholds=({"half": 0.5, "youden": youden},)),
    )


def kinds(result: ProbeResult) -> list[str]:
    return [entry["kind"] for entry in warnings_of(result)]


def of_kind(result: ProbeResult, kind: str) -> str:
    (text,) = [entry["text"] for entry in warnings_of(result) if entry["kind"] == kind]
    return str(text)


def truth(result: ProbeResult) -> np.ndarray:
    return np.asarray(result.evaluated.y[:, 0])


def noisy(result: ProbeResult, logits: float) -> np.ndarray:
    """Return probabilities that are right when `logits` is 1, and that many times too extreme."""
    generator = np.random.default_rng(0)
    # Of two normal classes one apart on either side of 0 with variance 1, the log odds of x are 2 x.
    x = np.where(truth(result) == 1, 1, -1) + generator.normal(size=len(truth(result)))
    return np.asarray(1 / (1 + np.exp(-2 * logits * x)))


def test_probabilities_on_the_scale_raise_no_warning(result: ProbeResult) -> None:
    assert kinds(saying(result, noisy(result, 1))) == []


def test_a_slope_that_excludes_1_is_said_with_its_direction(result: ProbeResult) -> None:
    extreme, dull = (of_kind(saying(result, noisy(result, logits)), SLOPE) for logits in (4, 0.25))
    assert extreme.startswith("calibration slope 0.")
    assert extreme.endswith("probabilities are too extreme")
    assert dull.endswith("probabilities are too near to the prevalence")


def test_a_slope_below_0_is_no_matter_of_being_too_extreme(result: ProbeResult) -> None:
    text = of_kind(saying(result, 1 - noisy(result, 1)), SLOPE)
    assert text.startswith("calibration slope -")
    assert text.endswith("probabilities are larger where the class is rarer, or say nothing of it")


def test_a_class_that_is_never_said_comes_with_the_threshold_that_says_it(result: ProbeResult) -> None:
    said = saying(result, 0.4 * noisy(result, 1), youden=0.2)
    text = of_kind(said, NEVER_SAID)
    y, decisions = truth(result), (said.evaluated.probabilities[:, 0, 1] >= 0.2).astype(int)
    value = float(kappa(y, decisions, n_classes=2)[0])
    assert f"no unit is called 'abnormal' ({(y == 1).sum()} of {len(y)} are), and kappa is 0" in text
    assert f"at 0.200 (youden, from out-of-fold probabilities) kappa is {value:.2f}" in text
    # The one warning says it all.
    assert CONSTANT not in kinds(said)


def test_equal_probabilities_are_said_to_hold_no_signal(result: ProbeResult) -> None:
    text = of_kind(saying(result, np.full(len(truth(result)), 0.4426)), NEVER_SAID)
    assert text.startswith("every unit has the same probability of 'abnormal', 0.443")


def test_where_no_rule_says_the_class_the_largest_probability_is_named(result: ProbeResult) -> None:
    positive = 0.4 * noisy(result, 1)
    text = of_kind(saying(result, positive, youden=0.9), NEVER_SAID)
    assert f"a threshold of {positive.max():.3f} or less would" in text


def test_a_negative_class_that_is_never_said_is_named_too(result: ProbeResult) -> None:
    positive = 0.6 + 0.3 * noisy(result, 1)
    text = of_kind(saying(result, positive, youden=0.01), NEVER_SAID)
    assert "no unit is called 'normal'" in text
    assert f"a threshold above {positive.min():.3f} would" in text


def test_a_kappa_that_cannot_vary_is_said(result: ProbeResult) -> None:
    said = saying(result, noisy(result, 1), patients=np.full(len(truth(result)), "the only one"))
    value = said.evaluation.overall["kappa"].value
    assert of_kind(said, CONSTANT) == (f"kappa is {value:.3f} whoever is drawn, so no interval can be stated")


def test_a_kappa_of_1_has_an_interval_and_needs_no_warning(result: ProbeResult) -> None:
    said = saying(result, np.where(truth(result) == 1, 0.9, 0.1))
    assert CONSTANT not in kinds(said)
    assert 0 < said.evaluation.overall["kappa"].low < said.evaluation.overall["kappa"].high == 1


@pytest.mark.parametrize(("patients", "expected"), [(9, True), (10, False)])
def test_few_patients_of_a_class_are_counted_as_patients(
    result: ProbeResult, patients: int, expected: bool
) -> None:
    n = len(truth(result))
    # Twenty abnormal units of so many patients.
    y = (np.arange(n) < 20).astype(np.int64)
    names = np.array([f"p{row % patients}" if row < 20 else f"q{row}" for row in range(n)])
    said = saying(result, noisy(result, 1), y=y, patients=names)
    assert (FEW in kinds(said)) == expected
    if expected:
        assert of_kind(said, FEW) == "intervals stand on fewer than 10 patients of a class: 9 of 'abnormal'"


def test_of_many_targets_three_are_written_out_and_the_others_named() -> None:
    warnings = [{"kind": SLOPE, "target": name, "text": f"slope of {name}"} for name in "abcde"]
    task = {"targets": list("abcde")}
    assert warnings_in_words({"task": task, "warnings": warnings}) == [
        "a: slope of a",
        "b: slope of b",
        "c: slope of c",
        "calibration slope, 2 more targets: d, e",
    ]
    one = {"task": {"targets": ["a"]}, "warnings": warnings[:1]}
    assert warnings_in_words(one) == ["slope of a"]


def test_a_third_class_that_is_never_the_likeliest_is_named_with_the_threshold_that_would() -> None:
    view = make_view(patients=150, classes=("mild", "moderate", "severe"), valid_share=0.5)
    result = probed(view, draws=20)
    probabilities = np.tile(np.array([0.5, 0.3, 0.2]), (len(result.evaluated.y), 1, 1))
    probabilities[0, 0] = [0.3, 0.45, 0.25]
    evaluated = replace(result.evaluated, probabilities=probabilities)
    found = evaluate(evaluated.scored(draws=20, seed=0))
    said = replace(
        result, evaluated=evaluated, evaluation=replace(result.evaluation, by_target={"finding": found})
    )
    text = of_kind(said, NEVER_SAID)
    severe = int((evaluated.y == 2).sum())
    own = "a threshold of its own of 0.250 or less would, its largest probability"
    assert f"'severe' ({severe} of {len(evaluated.y)} units have it; {own})" in text
    assert "'moderate'" not in text
