"""Metrics of any model's probabilities: what is no probability, patient or unit is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.errors import UsageError
from heads.statistics.measure import measure


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([0.2, np.nan], "finite and from 0 to 1; found nan in row 1"),
        ([0.2, np.inf], "finite and from 0 to 1; found -inf in row 1"),
        ([0.2, 1.4], "finite and from 0 to 1; found -0.4 in row 1, class 0"),
        ([[0.8, 0.2], [0.2, 0.7]], "must sum to 1; found 0.9 in row 1"),
        ([[0.8, 0.2], [0.2, 0.80001]], "must sum to 1; found 1.00001 in row 1"),
    ],
)
def test_what_is_no_probability_is_refused(probabilities: list, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measure([0, 1], probabilities, patients=["a", "b"])


def test_rows_that_sum_to_one_but_for_rounding_are_measured() -> None:
    found = measure(
        [0, 1], [[0.8, 0.2000005], [0.2, 0.8]], patients=["a", "b"], metrics=["accuracy"], draws=5
    )
    assert found["accuracy"].value == 1


@pytest.mark.parametrize("missing", [None, np.nan])
def test_missing_patients_are_refused_with_the_remedy(missing: object) -> None:
    with pytest.raises(UsageError, match=r"patients must .* in row 1: .* give each unit a name of its own"):
        measure([0, 1], [0.2, 0.8], patients=["a", missing])


def test_without_units_there_is_nothing_to_measure() -> None:
    with pytest.raises(UsageError, match="no units given"):
        measure([], [], patients=[])


def test_draws_are_a_whole_number() -> None:
    with pytest.raises(UsageError, match="draws must be a whole number; found '10'"):
        measure([0, 1], [0.2, 0.8], patients=["a", "b"], draws="10")
