"""Principal axes of training rows, for heads that want fewer columns than an embedding has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heads.exact_products import reproducible_product

_ROWS = 4096


@dataclass(frozen=True)
class Projection:
    """A shift and axes to project on.

    Parameters
    ----------
    mean
        (dim,) float64.
    axes
        (components, dim) float64, orthonormal, largest variance first; none leaves vectors as they are.
    """

    mean: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, X: npt.NDArray[np.float32], components: int) -> Projection:
        """Find the axes of largest variance of (n, dim) rows; 0 `components` keep the rows as they are."""
        mean = X.mean(0, dtype=np.float64)
        count = min(components, *X.shape)
        if count == 0:
            return cls(mean, np.zeros((0, X.shape[1])))
        axes = _axes_of_few(X, mean)[:count] if len(X) < X.shape[1] else _axes_of_many(X, mean)[:count]
        # The sign of an eigenvector is arbitrary, and libraries differ in it.
        largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
        return cls(mean, np.ascontiguousarray(axes * np.sign(largest)))

    def __call__(self, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (n, components) float32, or the rows themselves; each row has the same bits in every batch."""
        if len(self.axes) == 0:
            return X
        shift = reproducible_product(self.mean[None], self.axes)
        return (reproducible_product(X, self.axes) - shift).astype(np.float32)


def _axes_of_few(X: npt.NDArray[np.float32], mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.svd(X - mean, full_matrices=False)[2], np.float64)


def _axes_of_many(X: npt.NDArray[np.float32], mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    scatter = np.zeros((X.shape[1], X.shape[1]))
    for start in range(0, len(X), _ROWS):
        centred = X[start : start + _ROWS] - mean
        scatter += centred.T @ centred
    return np.asarray(np.linalg.eigh(scatter)[1].T[::-1], np.float64)
