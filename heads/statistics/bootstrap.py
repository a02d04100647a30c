"""Intervals from redrawing whole patients, on the same draws for every metric, head and subgroup.

Images of one patient are alike, so redrawing images would state intervals that are too narrow; the patient
is the unit that was sampled from the world (cluster bootstrap; Field & Welsh 2007, JRSS B 69:369).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.brief import Brief
from embedstore.errors import UsageError
from heads.intervals.rule_of_three import rule_of_three

DRAWS = 2000
LEVEL = 0.95
# Below this share of draws in which a metric exists, an interval would describe the lucky draws only.
_DEFINED_SHARE = 0.5
# Draws that differ by no more than rounding.
_ALIKE = 1e-12
# 2**17 float32 cells stay in a core's cache while a block of draws is worked on.
_BLOCK_CELLS = 1 << 17


@dataclass(frozen=True)
class Draws:
    """Bootstrap draws of patients, as counts.

    Parameters
    ----------
    counts
        (draws, n_patients) float32: how often each patient was drawn.
    patient_of_unit
        (n_units,) int64: column of `counts` for each unit.
    """

    counts: npt.NDArray[np.float32]
    patient_of_unit: npt.NDArray[np.int64]

    def weights(self, units: npt.NDArray[Any] | None = None) -> npt.NDArray[np.float32]:
        """Return how often each unit was drawn, (draws, n) float32 in C order.

        Parameters
        ----------
        units
            Rows or mask of the wanted units; all by default.
        """
        patients = self.patient_of_unit if units is None else self.patient_of_unit[units]
        # `np.take` along rows is five times faster than indexing with an array, and keeps C order.
        return np.take(self.counts, patients, axis=1)


@dataclass(frozen=True, repr=False)
class Estimate(Brief):
    """A number with its 95 % interval.

    Parameters
    ----------
    value
        On all units; NaN where the metric does not exist on them.
    low, high
        Ends of the percentile interval, or as `patients` and `debiased` say; NaN where the metric exists in fewer than
        half of the draws, or both ends agree.
    n
        Units it was computed on.
    undefined_draws
        Draws in which the metric did not exist (one class only, for instance).
    patients
        Patients that the interval of a rate of 0 or 1 stands on (`heads.intervals.rule_of_three`); 0 for the others.
    debiased, if_perfect
        Of a calibration error: without the bias of its bins, and what a perfectly calibrated head would show on these
        units (`heads.intervals.calibration_error`); NaN for all else.
    """

    value: float
    low: float
    high: float
    n: int
    undefined_draws: int = 0
    patients: int = 0
    debiased: float = np.nan
    if_perfect: float = np.nan

    def to_json(self) -> dict[str, float | int | None]:
        """Return plain JSON values; NaN becomes null."""
        numbers: dict[str, float | int | None] = {
            name: None if np.isnan(number) else float(number)
            for name, number in (("value", self.value), ("low", self.low), ("high", self.high))
        }
        numbers["n"] = self.n
        if self.undefined_draws:
            numbers["undefined_draws"] = self.undefined_draws
        if self.patients:
            numbers["rule_of_three_patients"] = self.patients
        if np.isfinite(self.debiased):
            numbers |= {"debiased": float(self.debiased), "if_perfect": float(self.if_perfect)}
        return numbers

    def _facts(self) -> dict[str, Any]:
        return {
            "value": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "n": self.n,
        }


@dataclass(frozen=True)
class Difference:
    """A paired difference with its interval and two-sided bootstrap p-value.

    Parameters
    ----------
    estimate
        The difference.
    p_value
        As `paired_difference` says.
    smallest_p
        The smallest that these draws can state: with none on one side of zero.
    """

    estimate: Estimate
    p_value: float
    smallest_p: float


def draw_patients(patients: npt.NDArray[np.str_], *, draws: int = DRAWS, seed: int) -> Draws:
    """Draw patients with replacement, as many as there are.

    Parameters
    ----------
    patients
        (n_units,) str: the patient of each unit.
    draws
        Number of draws.
    seed
        Same seed and same patients: same draws, whatever the order of the units.

    Raises
    ------
    UsageError
        If there is no unit or no draw.
    """
    if len(patients) == 0 or draws < 1:
        raise UsageError(f"a bootstrap needs units and draws; found {len(patients)} units and draws={draws}")
    names, patient_of_unit = np.unique(patients, return_inverse=True)
    generator = np.random.default_rng(seed)
    counts = np.empty((draws, len(names)), np.float32)
    for row in counts:
        drawn = generator.integers(0, len(names), len(names), dtype=np.int32)
        row[:] = np.bincount(drawn, minlength=len(names))
    return Draws(counts, patient_of_unit.astype(np.int64))


def estimate(
    value: float,
    drawn: npt.NDArray[np.float64],
    *,
    n: int,
    level: float = LEVEL,
    patients: int = 0,
    fall: float = 1.0,
) -> Estimate:
    """Return `value` with the percentile interval of its draws.

    Parameters
    ----------
    value
        The metric on all units.
    drawn
        (draws,) the metric in each draw, NaN where undefined.
    n
        Units it was computed on.
    level
        Coverage that the interval aims at.
    patients
        Patients that a rate stands on: one of 0 or 1, which all draws agree on, has the interval of so many.
    fall
        How many times further from its end a metric falls than that rate.
    """
    defined = drawn[np.isfinite(drawn)]
    undefined = len(drawn) - len(defined)
    alike = np.abs(defined - value).max(initial=0) <= _ALIKE
    if patients and alike and min(abs(value), abs(value - 1)) <= _ALIKE:
        low, high = rule_of_three(value, patients, level=level)
        low, high = (max(1 - fall * (1 - low), -1.0), high) if value > 0.5 else (low, high)
        return Estimate(float(value), low, high, n, undefined, patients=patients)
    # Nor is there an interval around nothing, as that of a slope that only the draws have.
    if len(defined) < _DEFINED_SHARE * len(drawn) or not np.isfinite(value):
        return Estimate(float(value), np.nan, np.nan, n, undefined)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    if high - low <= _ALIKE:
        low = high = np.nan
    return Estimate(float(value), float(low), float(high), n, undefined)


def paired_difference(
    values: tuple[float, float], drawn: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], *, n: int
) -> Difference:
    """Compare two score sets on the same draws: first minus second.

    Parameters
    ----------
    values
        The metric of both on all units.
    drawn
        (draws,) each: the metric of both in the same draws.
    n
        Units that both were computed on.

    Returns
    -------
    Difference
        The p-value is twice the smaller share of draws on either side of zero, each share with one draw
        added so that it is never 0 (Davison & Hinkley 1997, 4.2), and 1 at most.
    """
    difference = drawn[0] - drawn[1]
    defined = difference[np.isfinite(difference)]
    tails = [(1 + np.sum(side)) / (1 + len(defined)) for side in (defined <= 0, defined >= 0)]
    found = estimate(values[0] - values[1], difference, n=n)
    if len(defined) and max(abs(found.value), np.abs(defined).max()) <= _ALIKE:
        # Heads that say the same everywhere do not differ, whoever is drawn.
        found = replace(found, low=0.0, high=0.0)
    return Difference(found, float(min(1.0, 2 * min(tails))), min(1.0, 2 / (1 + len(defined))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the order given.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return corrected


def estimates_to_json(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | int | None]]:
    """Return named estimates as plain JSON values."""
    return {name: entry.to_json() for name, entry in estimates.items()}


def blocks(weights: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield the rows of (draws, n) weights in blocks that stay in a core's cache."""
    step = max(1, _BLOCK_CELLS // max(weights.shape[1], 1))
    for start in range(0, len(weights), step):
        yield weights[start : start + step]


def weighted_sums(columns: npt.NDArray[Any], weights: npt.NDArray[Any] | None) -> npt.NDArray[np.float64]:
    """Sum (n, m) columns under each row of (draws, n) weights, or once without: (draws, m)."""
    if weights is None:
        return np.asarray(columns.sum(0, dtype=np.float64)[None])
    if weights.ndim != 2 or weights.shape[1] != len(columns):
        raise UsageError(f"weights must have shape (draws, {len(columns)}); found {weights.shape}")
    # Whole counts below 2**24 times 0 or 1 are exact in float32; anything else is summed in float64.
    if columns.dtype == np.float32:
        return np.asarray(weights.astype(np.float32, copy=False) @ columns, np.float64)
    parts = [np.asarray(block.astype(np.float64) @ columns, np.float64) for block in blocks(weights)]
    return np.concatenate(parts)


def weighted_mean(
    values: npt.NDArray[np.float64], weights: npt.NDArray[Any] | None
) -> npt.NDArray[np.float64]:
    """Return the mean of (n,) values under each row of weights: (draws,), NaN where nothing was drawn."""
    sums = weighted_sums(np.column_stack([values, np.ones(len(values))]), weights)
    return ratio(sums[:, 0], sums[:, 1])


def ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Divide, with NaN where the denominator is not positive."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
