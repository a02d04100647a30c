"""Small logistic regressions of the same cases under many weightings: slope and intercept of a calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
_NEWTON_STEPS = 30
# Newton squares its error: after a smaller step what is left is beyond what float32 can say; of float64, beyond 1e-8.
_ENOUGH = {"float32": 2e-3}


@dataclass(frozen=True)
class DrawnRegression:
    """A logistic regression of few coefficients, solved for every draw.

    Parameters
    ----------
    design
        (n, m) float64.
    positive
        (n,) bool labels.
    offset
        (n,) float64 added to the logits.

    Examples
    --------
    The intercept alone is the log odds of the labels, whatever was drawn.

    >>> case = DrawnRegression(np.ones((4, 1)), np.array([True, False, False, False]), np.zeros(4))
    >>> case.solve(np.array([[1.0, 1, 1, 1], [3, 1, 1, 1]]), np.zeros((1, 1))).round(3).tolist()
    [[-1.099], [0.0]]
    """

    design: Floats
    positive: npt.NDArray[np.bool_]
    offset: Floats

    def solve(self, weights: Array, start: Floats) -> Floats:
        """Return the coefficients under each row of weights.

        Parameters
        ----------
        weights
            (draws, n) non-negative; the arithmetic has their precision.
        start
            (1, m) coefficients that all draws start from.

        Returns
        -------
        ndarray
            (draws, m) float64, NaN where there is no solution.
        """
        # The arithmetic has the weights' precision: with float32 intervals are good to 1e-5, at half the cost.
        narrow, enough = weights.dtype, _ENOUGH.get(weights.dtype.name, 1e-4)
        n, m = self.design.shape
        design, wide = self.design.astype(narrow), self.offset.astype(narrow)
        products = (design[:, :, None] * design[:, None, :]).reshape(n, m * m)
        known = np.column_stack([self.positive[:, None] * design, self.positive, ~self.positive])
        sums = (weights @ known.astype(narrow)).astype(np.float64)
        of_positives, both_drawn = sums[:, :m], (sums[:, m:] > 0).all(1)
        solution = start
        for _ in range(_NEWTON_STEPS):
            expected = _sigmoid(solution.astype(narrow) @ design.T + wide)
            if len(expected) < len(weights):
                gradient = of_positives - weights @ (expected.T * design)
                curvature = weights @ ((expected * (1 - expected)).T * products)
            else:
                weighted = expected * weights
                gradient = of_positives - weighted @ design
                np.subtract(1, expected, out=expected)
                weighted *= expected
                curvature = weighted @ products
            bent = curvature.reshape(-1, m, m).astype(np.float64) + 1e-9 * np.eye(m)
            step = np.linalg.solve(bent, gradient[:, :, None])[:, :, 0]
            # A step beyond 2 logits means that the quadratic no longer describes the curve.
            size = np.abs(step).max(1, keepdims=True)
            solution = solution + step * np.minimum(1, 2 / np.maximum(size, 1e-9))
            if size.max(initial=0) < enough:
                break
        return np.where((size < 1e-2) & both_drawn[:, None], solution, np.nan)


def _sigmoid(logit: Array) -> Array:
    """Return the probabilities of logits, which are overwritten."""
    np.clip(-logit, -80, 80, out=logit)
    np.exp(logit, out=logit)
    logit += 1
    return np.reciprocal(logit, out=logit)
