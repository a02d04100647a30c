"""Count how often 95 % intervals hold a truth that is known: metrics, calibration errors, paired differences.

No head is fitted: scores are drawn with the probability that belongs to them, so that the truth can be computed. A
patient has one to four units whose scores and whose labels are alike, which is what the patient bootstrap is for.

Examples
--------
python benchmarks/simulated_intervals.py --size 60 --size 250 --sets 400
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtr

from heads.intervals.calibration_error import bin_probabilities
from heads.statistics.bootstrap import Estimate, draw_patients, paired_difference
from heads.statistics.evaluation import Scored, draw_metrics
from heads.statistics.metrics import METRICS, ece_bins

Floats = npt.NDArray[np.float64]
SIZES = (60, 250, 1000)
METRICS_OF_HEADS = ("auroc", "kappa", "accuracy", "log_loss", "brier")
_DRAWS = 1000
_MANY = 150_000  # patients of the sample that the truth is computed on; its error is a tenth of an interval or less
# Log odds that a head states, as a line of the true ones: perfect, too extreme, too low.
STATED = {"perfect": (1.0, 0.0), "too extreme": (2.0, 0.0), "too low": (1.0, -0.8)}


class Sized(Protocol):
    """What is asked of a case: the number of patients."""

    @property
    def size(self) -> int:
        """Patients."""


@dataclass(frozen=True)
class Patients:
    """Units of patients: (n,) patient, true class, its probability, and the probability that a second head states."""

    patients: npt.NDArray[np.str_]
    y: npt.NDArray[np.int64]
    probability: Floats
    second: Floats

    def scored(self, probability: Floats, *, draws: int = _DRAWS) -> Scored:
        """Return the units as if a head had stated this probability of the second class."""
        both = np.column_stack([1 - probability, probability])[:, None]
        return Scored(self.y[:, None], both, draw_patients(self.patients, draws=draws, seed=0))


def draw_units(patients: int, seed: int) -> Patients:
    """Draw patients whose probabilities are right.

    The latent finding is the score plus noise of the patient and of the unit, so ``P(y = 1 | score)`` is a normal
    distribution function and labels of a patient are alike beyond what the scores say. A second head sees the score
    through noise and states a logistic curve that is not quite right.
    """
    generator = np.random.default_rng(seed)
    of_unit = np.repeat(np.arange(patients), generator.integers(1, 5, patients))
    n = len(of_unit)
    score = 0.9 * generator.normal(size=patients)[of_unit] + 0.8 * generator.normal(size=n) - 0.6
    noise = 0.7 * generator.normal(size=patients)[of_unit] + 0.7 * generator.normal(size=n)
    seen = score + 0.6 * generator.normal(size=n)
    names = np.char.add("p", of_unit.astype(str))
    return Patients(
        names, (score + noise > 0).astype(np.int64), ndtr(score / np.sqrt(0.98)), expit(1.6 * seen)
    )


@functools.cache
def truths() -> dict[str, tuple[float, float]]:
    """Return the metrics of both heads over all patients there could be."""
    many = draw_units(_MANY, seed=1 << 30)
    found = {}
    for name in METRICS_OF_HEADS:
        values = []
        for probability in (many.probability, many.second):
            both = np.column_stack([1 - probability, probability])
            values.append(float(METRICS[name].values(many.y, both, both.argmax(1), None)[0]))
        found[name] = (values[0], values[1])
    return found


def metrics_and_differences(case: Sized, seed: int) -> dict[str, float]:
    """Return 1 where an interval holds the truth, of each metric and of its difference between the heads."""
    units = draw_units(case.size, seed)
    first, second = (
        draw_metrics(units.scored(p), METRICS_OF_HEADS) for p in (units.probability, units.second)
    )
    found = {}
    for name in METRICS_OF_HEADS:
        one, other = first[name], second[name]
        truth, of_second = truths()[name]
        found[name] = _holds(one.estimate(), truth)
        difference = paired_difference((one.value, other.value), (one.drawn, other.drawn), n=one.n)
        found[f"{name}, paired difference"] = _holds(difference.estimate, truth - of_second)
    return found


def null_differences(case: Sized, seed: int) -> dict[str, float]:
    """Return 1 where a paired difference of two equally good heads that see different noise has p <= 0.05."""
    units = draw_units(case.size, seed)
    generator = np.random.default_rng([seed, 1])
    noisy = [logit(units.probability) + 0.7 * generator.normal(size=len(units.y)) for _ in range(2)]
    first, second = (draw_metrics(units.scored(expit(odds)), METRICS_OF_HEADS) for odds in noisy)
    found = {}
    for name in METRICS_OF_HEADS:
        one, other = first[name], second[name]
        difference = paired_difference((one.value, other.value), (one.drawn, other.drawn), n=one.n)
        found[f"{name}, p <= 0.05 without a difference"] = float(difference.p_value <= 0.05)
    return found


def calibration_errors(case: Sized, seed: int) -> dict[str, float]:
    """Return, for heads of known calibration, 1 where the interval of the ECE holds the true error of its bins.

    Beside it the mean true error, the ECE, its debiased value, and what a perfect head would show.
    """
    units = draw_units(case.size, seed)
    found = {}
    for name, (slope, shift) in STATED.items():
        stated = expit(slope * logit(units.probability) + shift)
        entry = draw_metrics(units.scored(stated), ["ece"])["ece"].estimate()
        truth = true_error(units, stated)
        found[f"{name} head: interval of the ECE"] = _holds(entry, truth)
        found[f"{name} head: true error"] = truth
        found[f"{name} head: ECE"] = entry.value
        found[f"{name} head: debiased"] = entry.debiased
        found[f"{name} head: of a perfect head"] = entry.if_perfect
        found[f"{name} head: width"] = entry.high - entry.low
    return found


def true_error(units: Patients, stated: Floats) -> float:
    """Return the error of the bins that `stated` makes, with the true probabilities in place of labels."""
    bins = ece_bins(len(stated))
    both = np.column_stack([1 - stated, stated])
    # A label of 0 leaves the sum of the stated probabilities of each bin, from which the true ones are taken.
    none = np.zeros(len(stated), np.int64)
    of_stated = bin_probabilities(none, both, bins=bins)
    order = np.argsort(stated, kind="stable")
    place = np.repeat(np.arange(bins), of_stated.counts)
    of_truth = np.bincount(place, units.probability[order], minlength=bins) / len(stated)
    return float(np.abs(of_stated.deviations - of_truth).sum())


SIMULATIONS = {
    "intervals": metrics_and_differences,
    "null differences": null_differences,
    "calibration errors": calibration_errors,
}


@dataclass(frozen=True)
class Size:
    """A case of so many patients."""

    size: int


def main() -> None:
    """Run the simulations, print a line for each number, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", action="append", choices=SIMULATIONS, help="simulation; all by default")
    parser.add_argument("--size", action="append", type=int, help="patients")
    parser.add_argument("--sets", type=int, default=400, help="data sets of each size")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    kept = []
    for name in options.only or SIMULATIONS:
        for size in options.size or SIZES:
            started = time.perf_counter()
            drawn = [SIMULATIONS[name](Size(size), seed) for seed in range(options.sets)]
            print(f"{name}, {size:,} patients, {time.perf_counter() - started:.0f} s")
            for label in drawn[0]:
                values = np.array([of_set[label] for of_set in drawn])
                error = values.std(ddof=1) / np.sqrt(len(values))
                print(f"    {label:<52} {values.mean():.3f} ({error:.3f})", flush=True)
                kept.append({"size": size, "number": label, "mean": values.mean(), "standard error": error})
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")


def _holds(entry: Estimate, truth: float) -> float:
    """Return 1 or 0, and NaN where no interval is stated."""
    return float("nan") if np.isnan(entry.low) else float(entry.low <= truth <= entry.high)


if __name__ == "__main__":
    main()
