"""The competition's score against the competition's own code, scikit-learn on resampled studies, and the calculus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from embedstore.errors import UsageError
from embedstore.lumbar.levels import CLASS_WEIGHTS, CLASSES, LEVELS, TARGETS
from heads.lumbar.rsna_score import (
    AS_GIVEN,
    PARTS,
    RUN_SCORES,
    SCORE,
    draw_rsna_score,
    draw_run_score,
    for_rsna_score,
    from_rsna_score,
    is_of_the_competition,
    rsna_score,
)
from heads.statistics.bootstrap import Draws, draw_patients
from heads.statistics.evaluation import Scored
from tests.heads.lumbar.golden import SCORED, golden

STUDIES, Y, SAID = golden()


def test_it_is_the_competitions_score_as_given_and_after_the_correction() -> None:
    for name, said in (("as_given", SAID), ("after_times_1_2_4_and_renormalise", for_rsna_score(SAID))):
        found = rsna_score(Y, said, draws=2)
        assert found.keys() == {SCORE, *PARTS}
        for part in PARTS:
            assert found[part].value == pytest.approx(SCORED[name][part], abs=1e-9), (name, part)
        assert found[SCORE].value == pytest.approx(SCORED[name]["score"], abs=1e-9)
        assert found[SCORE].n == SCORED["scored_rows"]


def test_the_order_of_studies_and_targets_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    rows, columns = generator.permutation(len(STUDIES)), generator.permutation(len(TARGETS))
    mixed = rsna_score(
        Y[rows][:, columns], SAID[rows][:, columns], targets=[TARGETS[at] for at in columns], draws=2
    )
    for name, entry in rsna_score(Y, SAID, draws=2).items():
        assert mixed[name].value == pytest.approx(entry.value, abs=1e-12)


def by_scikit_learn(studies: np.ndarray) -> float:
    """Return the score of some studies, each as often as it stands there, as the competition computes it."""
    losses = []
    for condition in ("spinal", "foraminal", "subarticular"):
        columns = [at for at, target in enumerate(TARGETS) if condition in target]
        y, said = Y[studies][:, columns].ravel(), SAID[studies][:, columns].reshape(-1, 3)
        known = y >= 0
        weights = np.array(CLASS_WEIGHTS)[y[known]]
        losses.append(log_loss(y[known], said[known], sample_weight=weights, labels=[0, 1, 2]))
    rows = []
    for study in studies:
        known = np.flatnonzero(Y[study, : len(LEVELS)] >= 0)
        if len(known):
            worst = Y[study, known].max()
            rows.append((worst == 2, SAID[study, known, 2].max(), CLASS_WEIGHTS[worst]))
    truth, severe, weights = map(np.array, zip(*rows, strict=True))
    losses.append(log_loss(truth, severe, sample_weight=weights, labels=[False, True]))
    return float(np.mean(losses))


@pytest.mark.filterwarnings("ignore:The y_pred values do not sum to one")
def test_each_draw_is_the_score_of_its_resampled_studies() -> None:
    draws = draw_patients(np.array(STUDIES), draws=10, seed=4)
    drawn = draw_rsna_score(Y, SAID, draws)[SCORE].drawn
    for found, counts in zip(drawn, draws.counts[:, draws.patient_of_unit], strict=True):
        assert found == pytest.approx(
            by_scikit_learn(np.repeat(np.arange(len(Y)), counts.astype(int))), abs=1e-9
        )


def test_whole_patients_are_drawn() -> None:
    pairs = [f"patient{at // 2}" for at in range(len(Y))]
    by_study, by_patient = (rsna_score(Y, SAID, patients=who, draws=300) for who in (None, pairs))
    assert by_patient[SCORE].value == by_study[SCORE].value
    assert by_patient[SCORE].low != by_study[SCORE].low
    assert by_study[SCORE].low < by_study[SCORE].value < by_study[SCORE].high


def test_unlabelled_cells_have_no_part_whatever_was_said_of_them() -> None:
    said = SAID.copy()
    said[Y == -1] = np.nan
    assert rsna_score(Y, said, draws=2)[SCORE].value == rsna_score(Y, SAID, draws=2)[SCORE].value
    nothing = rsna_score(np.full_like(Y, -1), SAID, draws=2)
    assert all(np.isnan(entry.value) and entry.n == 0 for entry in nothing.values())


def test_a_study_without_a_labelled_level_is_not_one_without_severe_stenosis() -> None:
    y = Y.copy()
    y[0, : len(LEVELS)] = -1
    with_it, without = rsna_score(y, SAID, draws=2), rsna_score(y[1:], SAID[1:], draws=2)
    assert with_it["any_severe_spinal"].value == without["any_severe_spinal"].value


def test_a_certain_error_costs_what_scikit_learn_says() -> None:
    y, said = np.zeros((1, 25), int), np.zeros((1, 25, 3))
    said[..., 2] = 1.0
    expected = log_loss([0], [[0.0, 0.0, 1.0]], labels=[0, 1, 2])
    assert rsna_score(y, said, draws=2)["spinal"].value == pytest.approx(expected, rel=1e-12)


# Probabilities of the three classes, none impossible.
DISTRIBUTIONS = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda p: np.array(p) / sum(p))


@settings(max_examples=60, deadline=None)
@given(truth=DISTRIBUTIONS, other=DISTRIBUTIONS)
def test_no_answer_has_a_better_expected_score_than_calibrated_probabilities_times_weights(
    truth, other
) -> None:
    """Three studies, one of each class, as often as the class is likely: the weighted mean is the expectation."""
    y = np.repeat(np.arange(3)[:, None], len(TARGETS), axis=1)
    expectation = Draws(truth[None], np.arange(3))

    def expected(said: np.ndarray) -> np.ndarray:
        of_all = draw_rsna_score(y, np.tile(said, (3, len(TARGETS), 1)), expectation)
        return np.array([of_all[part].drawn[0] for part in PARTS[:3]])

    best = expected(for_rsna_score(truth))
    assert (best <= expected(truth) + 1e-9).all()
    assert (best <= expected(other) + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(DISTRIBUTIONS)
def test_the_correction_is_undone_by_its_inverse(probabilities) -> None:
    corrected = for_rsna_score(probabilities)
    by_hand = probabilities * [1, 2, 4]
    assert corrected == pytest.approx(by_hand / by_hand.sum(), abs=1e-12)
    assert from_rsna_score(corrected) == pytest.approx(probabilities, abs=1e-12)


def test_runs_have_both_scores_of_their_probabilities() -> None:
    found = draw_run_score(Scored(Y, SAID, draw_patients(np.array(STUDIES), draws=3, seed=0)), TARGETS)
    assert tuple(found) == RUN_SCORES
    for part in PARTS:
        expected = SCORED["after_times_1_2_4_and_renormalise"][part]
        assert found[f"rsna_{part}"].value == pytest.approx(expected, abs=1e-9)
    assert found[AS_GIVEN].value == pytest.approx(SCORED["as_given"]["score"], abs=1e-9)
    assert found[SCORE].value == pytest.approx(SCORED["after_times_1_2_4_and_renormalise"]["score"], abs=1e-9)


def test_only_the_competitions_targets_and_classes_are_scored() -> None:
    assert is_of_the_competition(TARGETS[::-1], CLASSES)
    assert not is_of_the_competition(TARGETS[1:], CLASSES)
    assert not is_of_the_competition(TARGETS, CLASSES[::-1])
    with pytest.raises(UsageError, match="found 24, no 'spinal_canal_stenosis_l1_l2'"):
        rsna_score(Y[:, 1:], SAID[:, 1:], targets=TARGETS[1:])
    with pytest.raises(UsageError, match="25, each once; found 26, 'l6', which is none"):
        rsna_score(np.zeros((2, 26), int), np.tile([1.0, 0, 0], (2, 26, 1)), targets=[*TARGETS, "l6"])


@pytest.mark.parametrize(
    ("y", "said", "message"),
    [
        (Y[:1, 0], SAID[:1], r"found shapes \(1,\) and \(1, 25, 3\)"),
        (Y[:1], SAID[:1, :, :2], r"found shapes \(1, 25\) and \(1, 25, 2\)"),
        (np.full((1, 25), 3), SAID[:1], r"y must hold 0, 1, 2 and -1 for no label; found \[3\]"),
        (np.zeros((1, 25), int), SAID[:1] * 2, "must hold 3 probabilities that sum to 1"),
        (np.zeros((1, 25), int), np.full((1, 25, 3), np.nan), "must hold 3 probabilities that sum to 1"),
        (np.zeros((1, 25), int), np.tile([1.5, -0.5, 0.0], (1, 25, 1)), "must hold 3 probabilities"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(y, said, message) -> None:
    with pytest.raises(UsageError, match=message):
        rsna_score(y, said)


def test_patients_are_one_for_each_study() -> None:
    with pytest.raises(UsageError, match="patient of each of 80 studies; found 2"):
        rsna_score(Y, SAID, patients=["a", "b"])
