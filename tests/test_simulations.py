"""A small simulation of the protocol: final heads are as sure as they are right, and a broken calibrator shows."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

from heads.estimators.boosted import BoostedFamily
from heads.estimators.mlp import MlpFamily
from heads.protocol import fitting
from heads.reliability import drawn_together
from tests.paths import PROJECT

FAMILIES = {
    "xgboost": BoostedFamily(({"max_depth": 2, "learning_rate": 0.3, "rounds": 30, "patience": 5},)),
    "mlp": MlpFamily(({"hidden": (8,), "learning_rate": 0.02, "minimum_steps": 120},)),
}


@pytest.fixture(name="simulations")
def _simulations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import simulations

    return simulations


def mean_slope(simulations: ModuleType, head: str, *, sets: int = 3) -> float:
    """Return the mean calibration slope of final heads on fresh patients."""

    def slope(case: object, seed: int) -> dict[str, float]:
        learned, fresh = case.draw(seed)
        fitted = case.fit(learned, seed=seed)
        stated = fitted.predictor.probabilities(simulations.fresh_scores(fitted, fresh))
        return {"slope": float(simulations.calibration_slope(fresh.y[:, 0], stated[:, 0])[0])}

    case = simulations.Case(
        head=head,
        size=300,
        fresh=1500,
        family=FAMILIES[head],
        world=simulations.World(dim=16, traits=4, signal=2.0),
        prevalences=(0.5,),
        repeats=2,
    )
    simulation = simulations.Simulation(one_set=slope, cases=lambda heads, sizes: [case], sets=sets)
    return simulations.simulate(simulation, case, sets=sets)["slope"].mean


@pytest.mark.parametrize("head", FAMILIES)
def test_the_head_that_answers_is_as_sure_as_it_is_right(simulations: ModuleType, head: str) -> None:
    assert 0.75 < mean_slope(simulations, head) < 1.3


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_calibrator_of_other_scores_shows(
    simulations: ModuleType, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    def broken(scores: npt.NDArray[np.float64], ratio: float) -> npt.NDArray[np.float64]:
        return drawn_together(scores, ratio) * factor

    monkeypatch.setattr(fitting, "drawn_together", broken)
    slope = mean_slope(simulations, "xgboost")
    assert slope == pytest.approx(factor, rel=0.35)
    assert not 0.75 < slope < 1.3


def test_a_mean_leaves_out_what_is_undefined(simulations: ModuleType) -> None:
    values = iter([1.0, float("nan"), 3.0])
    one_set: Callable[..., dict[str, float]] = lambda case, seed: {"slope": next(values)}  # noqa: E731
    simulation = simulations.Simulation(one_set=one_set, cases=lambda heads, sizes: [], sets=3)
    found = simulations.simulate(simulation, simulations.Case(head="knn", size=10), sets=3)["slope"]
    # Of 1 and 3: mean 2, and a standard error of sqrt(2) / sqrt(2).
    assert (found.mean, found.error, found.sets) == (2.0, pytest.approx(1.0), 2)


def test_a_world_has_the_prevalence_and_the_patients_that_it_says(simulations: ModuleType) -> None:
    world = simulations.World(dim=8, traits=3, prevalence=0.2, curved=0.5)
    images = world.draw(6000, seed=1)
    assert images.y.mean() == pytest.approx(0.2, abs=0.03)
    studies = np.bincount(images.groups)
    assert set(studies.tolist()) == {1, 2}
    assert set(np.bincount(images.unit_of_row).tolist()) == {1, 2, 3}
    assert len(images.X) == pytest.approx(6000, rel=0.05)
    # Of one seed the same images, of another others of the same world.
    assert world.draw(600, seed=1).X.tobytes() == world.draw(600, seed=1).X.tobytes()
    assert world.draw(600, seed=2).X.tobytes() != world.draw(600, seed=1).X.tobytes()
