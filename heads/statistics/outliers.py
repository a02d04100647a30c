"""How far a unit lies from the units that a head learned from, as p-values.

A unit's distance is the mean over its images, each divided by its length: by cosine to the k-th nearest training
image of other patients (Sun et al. 2022, ICML, arXiv 2204.06507), and Mahalanobis' to the mean of all training
images, which asks for no classes (Kamoi & Kobayashi 2020, arXiv 2003.00402), with the covariance of Ledoit & Wolf
(2004, doi 10.1016/S0047-259X(03)00096-4), since there may be more dimensions than images. The distance of a
unit's mean vector would not do: a mean of many images is smooth, and can look usual where none of them does.

A distance becomes a p-value by its rank among those of training units, each measured as if its own patient had
not been there (conformal outlier detection; Bates et al. 2023, Annals of Statistics, arXiv 2104.08279), with
every patient weighing one, as in `conformal`. Ranks rest on the units of patients drawn until `BANK_IMAGES`
images are full: p-values to the third or fourth decimal, to the second where patients have many images. For a
unit of a new patient from the same population ``p <= 0.05`` happens in at most 5 % of cases: of units of all sizes
together, not of those with a given number of images. A small value says "unlike the training units", never why;
a large one does not say "like": foreign images whose distances are usual ones are not found, however many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from heads.exact_products import reproducible_norms, reproducible_product
from heads.scores import Floats
from heads.statistics.conformal import patient_shares

METHODS = ("knn", "mahalanobis")
Indices = npt.NDArray[np.int64]
# Neighbours counted in a bank that is a sample, as in section 4.2 of Sun et al.
NEIGHBORS = 10
# Images kept for the neighbour search: 9 MB of 1152 float16 numbers.
BANK_IMAGES = 4096
# Patients that ranks rest on at least, where there are as many: with fewer no p-value could be below 0.01.
RANKED_PATIENTS = 100
# Multiples of 2**-26, times the bank's float16, multiples of 2**-24: a cosine of whole numbers below 2**53.
_GRID = 2.0**26
# Rounding must not make a stranger of a vector that is like all others.
_TOLERANCE = 1e-6
# Images whose vectors are widened to float64 at once.
_ROWS = 512
# Float64 cells of each array when patients are left out.
_CELLS = 1 << 20


@dataclass(frozen=True)
class Ranks:
    """Distances of training units, for p-values.

    Parameters
    ----------
    distances
        (n,) float64, rising.
    beyond
        (n + 1,) float64: share of all patients' weight at or beyond each distance, the new patient's
        included; the last is the new patient's alone.
    """

    distances: Floats
    beyond: Floats

    @classmethod
    def of(cls, distances: Floats, patients: npt.NDArray[Any]) -> Ranks:
        """Rank (n,) distances of (n,) patients."""
        order = np.argsort(distances, kind="stable")
        shares = np.concatenate([patient_shares(patients)[order], [1.0]])
        beyond = np.cumsum(shares[::-1])[::-1] / (len(np.unique(patients)) + 1)
        return cls(distances[order], np.minimum(beyond, 1.0))

    def p_values(self, distances: Floats) -> Floats:
        """Return the (n,) p-values of (n,) distances; each depends on nothing but itself."""
        reached = np.searchsorted(self.distances, distances - _TOLERANCE, "left")
        return np.asarray(self.beyond[reached], np.float64)


@dataclass(frozen=True)
class Outliers:
    """What tells a unit like those of training from another.

    Parameters
    ----------
    bank
        (m, dim) float16 vectors of training images, of length 1.
    neighbors
        Which neighbour's distance counts.
    center
        (dim,) float64 mean of the training images' vectors of length 1.
    whitening
        (dim, dim) float32: turns a centred vector into one whose length is Mahalanobis' distance.
    ranks
        Method -> ranks.
    """

    bank: npt.NDArray[np.float16]
    neighbors: int
    center: Floats
    whitening: npt.NDArray[np.float32]
    ranks: Mapping[str, Ranks]

    def p_values(
        self, X: npt.NDArray[np.float32], unit_of_image: Indices, *, n_units: int
    ) -> dict[str, Floats]:
        """Return (n_units,) p-values by method.

        A unit's bits depend on its own vectors only, in any order.

        Parameters
        ----------
        X
            (n_images, dim) float32, finite.
        unit_of_image
            (n_images,) int64 from 0 to ``n_units - 1``; every unit has an image.
        n_units
            Number of units.

        Raises
        ------
        DataError
            If a number is NaN or infinite.
        UsageError
            If a unit has no image.
        """
        distances = {method: np.empty(len(X)) for method in METHODS}
        bank, whitening = self.bank.astype(np.float64).T, self.whitening.astype(np.float64)
        for start in range(0, len(X), _ROWS):
            rows = slice(start, start + _ROWS)
            vectors = unit_vectors(X[rows])
            distances["knn"][rows] = _kth_distances(_cosines(vectors, bank), self.neighbors)
            white = reproducible_product(vectors - self.center, whitening)
            distances["mahalanobis"][rows] = reproducible_norms(white)[:, 0]
        return {
            method: self.ranks[method].p_values(_unit_means(of_image, unit_of_image, n_units))
            for method, of_image in distances.items()
        }

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything as arrays that safetensors can hold."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "bank": self.bank,
            "neighbors": np.array([self.neighbors]),
            "center": self.center,
            "whitening": self.whitening,
        }
        for method, ranks in self.ranks.items():
            arrays |= {f"{method}.distances": ranks.distances, f"{method}.beyond": ranks.beyond}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Outliers:
        """Build from `to_arrays`; raises KeyError where an array is missing."""
        ranks = {
            method: Ranks(arrays[f"{method}.distances"], arrays[f"{method}.beyond"]) for method in METHODS
        }
        return cls(arrays["bank"], int(arrays["neighbors"][0]), arrays["center"], arrays["whitening"], ranks)


def learn_outliers(
    X: npt.NDArray[np.float32], unit_of_image: Indices, patients: npt.NDArray[Any], *, seed: int
) -> Outliers:
    """Learn both distances from training units.

    Parameters
    ----------
    X
        (n_images, dim) float32, finite.
    unit_of_image
        (n_images,) int64; every unit has an image.
    patients
        (n_units,) the patient of each unit.
    seed
        Decides whose images are in the bank and whose units are ranked, where there are more than
        `BANK_IMAGES` images.

    Raises
    ------
    DataError
        If there are fewer than two patients, or a number is NaN or infinite.
    UsageError
        If a unit has no image.
    """
    names, patient_of_unit = np.unique(patients, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"distances to units of other patients need 2 or more patients; found {len(names)}")
    patient_of_image = patient_of_unit[unit_of_image]
    ranked, banked = _drawn_images(patient_of_image, seed)
    bank = unit_vectors(X[banked]).astype(np.float16)
    neighbors = min(NEIGHBORS, len(bank) - int(np.bincount(patient_of_image[banked]).max()))
    nearest = _knn_distances(X, ranked, patient_of_image, bank, patient_of_image[banked], neighbors)
    spread = _spread(X)
    distances = _mahalanobis_distances(X, ranked, patient_of_image, spread)
    units, unit_of_ranked = np.unique(unit_of_image[ranked], return_inverse=True)
    ranks = {
        method: Ranks.of(_unit_means(of_image, unit_of_ranked, len(units)), patient_of_unit[units])
        for method, of_image in (("knn", nearest), ("mahalanobis", distances))
    }
    return Outliers(bank, neighbors, spread.center, spread.whitening(), ranks)


def unit_vectors(X: npt.NDArray[np.float32]) -> Floats:
    """Return each image's vector divided by its length, (n, dim) float64; zero stays zero."""
    return np.asarray(X / _lengths(X), np.float64)


