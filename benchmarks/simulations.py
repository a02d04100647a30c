"""Simulate what one data set cannot tell: whether probabilities, sets and intervals keep their promise on the mean.

Each simulation draws many collections of images (`simulated_images`), runs the protocol on each, and counts on fresh
patients. A new one is a function from a `Case` and a seed to named numbers, and a row in `SIMULATIONS`.

Examples
--------
python benchmarks/simulations.py --only slope --head mlp --size 60 --size 250 --sets 40
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from simulated_blends import JOINS, blend_of_final_heads
from simulated_images import TASK, World
from simulated_intervals import SIMULATIONS as OF_INTERVALS
from simulated_sets import null_labels, sets_of_final_heads

from heads.base import HeadFamily
from heads.inputs.input_ways import HeadInputs
from heads.inputs.unit_images import UnitImages
from heads.protocol.fitting import AskedFinal, Fitted, fit
from heads.registry import head_family
from heads.statistics.calibration import Calibrator, fit_calibrator
from heads.statistics.metric_functions import auroc, calibration_slope, log_loss

Floats = npt.NDArray[np.float64]
PREVALENCES = (0.1, 0.3, 0.5)
SIZES = (60, 250, 1000, 5000)
HEADS = ("logistic", "knn", "xgboost", "mlp", "attention")
FOLDS = 5
_IMAGES_OF_STUDY = 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """One cell of a table.

    Parameters
    ----------
    head
        Name of an installed head.
    size
        Studies to learn from, about.
    fresh
        Studies of new patients, about.
    family
        A grid in place of the head's own.
    world
        What the collections are like; each data set has another mixture, and takes its prevalence in turn where
        `prevalences` has any.
    prevalences
        Shares of studies with the finding.
    repeats
        Partitions of an ensemble; the usual number by default.
    """

    head: str
    size: int
    fresh: int = 4000
    family: HeadFamily | None = None
    world: World = field(default_factory=World)
    prevalences: Sequence[float] = PREVALENCES
    repeats: int | None = None

    def draw(self, seed: int) -> tuple[UnitImages, UnitImages]:
        """Return the images of a data set to learn from, and those of fresh patients of the same world."""
        prevalence = (
            self.prevalences[seed % len(self.prevalences)] if self.prevalences else self.world.prevalence
        )
        # Twenty positive studies on the mean, so that hardly a data set has fewer positive patients than folds.
        prevalence = max(prevalence, min(0.5, 20 / self.size))
        world = World(**{**vars(self.world), "prevalence": prevalence, "seed": seed})
        return (
            world.draw(_IMAGES_OF_STUDY * self.size, seed=1),
            world.draw(_IMAGES_OF_STUDY * self.fresh, seed=2),
        )

    def fit(self, images: UnitImages, *, seed: int, final: AskedFinal = "auto") -> Fitted:
        """Run the protocol's selection, calibration and fit."""
        return fit(
            images,
            head_family(self.head) if self.family is None else self.family,
            TASK,
            inputs=[HeadInputs("mean-probability", ())],
            folds=FOLDS,
            class_weights="none",
            seed=seed,
            final=final,
            repeats=None if final == "refit" else self.repeats,
        )


def fresh_scores(fitted: Fitted, images: UnitImages) -> Floats:
    """Return (n_units, targets, columns) scores of the final heads."""
    return fitted.predictor.scores(images.X, images.unit_of_row, n_units=images.n_units)


def slope_of_final_heads(case: Case, seed: int) -> dict[str, float]:
    """Return what final heads are worth on fresh patients: calibration slope, AUROC and log loss.

    Of a head whose final is an ensemble also those of its refit, their paired differences, and the slope that it would
    have had without `heads.reliability`.
    """
    learned, fresh = case.draw(seed)
    y = fresh.y[:, 0]
    fitted = case.fit(learned, seed=seed)
    scores = fresh_scores(fitted, fresh)
    found = _worth(y, fitted.predictor.probabilities(scores)[:, 0], "")
    if fitted.ensemble is None:
        return found
    refitted = case.fit(learned, seed=seed, final="refit")
    of_refit = refitted.predictor.probabilities(fresh_scores(refitted, fresh))[:, 0]
    found |= _worth(y, of_refit, "refit: ")
    found["uncorrected: slope"] = float(calibration_slope(y, uncorrected(fitted, learned)(scores[:, 0]))[0])
    found["reliability"] = fitted.ensemble.reliability[0]
    for name in ("AUROC", "log loss"):
        found[f"{name}, difference"] = found[name] - found[f"refit: {name}"]
    return found


