"""What a binned calibration error (ECE) says of the true one: without its bias, and between which limits.

The absolute deviations of bins add up, so noise makes an ECE larger and never smaller: a perfectly calibrated
head shows one above 0 (Bröcker 2012, doi 10.1007/s00382-011-1191-1; Kumar, Liang & Ma 2019, arXiv 1909.10155;
Roelofs et al. 2022, arXiv 2012.08668), and percentiles of draws, which have that noise twice, exclude the truth.
Here the signed deviation of each bin is drawn, by patient, which gives the noise of all bins with its correlations.
A true error of size c with a given pattern over the bins would show ``sum |c pattern + noise|``; the interval holds
every c for which the observed error is neither among the smallest nor among the largest of these (inversion of a
test). Its coverage is simulated (``benchmarks/simulations.py``; the table stands in ``docs/protocols.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# A calibration error is 1 at most; halved so often, the range of it is below a reported digit.
_HALVINGS = 15
_PERFECT_DRAWS = 1000


@dataclass(frozen=True)
class Bins:
    """Bins of one or several probabilities, (m,) each; their calibration error is the sum of ``|deviations|``.

    Parameters
    ----------
    deviations
        Stated less observed events of each bin, over all units: shares of the error, with their sign.
    independent
        Variance that draws of independent units would give `deviations`.
    variances
        Variance that `deviations` would have if each probability were right and units were independent.
    counts, means
        Units of each bin, int64, and their mean probability.
    scales
        What one unit's residual counts.
    signs
        1 or -1: whether the probability that a bin belongs to is too large on the whole or too small.
    """

    deviations: Floats
    independent: Floats
    variances: Floats
    counts: npt.NDArray[np.int64]
    means: Floats
    scales: Floats
    signs: Floats

    def shrink(self, parts: int) -> Bins:
        """Return the bins as one of so many equal parts of a mean."""
        return Bins(
            self.deviations / parts,
            self.independent / parts**2,
            self.variances / parts**2,
            self.counts,
            self.means,
            self.scales / parts,
            self.signs,
        )


class CalibrationError(NamedTuple):
    """A calibration error without its bias, what a perfect head would show, and the limits; NaN where unknown."""

    debiased: float
    if_perfect: float
    low: float
    high: float


def equal_mass_bins(values: Floats, bins: int) -> npt.NDArray[np.int64]:
    """Return the bin of each value, (n,) from 0; equal values share a bin and bins hold about n / bins."""
    order = np.argsort(values, kind="stable")
    position = np.empty(len(values), np.int64)
    position[order] = np.arange(len(values))
    _, first, inverse = np.unique(values[order], return_index=True, return_inverse=True)
    # A group of ties goes where its first member falls.
    start = np.empty(len(values), np.int64)
    start[order] = first[inverse]
    return np.asarray(start * bins // max(len(values), 1), np.int64)


def reliability_points(
    probability: Floats, truth: npt.NDArray[np.bool_], *, bins: int
) -> list[tuple[float, float, int]]:
    """Return, for each bin of equal mass that holds something, mean probability, observed share and count.

    Parameters
    ----------
    probability
        (n,) stated.
    truth
        (n,) bool.
    bins
        Number of bins.
    """
    of_bin = equal_mass_bins(probability, bins)
    used, counts = np.unique(of_bin, return_counts=True)
    return [
        (float(probability[of_bin == index].mean()), float(truth[of_bin == index].mean()), int(count))
        for index, count in zip(used, counts, strict=True)
    ]


def bin_probabilities(y: npt.NDArray[np.int64], probabilities: Floats, *, bins: int) -> Bins:
    """Return the bins of the second of two classes' probability, or those of each of several, of which it is the mean.

    Parameters
    ----------
    y
        (n,) int64, true class.
    probabilities
        (n, n_classes).
    bins
        Number of bins of each probability.
    """
    n_classes = probabilities.shape[1]
    classes = [1] if n_classes == 2 else range(n_classes)
    return join_bins([_bin_one(y == k, probabilities[:, k], bins) for k in classes])


def join_bins(parts: Sequence[Bins]) -> Bins:
    """Return the bins of several probabilities; the error is the mean of theirs."""
    shrunk = [part.shrink(len(parts)) for part in parts]
    return Bins(*(np.concatenate([getattr(part, name) for part in shrunk]) for name in Bins.__annotations__))


def estimate_error(bins: Bins, drawn: Floats, *, patients: int, level: float) -> CalibrationError:
    """Return the calibration error behind a binned one, with its limits.

    The upper limit and the debiased error suppose that the true deviations are spread over the bins as their noise is,
    the lower limit that they are where they stand out of it: each the case in which the observed error says least. The
    debiased error is the one that would show the observed one or less in half of all samples. The lower limit is 0
    wherever a perfect head would show as much. The upper one is that of an error which a perfect head shows in half of
    all samples, or of the observed one if that is larger: an error that is small by luck proves nothing (as
    power-constrained limits, Cowan et al. 2011, arXiv 1105.3166).

    Parameters
    ----------
    bins
        As observed.
    drawn
        (draws, m): `Bins.deviations` in each bootstrap draw of patients; NaN where a draw has no unit.
    patients
        Number of patients.
    level
        Coverage that the interval aims at.
    """
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if patients < 2 or not len(drawn):
        return CalibrationError(np.nan, np.nan, np.nan, np.nan)
    noise = (drawn - drawn.mean(axis=0)) * np.sqrt(patients / (patients - 1))
    variances = noise.var(axis=0)
    of_perfect = _perfect_errors(bins, variances)
    observed, tail = float(np.abs(bins.deviations).sum()), (1 - level) / 2
    spread = bins.signs * np.sqrt(np.maximum(variances, bins.variances))
    standing = bins.deviations * np.maximum(0, 1 - variances / np.maximum(bins.deviations**2, 1e-300))
    if not standing.any():
        standing = bins.deviations
    debiased = _true_error(spread, noise, observed, 0.5)
    shown = max(observed, float(np.median(of_perfect)))
    high = max(_true_error(spread, noise, shown, tail), shown)
    low = 0.0
    if observed > np.quantile(of_perfect, 1 - tail):
        low = min(_true_error(standing, noise, observed, 1 - tail), debiased)
    return CalibrationError(debiased, float(of_perfect.mean()), low, high)


def _bin_one(positive: npt.NDArray[np.bool_], probability: Floats, bins: int) -> Bins:
    n = len(probability)
    of_unit = equal_mass_bins(probability, bins)
    residual = probability - positive
    counts, sums, deviations, squares, variances = (
        np.bincount(of_unit, weights, minlength=bins)
        for weights in (None, probability, residual, residual**2, probability * (1 - probability))
    )
    return Bins(
        deviations / n,
        squares / n**2 - (deviations / n) ** 2 / n,
        variances / n**2,
        counts.astype(np.int64),
        sums / np.maximum(counts, 1),
        np.full(bins, 1 / n),
        np.full(bins, 1.0 if residual.sum() >= 0 else -1.0),
    )


def _true_error(pattern: Floats, noise: Floats, observed: float, share: float) -> float:
    """Return the true error with this pattern that shows the observed one or less in a share of all samples."""
    total = np.abs(pattern).sum()
    if total == 0:
        return 0.0
    unit = pattern / total
    low, high = 0.0, 1.0
    if np.mean(np.abs(noise).sum(axis=1) <= observed) <= share:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if np.mean(np.abs(middle * unit + noise).sum(axis=1) <= observed) > share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _perfect_errors(bins: Bins, variances: Floats) -> Floats:
    """Return the errors of samples on which every probability is right, (draws,).

    Events of a bin are binomial with the variance that its probabilities have; units of a patient are alike, which
    widens it by the design effect: the variance in draws of patients over that of independent units (Kish 1965).
    """
    effect = max(1.0, float(variances.sum() / max(bins.independent.sum(), 1e-300)))
    binomial = bins.counts * bins.means * (1 - bins.means)
    narrower = np.sqrt(bins.variances / np.maximum(bins.scales**2 * binomial, 1e-300))
    events = np.random.default_rng(0).binomial(
        bins.counts, np.clip(bins.means, 0, 1), size=(_PERFECT_DRAWS, len(bins.counts))
    )
    deviations = (events - bins.counts * bins.means) * bins.scales * narrower * np.sqrt(effect)
    return np.asarray(np.abs(deviations).sum(axis=1), np.float64)