def _lengths(X: npt.NDArray[np.float32]) -> Floats:
    """Return what vectors are divided by, (n, 1): their lengths, 1 for zero."""
    lengths = reproducible_norms(X)
    return np.where(lengths > 0, lengths, 1.0)


def _drawn_images(patient_of_image: Indices, seed: int) -> tuple[Indices, Indices]:
    """Return the images of the patients that ranks rest on, all of theirs, and those of them in the bank.

    Patients are drawn until `BANK_IMAGES` images are full, at least `RANKED_PATIENTS`. Where these have more
    images than the bank holds, it takes turns among them, so that none fills it alone.
    """
    generator = np.random.default_rng(seed)
    counts = np.bincount(patient_of_image)
    drawn = generator.permutation(len(counts))
    full = int(np.searchsorted(np.cumsum(counts[drawn]), BANK_IMAGES, "right"))
    ranked = np.flatnonzero(np.isin(patient_of_image, drawn[: max(RANKED_PATIENTS, full)]))
    shuffled = generator.permutation(ranked)
    shuffled = shuffled[np.argsort(patient_of_image[shuffled], kind="stable")]
    own = np.bincount(patient_of_image[ranked])
    turn = np.arange(len(ranked)) - np.repeat(np.cumsum(own) - own, own)
    return ranked, np.sort(shuffled[np.argsort(turn, kind="stable")[:BANK_IMAGES]])


