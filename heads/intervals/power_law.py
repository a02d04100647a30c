"""What more patients would bring: an inverse power law through a learning curve, fitted anew in every draw.

The error of a head that learned from n patients is taken to be ``floor + scale * n ** -exponent`` with a floor and a
scale that are not negative (Figueroa et al. 2012, BMC Med Inform Decis Mak 12:8, who also weigh points by their size;
of the laws that are in use it is among the few that extrapolate well: Viering & Loog 2022, arXiv 2103.10948). For one
exponent that is a least-squares problem of two numbers, so all draws are fitted at once for every exponent of a grid,
and each keeps its best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Three numbers are fitted.
LEAST_SIZES = 3
# From almost flat to faster than a well-specified parametric model learns (1 / n).
EXPONENTS = np.linspace(0.1, 1.5, 29)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """``floor + scale * n ** -exponent``, once for each draw.

    Parameters
    ----------
    floor, scale, exponent
        (draws,) float64; floor and scale are 0 or more.
    """

    floor: Floats
    scale: Floats
    exponent: Floats

    def error(self, patients: float) -> Floats:
        """Return the error of heads that learned from so many patients, (draws,)."""
        return np.asarray(self.floor + self.scale * float(patients) ** -self.exponent, np.float64)


def fit_power_law(patients: npt.NDArray[np.int64], errors: Floats, weights: Floats | None = None) -> PowerLaw:
    """Fit the law to each draw by weighted least squares.

    Parameters
    ----------
    patients
        (sizes,) int64: numbers of patients, different ones, three or more.
    errors
        (draws, sizes) float64, finite.
    weights
        (sizes,) of the squared residuals; equal ones by default.

    Raises
    ------
    ValueError
        If there are fewer than three sizes.

    Examples
    --------
    >>> sizes = np.array([64, 128, 256])
    >>> law = fit_power_law(sizes, 0.1 + 2.0 * sizes[None, :] ** -0.5)
    >>> round(float(law.error(1024)[0]), 4)  # 0.1 + 2 / 32
    0.1625
    """
    if len(patients) < LEAST_SIZES:
        raise ValueError(f"patients must be {LEAST_SIZES} sizes or more; found {len(patients)}")
    share = np.ones(len(patients)) if weights is None else np.asarray(weights, np.float64)
    share = share / share.sum()
    best = np.full(len(errors), np.inf)
    floor, scale, exponent = (np.zeros(len(errors)) for _ in range(3))
    for candidate in EXPONENTS:
        # Scaled to 1 at the fewest patients, so that the two columns are of one size.
        shape = (patients / patients.min()) ** -candidate
        low, high, residual = _least_squares(shape, errors, share)
        # A law that is better by rounding alone does not replace one.
        better = residual < best * (1 - 1e-9)
        best = np.where(better, residual, best)
        floor = np.where(better, low, floor)
        scale = np.where(better, high * float(patients.min()) ** candidate, scale)
        exponent = np.where(better, candidate, exponent)
    return PowerLaw(floor, scale, exponent)


def sampling_variance(patients: npt.NDArray[np.int64], values: Sequence[Sequence[float]]) -> float:
    """Return c, where c / n is the variance of a metric over who is learned from, if these are n new patients.

    Repeats that draw n of N patients share some, so that their variance is (1 - n / N) times that (sampling from a
    finite collection).

    Parameters
    ----------
    patients
        (sizes,) int64: numbers of patients, the last one all of them.
    values
        For each size the metric of each repeat; of all patients there is one.
    """
    several = [at for at, of_size in enumerate(values) if len(of_size) > 1 and patients[at] < patients[-1]]
    if not several:
        return 0.0
    seen = sum(
        (len(values[at]) - 1) * float(patients[at]) * float(np.var(values[at], ddof=1)) for at in several
    )
    freedom = sum((len(values[at]) - 1) * (1 - float(patients[at] / patients[-1])) for at in several)
    return seen / freedom


def _least_squares(shape: Floats, errors: Floats, share: Floats) -> tuple[Floats, Floats, Floats]:
    """Return non-negative (floor, scale) of ``floor + scale * shape`` and the residual, each (draws,).

    Of two non-negative numbers the optimum is the free one where that is allowed, else the better of those in which
    one of the two is 0.
    """
    mean_shape, mean_errors = float(share @ shape), errors @ share
    spread = float(share @ (shape - mean_shape) ** 2)
    slope = (errors @ (share * (shape - mean_shape))) / spread
    level = mean_errors - slope * mean_shape
    no_floor = np.maximum((errors @ (share * shape)) / float(share @ shape**2), 0)
    found = [(level, slope), (np.zeros(len(errors)), no_floor), (np.maximum(mean_errors, 0), 0 * slope)]
    residuals = np.stack(
        [((errors - low[:, None] - high[:, None] * shape) ** 2) @ share for low, high in found]
    )
    residuals[0] = np.where((level >= 0) & (slope >= 0), residuals[0], np.inf)
    chosen, rows = residuals.argmin(axis=0), np.arange(len(errors))
    floors, scales = (np.stack([pair[part] for pair in found])[chosen, rows] for part in (0, 1))
    return floors, scales, residuals[chosen, rows]
