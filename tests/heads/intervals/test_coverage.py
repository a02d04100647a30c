"""A small version of benchmarks/simulated_intervals.py: intervals hold a known truth, no difference is seldom found."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from tests.paths import PROJECT

SETS = 40


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    module = importlib.import_module("simulated_intervals")
    monkeypatch.setattr(module, "_MANY", 40_000)
    monkeypatch.setattr(module, "_DRAWS", 200)
    return module


def _means(simulated: ModuleType, name: str, *, sets: int = SETS) -> dict[str, float]:
    found = [simulated.SIMULATIONS[name](simulated.Size(80), seed) for seed in range(sets)]
    return {label: float(np.nanmean([of_set[label] for of_set in found])) for label in found[0]}


def test_intervals_of_metrics_and_paired_differences_hold_the_truth(simulated: ModuleType) -> None:
    """Of 40 intervals of 95 %, 34 or more hold it with a chance of 99 %."""
    found = _means(simulated, "intervals")
    assert len(found) == 10
    assert {label: share for label, share in found.items() if share < 0.84} == {}


def test_heads_that_do_not_differ_are_seldom_said_to(simulated: ModuleType) -> None:
    found = _means(simulated, "null differences")
    assert {label: share for label, share in found.items() if share > 0.16} == {}


def test_intervals_of_calibration_errors_hold_the_truth_and_tell_heads_apart(simulated: ModuleType) -> None:
    found = _means(simulated, "calibration errors")
    for head in ("perfect", "too extreme", "too low"):
        assert found[f"{head} head: interval of the ECE"] >= 0.84
        truth = found[f"{head} head: true error"]
        assert abs(found[f"{head} head: debiased"] - truth) < found[f"{head} head: ECE"] - truth
        assert found[f"{head} head: width"] < 0.2
    assert found["perfect head: of a perfect head"] == pytest.approx(found["perfect head: ECE"], rel=0.1)
    assert found["too low head: debiased"] > 2 * found["perfect head: debiased"]


def test_units_taken_for_patients_would_be_noticed(
    simulated: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each unit four times: as if units of a patient were patients of their own."""
    drawn = simulated.draw_units

    def copied(patients: int, seed: int) -> object:
        units = drawn(patients, seed)
        if patients == 40_000:
            return units
        four = [np.repeat(column, 4) for column in (units.y, units.probability, units.second)]
        return simulated.Patients(np.arange(len(four[0])).astype(str), *four)

    monkeypatch.setattr(simulated, "draw_units", copied)
    simulated.truths.cache_clear()
    found = _means(simulated, "intervals", sets=SETS // 2)
    assert max(found.values()) < 0.84
