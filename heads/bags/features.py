"""From an image's vector to what attention sees: standardised, layer-normalised, turned to its principal axes.

The gain and shift that a layer norm learns (Ba et al. 2016, arXiv 1607.06450) are left out: what follows is linear and
has its own. Principal axes make many networks cheap, since most of an embedding's variance lies in few directions. The
last columns may say where an image comes from (view, plane, place in the stack). They are neither normalised nor
turned, and weigh as much as a vector; where nothing is known they are zero, and the image is an ordinary one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heads.scores import Floats
from heads.solvers.mlp_network import normaliser

# Added to the variance of a row, as in torch.nn.LayerNorm.
_EPSILON = 1e-5
# Images that the axes are found from; more change nothing that matters.
_AXES_ROWS = 1 << 13
# Rows whose features are held at once: of 4,096, ten folds left 1.4 times the vectors in the allocator.
ROWS = 1024
# Axes with less of the largest axis's variance are rounding.
_LEAST_VARIANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Features:
    """How vectors are standardised, as learned from the images of training.

    Parameters
    ----------
    mean, factor
        (dim,) float32: columns are used as ``(x - mean) * factor``.
    position_factor
        (1,) float32: what the last columns are multiplied by.
    positions
        How many these are.
    layer_norm
        Whether each standardised vector is brought to mean 0 and variance 1.
    """

    mean: npt.NDArray[np.float32]
    factor: npt.NDArray[np.float32]
    position_factor: npt.NDArray[np.float32]
    positions: int
    layer_norm: bool

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.mean) + self.positions

    def exact(self, X: npt.NDArray[np.float32]) -> Floats:
        """Return (n, width) float64 features; each row has the same bits in every batch."""
        dim = len(self.mean)
        rows = np.ascontiguousarray((X[:, :dim].astype(np.float64) - self.mean) * self.factor)
        if self.layer_norm:
            rows -= rows.mean(axis=1, keepdims=True)
            rows /= np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + _EPSILON)
        positions = X[:, dim:].astype(np.float64) * self.position_factor.astype(np.float64)
        return np.concatenate([rows, positions], axis=1)


@dataclass(frozen=True, kw_only=True)
class ProjectedFeatures:
    """Features along some axes, which networks are trained on; a trained network is of the features themselves.

    Parameters
    ----------
    features
        The features.
    axes
        (components, dim) float32, orthonormal; none where all columns are kept.
    """

    features: Features
    axes: npt.NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        X: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        *,
        components: int,
        positions: int,
        layer_norm: bool,
        seed: int,
    ) -> ProjectedFeatures:
        """Learn from some rows of (n, dim + positions) float32 vectors.

        Parameters
        ----------
        X
            Vectors, un-normalised.
        rows
            (k,) int64 rows to learn from.
        components
            Principal axes; all columns are kept where there are no more.
        positions, layer_norm
            As `Features`.
        seed
            Of the images that the axes are found from, where there are many.
        """
        dim = X.shape[1] - positions
        mean, factor = normaliser(X[:, :dim], rows, np.ones(len(rows), np.float32), "standardise")
        largest = float(np.abs(X[rows, dim:]).max(initial=0.0))
        features = Features(
            mean=mean,
            factor=factor,
            position_factor=np.array([dim**0.5 / largest if largest else 1.0], np.float32),
            positions=positions,
            layer_norm=layer_norm,
        )
        found = cls(features=features, axes=np.zeros((0, dim), np.float32))
        if dim <= components:
            return found
        if len(rows) > _AXES_ROWS:
            rows = np.sort(np.random.default_rng(seed).choice(rows, _AXES_ROWS, replace=False))
        return replace(found, axes=_axes(found(torch.from_numpy(X[rows]))[:, :dim], components))

    @property
    def width(self) -> int:
        """Number of projected features."""
        return (len(self.axes) or len(self.features.mean)) + self.features.positions

    def whole(self, X: Tensor) -> Tensor:
        """Return (n, features) float32 features of a few (n, dim + positions) float32 vectors."""
        own, dim = self.features, len(self.features.mean)
        rows = (X[:, :dim] - torch.from_numpy(own.mean)) * torch.from_numpy(own.factor)
        if own.layer_norm:
            rows = torch.nn.functional.layer_norm(rows, (dim,), eps=_EPSILON)
        return torch.cat([rows, X[:, dim:] * float(own.position_factor[0])], 1)

    def projected(self, whole: Tensor) -> Tensor:
        """Return (n, width) projected features of (n, features) features."""
        if not len(self.axes):
            return whole
        dim = len(self.features.mean)
        return torch.cat([whole[:, :dim] @ torch.from_numpy(self.axes).T, whole[:, dim:]], 1)

    def __call__(self, X: Tensor) -> Tensor:
        """Return (n, width) float32 projected features of (n, dim + positions) float32 vectors."""
        found = torch.empty(len(X), self.width)
        for start in range(0, len(X), ROWS):
            found[start : start + ROWS] = self.projected(self.whole(X[start : start + ROWS]))
        return found

    def parts(
        self, weights: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the part of (features, k) weights along the axes, as (width, k), and the (features, k) rest."""
        if not len(self.axes):
            return weights, np.zeros_like(weights)
        axes, dim = self.axes.astype(np.float64), len(self.features.mean)
        inside = np.concatenate([axes @ weights[:dim], weights[dim:]]).astype(np.float32)
        return inside, weights - self.weights_of_features(inside)

    def weights_of_features(self, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (features, k) weights that give of the features what (width, k) ones give of the projected."""
        if not len(self.axes):
            return weights
        axes = self.axes.astype(np.float64)
        along = axes.T @ weights[: len(axes)].astype(np.float64)
        return np.concatenate([along.astype(np.float32), weights[len(axes) :]])


def _axes(rows: Tensor, components: int) -> npt.NDArray[np.float32]:
    """Return up to `components` orthonormal axes of largest second moment of (n, dim) rows, the largest first."""
    few = len(rows) < rows.shape[1]
    products = (rows @ rows.T if few else rows.T @ rows).double()
    values, vectors = torch.linalg.eigh(products)
    kept = values > _LEAST_VARIANCE * values[-1].clamp_min(torch.finfo(torch.float64).tiny)
    vectors = vectors[:, kept].flip(1)[:, :components]
    axes = (rows.double().T @ vectors if few else vectors).T
    axes = axes / torch.linalg.vector_norm(axes, dim=1, keepdim=True)
    # The sign of an eigenvector is arbitrary, and libraries differ in it.
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return np.ascontiguousarray((axes * largest.sign()).float().numpy())