def _unit_means(distances: Floats, unit_of_image: Indices, n_units: int) -> Floats:
    """Return the (n_units,) means of each unit's (n_images,) distances."""
    images = np.bincount(unit_of_image, minlength=n_units)
    if len(images) != n_units or (images == 0).any():
        raise UsageError(
            f"each of {n_units} units needs an image; {int((images == 0).sum())} have none "
            f"and the largest unit is {len(images) - 1}"
        )
    # Sorted within the unit: a sum of floating-point numbers depends on their order.
    order = np.lexsort((distances, unit_of_image))
    return np.asarray(np.bincount(unit_of_image[order], distances[order], n_units) / images, np.float64)


def _cosines(vectors: Floats, bank: Floats) -> Floats:
    """Return the (n, m) cosines of (n, dim) vectors with a (dim, m) bank of float16's values, exact in any order."""
    return (np.rint(vectors * _GRID) @ bank) / _GRID


def _kth_distances(cosines: Floats, neighbors: int) -> Floats:
    return np.asarray(1 - np.partition(cosines, -neighbors, axis=1)[:, -neighbors], np.float64)


def _knn_distances(
    X: npt.NDArray[np.float32],
    ranked: Indices,
    patient_of_image: Indices,
    bank: npt.NDArray[np.float16],
    patient_of_bank: Indices,
    neighbors: int,
) -> Floats:
    """Measure the `ranked` images, each without the images of its patient."""
    distances = np.empty(len(ranked))
    wide = bank.astype(np.float64).T
    for start in range(0, len(ranked), _ROWS):
        rows = ranked[start : start + _ROWS]
        cosines = _cosines(unit_vectors(X[rows]), wide)
        cosines[patient_of_image[rows, None] == patient_of_bank] = -np.inf
        distances[start : start + _ROWS] = _kth_distances(cosines, neighbors)
    return distances


@dataclass(frozen=True)
class _Spread:
    """Center and covariance of all n images: ``kept * axes @ diag(values) @ axes.T + floor * I``, k axes."""

    n: int
    center: Floats
    values: Floats
    axes: Floats
    kept: float
    floor: float

    def turned(self, X: npt.NDArray[np.float32], images: Indices) -> Floats:
        """Return the (len(images), k) centred vectors along the axes."""
        return np.asarray((unit_vectors(X[images]) - self.center) @ self.axes, np.float64)

    def whitening(self) -> npt.NDArray[np.float32]:
        """Return the covariance's inverse root, (dim, dim)."""
        root = (self.axes / np.sqrt(self.kept * self.values + self.floor)) @ self.axes.T
        if len(self.values) < len(self.center):
            root += (np.eye(len(root)) - self.axes @ self.axes.T) / np.sqrt(self.floor)
        return root.astype(np.float32)


def _spread(X: npt.NDArray[np.float32]) -> _Spread:
    """Measure all images; with far fewer than dimensions there are only the axes along which they vary."""
    n, dim = X.shape
    lengths, squares = _lengths(X), np.empty(n)
    center = np.sum([vectors.sum(0) for _, vectors in _blocks(X, lengths)], axis=0) / n
    # Singular vectors of 1,126 x 1,152 take 2.5 times as long as the eigenvectors of their 1,152 x 1,152 products.
    if 3 * n < 2 * dim:
        centered = unit_vectors(X) - center
        squares[:] = np.einsum("ij,ij->i", centered, centered)
        _, singular, axes = np.linalg.svd(centered, full_matrices=False)
        values, axes = singular**2 / n, axes.T
    else:
        scatter = np.zeros((dim, dim))
        # Some at a time: all of them in double precision would be the largest array of a probe.
        for rows, vectors in _blocks(X, lengths):
            centered = vectors - center
            scatter += centered.T @ centered
            squares[rows] = np.einsum("ij,ij->i", centered, centered)
        values, axes = np.linalg.eigh(scatter / n)
        values = np.maximum(values, 0)
    shrinkage = _shrinkage(values, squares, dim=dim)
    # Vectors that are all alike have no spread; a distance from them must still be a number.
    floor = max(shrinkage * float(values.sum()) / dim, 1e-12)
    return _Spread(n, center, values, axes, 1 - shrinkage, floor)