def uncorrected(fitted: Fitted, learned: UnitImages) -> Calibrator:
    """Return the calibrator of the same kind that an ensemble's out-of-fold scores would give as they are."""
    scores = fitted.out_of_fold_scores[:, 0]
    center = scores.mean(axis=0)
    assert fitted.ensemble is not None
    wide = center + (scores - center) / fitted.ensemble.reliability[0]
    return fit_calibrator(fitted.calibrations[0].calibrator.kind, wide, learned.y[:, 0])


def _worth(y: npt.NDArray[np.int64], probabilities: Floats, prefix: str) -> dict[str, float]:
    return {
        f"{prefix}slope": float(calibration_slope(y, probabilities)[0]),
        f"{prefix}AUROC": float(auroc(y, probabilities)[0]),
        f"{prefix}log loss": float(log_loss(y, probabilities)[0]),
    }


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """One question.

    Parameters
    ----------
    one_set
        Draws a data set by its seed and returns what is counted on it, NaN where it is undefined.
    cases
        The cells of its table, for heads and sizes that are asked for.
    sets
        Data sets of each cell by default.
    """

    one_set: Callable[[Case, int], Mapping[str, float]]
    cases: Callable[[Sequence[str], Sequence[int]], Sequence[Case]]
    sets: int


def every_head_and_size(heads: Sequence[str], sizes: Sequence[int]) -> list[Case]:
    """Return a case of each head at each size."""
    return [Case(head=head, size=size) for head in heads for size in sizes]


def one_blend_of_each_size(heads: Sequence[str], sizes: Sequence[int]) -> list[Case]:
    """Return a case of the blend of all heads at each size."""
    return [Case(head=JOINS.join(heads), size=size) for size in sizes]


def without_signal(heads: Sequence[str], sizes: Sequence[int]) -> list[Case]:
    """Return a case of each head at each size, where labels have nothing to do with the images."""
    return [replace(case, world=World(signal=0.0)) for case in every_head_and_size(heads, sizes)]


def every_size(heads: Sequence[str], sizes: Sequence[int]) -> list[Case]:
    """Return a case of each number of patients, of no head: scores are drawn."""
    del heads
    return [Case(head="none", size=size) for size in sizes]


SIMULATIONS = {
    "slope": Simulation(one_set=slope_of_final_heads, cases=every_head_and_size, sets=40),
    "blend": Simulation(one_set=blend_of_final_heads, cases=one_blend_of_each_size, sets=40),
    "sets": Simulation(one_set=sets_of_final_heads, cases=every_head_and_size, sets=40),
    "null labels": Simulation(one_set=null_labels, cases=without_signal, sets=40),
} | {name: Simulation(one_set=one_set, cases=every_size, sets=400) for name, one_set in OF_INTERVALS.items()}


@dataclass(frozen=True)
class Summary:
    """The mean of a number over data sets, its standard error, and of how many it is."""

    mean: float
    error: float
    sets: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.error:.3f})"


def simulate(simulation: Simulation, case: Case, *, sets: int, first_seed: int = 0) -> dict[str, Summary]:
    """Run one cell: name -> mean over its data sets, those left out where the number is undefined."""
    found = [simulation.one_set(case, first_seed + index) for index in range(sets)]
    summaries = {}
    for name in found[0]:
        values = np.array([of_set[name] for of_set in found])
        values = values[np.isfinite(values)]
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        summaries[name] = Summary(float(values.mean()) if len(values) else np.nan, float(error), len(values))
    return summaries


def main() -> None:
    """Run the simulations that are asked for, print a line for each number, and keep them."""
    options = _options()
    kept = []
    for name in options.only or SIMULATIONS:
        simulation = SIMULATIONS[name]
        for case in simulation.cases(options.head or HEADS, options.size or SIZES):
            started = time.perf_counter()
            sets = options.sets or simulation.sets
            found = simulate(simulation, case, sets=sets, first_seed=options.seed)
            print(f"{name}, {case.head}, {case.size:,} studies, {time.perf_counter() - started:.0f} s")
            for label, summary in found.items():
                print(f"    {label:<52} {summary}", flush=True)
            kept.append(
                {"simulation": name, "head": case.head, "size": case.size, "sets": sets}
                | {"numbers": {label: vars(summary) for label, summary in found.items()}}
            )
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", action="append", choices=SIMULATIONS, help="simulation; all by default")
    parser.add_argument("--head", action="append", help="head; all that learn by default")
    parser.add_argument("--size", action="append", type=int, help="studies to learn from")
    parser.add_argument("--sets", type=int, help="data sets of each cell")
    parser.add_argument("--seed", type=int, default=0, help="of the first data set")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
