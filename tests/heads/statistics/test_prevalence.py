"""Prevalence shift: Bayes by hand, EM against the truth, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.errors import UsageError
from heads.statistics.prevalence import (
    EM_UNITS,
    Prevalence,
    estimate_prevalence,
    prevalence_of,
    shift_prevalence,
)


def _place(n: int, prevalence: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of a head that learned at 50 %, at a place of another prevalence."""
    generator = np.random.default_rng(seed)
    y = (generator.random(n) < prevalence).astype(np.int64)
    # Scores N(-1, 1) and N(1, 1): the log odds at equal shares are twice the score.
    probability = 1 / (1 + np.exp(-2 * (2.0 * y - 1 + generator.normal(size=n))))
    return np.column_stack([1 - probability, probability]), y


def test_a_shift_is_bayes_by_hand() -> None:
    # Odds 0.8 / 0.2 = 4, learned odds 1, assumed odds 1 / 9: 4 / 9 -> 4 / 13.
    found = shift_prevalence(np.array([[0.2, 0.8]]), (0.5, 0.5), (0.9, 0.1))
    assert found[0] == pytest.approx([9 / 13, 4 / 13])


def test_a_shift_can_be_undone() -> None:
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    there = shift_prevalence(probabilities, (0.2, 0.3, 0.5), (0.6, 0.3, 0.1))
    assert shift_prevalence(there, (0.6, 0.3, 0.1), (0.2, 0.3, 0.5)) == pytest.approx(probabilities)
    assert there.sum(1) == pytest.approx(1)


@pytest.mark.parametrize("prevalence", [0.05, 0.3, 0.8])
def test_shifted_probabilities_are_calibrated_where_the_prevalence_is_another(prevalence: float) -> None:
    probabilities, y = _place(60_000, prevalence)
    shifted = shift_prevalence(probabilities, (0.5, 0.5), (1 - prevalence, prevalence))[:, 1]
    assert shifted.mean() == pytest.approx(prevalence, abs=0.01)
    sure = shifted > np.quantile(shifted, 0.8)
    assert y[sure].mean() == pytest.approx(shifted[sure].mean(), abs=0.015)


@pytest.mark.parametrize("prevalence", [0.05, 0.3, 0.8])
def test_em_finds_the_prevalence(prevalence: float) -> None:
    probabilities, y = _place(20_000, prevalence)
    found = estimate_prevalence(probabilities, (0.5, 0.5))
    assert found[1] == pytest.approx(y.mean(), abs=0.015)
    assert sum(found) == pytest.approx(1)


def test_em_finds_where_the_likelihood_is_largest() -> None:
    probabilities, _ = _place(300, 0.3)
    found = estimate_prevalence(probabilities, (0.5, 0.5))[1]
    grid = np.linspace(0.001, 0.999, 999)
    ratio = probabilities[:, 1] / 0.5, probabilities[:, 0] / 0.5
    likelihood = [np.log(share * ratio[0] + (1 - share) * ratio[1]).sum() for share in grid]
    assert found == pytest.approx(grid[int(np.argmax(likelihood))], abs=0.001)


def test_a_few_cases_have_no_prevalence() -> None:
    probabilities, _ = _place(EM_UNITS - 1, 0.3)
    with pytest.raises(UsageError, match="needs 50 or more units to estimate a prevalence; found 49"):
        prevalence_of("em", probabilities, (0.5, 0.5))


def test_without_a_wish_no_bit_is_changed() -> None:
    probabilities, _ = _place(100, 0.3)
    prevalence = prevalence_of(None, probabilities, (0.4, 0.6))
    assert prevalence.apply(probabilities) is probabilities
    assert prevalence.apply_to_threshold(0.3) == 0.3
    assert prevalence.source == "training"


def test_a_moved_threshold_decides_as_before() -> None:
    probabilities, _ = _place(500, 0.3)
    prevalence = prevalence_of("0.1", probabilities, (0.5, 0.5))
    moved = prevalence.apply(probabilities)[:, 1] >= prevalence.apply_to_threshold(0.42)
    assert (moved == (probabilities[:, 1] >= 0.42)).all()


def test_wishes_are_read() -> None:
    probabilities, _ = _place(100, 0.3)
    assert prevalence_of("0.25", probabilities, (0.5, 0.5)).assumed == (0.75, 0.25)
    three = prevalence_of("0.7,0.2,0.1", np.ones((1, 3)) / 3, (0.5, 0.3, 0.2))
    assert three.assumed == (0.7, 0.2, 0.1)
    stated = Prevalence((0.5, 0.5), (0.9, 0.1), "em", 60).to_json(("normal", "abnormal"))
    assert stated == {
        "source": "em",
        "assumed": {"normal": 0.9, "abnormal": 0.1},
        "training": {"normal": 0.5, "abnormal": 0.5},
        "units": 60,
    }


@pytest.mark.parametrize("wanted", ["5%", " 5 % ", "0.05", "95%,5%", "0.95,5%"])
def test_a_percentage_is_a_hundredth(wanted: str) -> None:
    found = prevalence_of(wanted, np.zeros((1, 2)), (0.5, 0.5))
    assert found.assumed == pytest.approx((0.95, 0.05), rel=1e-15)
    assert found.to_json(("no", "yes"))["training"] == {"no": 0.5, "yes": 0.5}
    assert "training" not in prevalence_of(None, np.zeros((1, 2)), (0.5, 0.5)).to_json(("no", "yes"))


@pytest.mark.parametrize("wanted", ["0", "1", "1.5", "half", "0.3,0.3,0.4", "nan", "", "5%5", "%", "100%"])
def test_a_prevalence_that_is_none_is_refused(wanted: str) -> None:
    with pytest.raises(UsageError, match="a number above 0 and below 1, or a percentage, or em; found"):
        prevalence_of(wanted, np.ones((1, 2)) / 2, (0.5, 0.5))


@pytest.mark.parametrize("wanted", ["0.3", "0.3,0.3,0.3", "0.5,0.5"])
def test_several_classes_want_one_share_each(wanted: str) -> None:
    with pytest.raises(UsageError, match="3 numbers that sum to 1, or em; found"):
        prevalence_of(wanted, np.ones((1, 3)) / 3, (0.4, 0.3, 0.3))