def _blocks(X: npt.NDArray[np.float32], lengths: Floats) -> Iterator[tuple[slice, Floats]]:
    for start in range(0, len(X), _ROWS):
        rows = slice(start, start + _ROWS)
        yield rows, X[rows] / lengths[rows]


def _mahalanobis_distances(
    X: npt.NDArray[np.float32], ranked: Indices, patient_of_image: Indices, spread: _Spread
) -> Floats:
    """Measure the `ranked` images, each from the images of all other patients.

    Only the weight of the shrinkage and its target stay those of all images when a patient is left out.
    """
    distances, k = np.full(len(ranked), np.nan), len(spread.values)
    _, inverse, counts = np.unique(patient_of_image[ranked], return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    first = np.cumsum(counts) - counts
    for size in np.unique(counts):
        # Patients of as many images at once: one by one, 10,000 of them would take ten seconds.
        of_patient = order[first[counts == size, None] + np.arange(size)]
        if size >= k:
            for images in of_patient:
                distances[images] = _left_out_many(X, ranked[images], spread)
            continue
        at_once = max(1, _CELLS // (int(size) * k))
        for start in range(0, len(of_patient), at_once):
            images = of_patient[start : start + at_once]
            own = spread.turned(X, ranked[images.ravel()]).reshape(*images.shape, -1)
            distances[images] = _left_out(own, spread)
    return distances


def _left_out(own: Floats, spread: _Spread) -> Floats:
    """Return the distances of (patients, images, k) turned vectors, each patient's from all others.

    Leaving a patient of m images out changes the covariance by a matrix of rank m + 1, so the distance follows
    by the Woodbury identity from one eigendecomposition of all.
    """
    left = spread.n - own.shape[1]
    inverse = 1 / (spread.kept * spread.values * (spread.n / left) + spread.floor)
    total = own.sum(1, keepdims=True)
    removed = np.concatenate([own, total / np.sqrt(left)], axis=1) * np.sqrt(spread.kept / left)
    moved = own + total / left
    across = (moved * inverse) @ removed.transpose(0, 2, 1)
    inner = np.eye(removed.shape[1]) - (removed * inverse) @ removed.transpose(0, 2, 1)
    gained = (across * np.linalg.solve(inner, across.transpose(0, 2, 1)).transpose(0, 2, 1)).sum(2)
    return np.asarray(np.sqrt(np.maximum((moved**2) @ inverse + gained, 0)), np.float64)


def _left_out_many(X: npt.NDArray[np.float32], images: Indices, spread: _Spread) -> Floats:
    """Return the distances of one patient's images, more than axes: the covariance of the others is inverted."""
    left = spread.n - len(images)
    blocks = [images[start : start + _ROWS] for start in range(0, len(images), _ROWS)]
    total, scatter = np.zeros(len(spread.values)), np.zeros((len(spread.values),) * 2)
    for block in blocks:
        own = spread.turned(X, block)
        total += own.sum(0)
        scatter += own.T @ own
    others = np.diag(spread.values * spread.n) - scatter - np.outer(total, total / left)
    inverse = np.linalg.inv(others * (spread.kept / left) + spread.floor * np.eye(len(total)))
    squares = []
    for block in blocks:
        moved = spread.turned(X, block) + total / left
        squares.append(((moved @ inverse) * moved).sum(1))
    return np.asarray(np.sqrt(np.maximum(np.concatenate(squares), 0)), np.float64)


def _shrinkage(values: Floats, lengths: Floats, *, dim: int) -> float:
    """Return Ledoit and Wolf's weight of the identity, from the covariance's eigenvalues and the squared lengths.

    scikit-learn's function multiplies the whole matrix out again, which takes longer than all else here.
    """
    n = len(lengths)
    squares = float((values**2).sum())
    distance = squares / dim - (float(values.sum()) / dim) ** 2
    error = (float((lengths**2).mean()) - squares) / (n * dim)
    return min(error, distance) / distance if distance > 0 else 0.0
