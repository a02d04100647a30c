"""How far a unit lies from the units that a head learned from, as p-values.

Two distances of the unit's mean vector, divided by its length: to the k-th nearest training unit (Sun et al.
2022, ICML, arXiv 2204.06507) and Mahalanobis' to the mean of all, which asks for no classes (Kamoi & Kobayashi
2020, arXiv 2003.00402), with the covariance of Ledoit & Wolf (2004, doi 10.1016/S0047-259X(03)00096-4) since
there are often more dimensions than patients.

A distance becomes a p-value by its rank among those of the training units, each measured as if its own patient
had not been there (conformal outlier detection; Bates et al. 2023, Annals of Statistics, arXiv 2104.08279),
with every patient weighing one, as in `heads.conformal`. For a unit of a new patient from the same population
``p <= 0.05`` happens in at most 5 % of cases. A small value says "unlike the training units", never why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from heads.base import Floats
from heads.conformal import patient_shares
from heads.pooling import pool_vectors
from heads.products import reproducible_norms, reproducible_product

METHODS = ("knn", "mahalanobis")
# Neighbours counted in a bank that is a sample, as in section 4.2 of Sun et al.
NEIGHBORS = 10
# Units kept for the neighbour search: 9 MB of 1152 float16 numbers, and p-values to the fourth decimal.
BANK_UNITS = 4096
# Units whose vectors are widened to float64 at once.
_ROWS = 512
_PATIENTS = 512


@dataclass(frozen=True)
class Ranks:
    """Distances of the training units, for p-values.

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
        return np.asarray(self.beyond[np.searchsorted(self.distances, distances, "left")], np.float64)


@dataclass(frozen=True)
class Outliers:
    """What tells a unit like those of training from another.

    Parameters
    ----------
    bank
        (m, dim) float16 training vectors of length 1.
    neighbors
        Which neighbour's distance counts.
    center
        (dim,) float64 mean of the training vectors of length 1.
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
        self, X: npt.NDArray[np.float32], unit_of_image: npt.NDArray[np.int64], *, n_units: int
    ) -> dict[str, Floats]:
        """Return (n_units,) p-values by method; arguments as `heads.pooling.pool_vectors`.

        A unit's bits depend on its own vectors only.
        """
        vectors = unit_vectors(X, unit_of_image, n_units=n_units)
        found: dict[str, list[Floats]] = {method: [] for method in METHODS}
        for start in range(0, n_units, _ROWS):
            block = vectors[start : start + _ROWS]
            similar = reproducible_product(block, self.bank.astype(np.float64))
            nearest = np.partition(similar, -self.neighbors, axis=1)[:, -self.neighbors]
            found["knn"].append(self.ranks["knn"].p_values(1 - nearest))
            white = reproducible_product(block - self.center, self.whitening.astype(np.float64))
            found["mahalanobis"].append(self.ranks["mahalanobis"].p_values(reproducible_norms(white)[:, 0]))
        return {method: np.concatenate(parts) for method, parts in found.items()}

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
    X: npt.NDArray[np.float32],
    unit_of_image: npt.NDArray[np.int64],
    patients: npt.NDArray[Any],
    *,
    seed: int,
) -> Outliers:
    """Learn both distances from training units.

    Parameters
    ----------
    X
        (n_images, dim) float32, finite.
    unit_of_image
        (n_images,) int64.
    patients
        (n_units,) the patient of each unit.
    seed
        Decides whose units are in the bank where there are more than `BANK_UNITS`.

    Raises
    ------
    DataError
        If there are fewer than two patients.
    """
    names = np.unique(patients)
    if len(names) < 2:
        raise DataError(
            f"distances to the units of other patients need 2 or more patients; found {len(names)}"
        )
    vectors = unit_vectors(X, unit_of_image, n_units=len(patients))
    kept = _bank_units(patients, seed)
    bank = vectors[kept].astype(np.float16)
    others = len(kept) - np.unique(patients[kept], return_counts=True)[1].max()
    neighbors = int(min(NEIGHBORS, others))
    nearest = _knn_distances(vectors, kept, bank, patients[kept], neighbors)
    center, whitening, distances = _mahalanobis(vectors, patients)
    ranks = {"knn": Ranks.of(nearest, patients[kept]), "mahalanobis": Ranks.of(distances, patients)}
    return Outliers(bank, neighbors, center, whitening, ranks)


def unit_vectors(
    X: npt.NDArray[np.float32], unit_of_image: npt.NDArray[np.int64], *, n_units: int
) -> npt.NDArray[np.float32]:
    """Return each unit's mean vector divided by its length, (n_units, dim) float32; zero stays zero."""
    means, _ = pool_vectors(X, unit_of_image, n_units=n_units, pooling="mean-vector")
    lengths = reproducible_norms(means)
    means /= np.where(lengths > 0, lengths, 1.0)
    return means


def _bank_units(patients: npt.NDArray[Any], seed: int) -> npt.NDArray[np.int64]:
    """Return the units of whole patients, drawn until the bank is full, in order."""
    if len(patients) <= BANK_UNITS:
        return np.arange(len(patients))
    names, inverse, counts = np.unique(patients, return_inverse=True, return_counts=True)
    drawn = np.random.default_rng(seed).permutation(len(names))
    # Two patients at least, whatever their size: distances are to others.
    taken = drawn[: max(2, int(np.searchsorted(np.cumsum(counts[drawn]), BANK_UNITS, "right")))]
    return np.flatnonzero(np.isin(inverse, taken))


def _knn_distances(
    vectors: npt.NDArray[np.float32],
    kept: npt.NDArray[np.int64],
    bank: npt.NDArray[np.float16],
    patients: npt.NDArray[Any],
    neighbors: int,
) -> Floats:
    """Measure the bank's own units (`kept`), each without the units of its patient."""
    distances = np.empty(len(kept))
    wide = bank.astype(np.float64)
    for start in range(0, len(kept), _ROWS):
        similar = vectors[kept[start : start + _ROWS]] @ wide.T
        similar[patients[start : start + _ROWS, None] == patients] = -np.inf
        distances[start : start + _ROWS] = 1 - np.partition(similar, -neighbors, axis=1)[:, -neighbors]
    return distances


def _mahalanobis(
    vectors: npt.NDArray[np.float32], patients: npt.NDArray[Any]
) -> tuple[Floats, npt.NDArray[np.float32], Floats]:
    """Return center, whitening and each unit's distance from the patients other than its own.

    Leaving a patient of m units out changes the covariance by a matrix of rank m + 1, so the distance follows
    by the Woodbury identity from one eigendecomposition of all. Only the weight of the shrinkage and its target
    stay those of all units.
    """
    n = len(vectors)
    center = vectors.mean(0, dtype=np.float64)
    values, axes, lengths = _spread(vectors, center)
    shrinkage = _shrinkage(values, lengths, dim=len(center))
    # Vectors that are all alike have no spread; a distance from them must still be a number.
    floor = max(shrinkage * float(values.sum()) / vectors.shape[1], 1e-12)
    whitening = (axes / np.sqrt((1 - shrinkage) * values + floor)) @ axes.T
    if axes.shape[1] < len(axes):
        whitening += (np.eye(len(axes)) - axes @ axes.T) / np.sqrt(floor)
    distances = np.empty(n)
    _, inverse, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    first = np.cumsum(counts) - counts
    for size in np.unique(counts):
        # Patients of as many units at once: one by one, 10,000 of them would take ten seconds.
        units_of_patient = order[first[counts == size, None] + np.arange(size)]
        for start in range(0, len(units_of_patient), _PATIENTS):
            units = units_of_patient[start : start + _PATIENTS]
            turned = ((vectors[units.ravel()] - center) @ axes).reshape(*units.shape, -1)
            distances[units] = _left_out(turned, values, n=n, kept=1 - shrinkage, floor=floor)
    return center, whitening.astype(np.float32), distances


def _spread(vectors: npt.NDArray[np.float32], center: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the covariance's eigenvalues, its (dim, k) axes, and each unit's squared distance to the center.

    With few units there are only the axes along which they vary.
    """
    n, dim = vectors.shape
    if n < dim:
        centered = vectors - center
        _, singular, rows = np.linalg.svd(centered, full_matrices=False)
        return singular**2 / n, rows.T, np.einsum("ij,ij->i", centered, centered)
    scatter, lengths = np.zeros((dim, dim)), np.empty(n)
    for start in range(0, n, _ROWS):
        # Some at a time: all of them in double precision would be the largest array of a probe.
        centered = vectors[start : start + _ROWS] - center
        scatter += centered.T @ centered
        lengths[start : start + _ROWS] = np.einsum("ij,ij->i", centered, centered)
    values, axes = np.linalg.eigh(scatter / n)
    return np.maximum(values, 0), axes, lengths


def _left_out(own: Floats, values: Floats, *, n: int, kept: float, floor: float) -> Floats:
    """Return the distances of (patients, units, dim) turned vectors, each patient's from all others."""
    left = n - own.shape[1]
    inverse = 1 / (kept * values * (n / left) + floor)
    total = own.sum(1, keepdims=True)
    removed = np.concatenate([own, total / np.sqrt(left)], axis=1) * np.sqrt(kept / left)
    moved = own + total / left
    across = (moved * inverse) @ removed.transpose(0, 2, 1)
    inner = np.eye(removed.shape[1]) - (removed * inverse) @ removed.transpose(0, 2, 1)
    gained = (across * np.linalg.solve(inner, across.transpose(0, 2, 1)).transpose(0, 2, 1)).sum(2)
    return np.asarray(np.sqrt(np.maximum((moved**2) @ inverse + gained, 0)), np.float64)


def _shrinkage(values: Floats, lengths: Floats, *, dim: int) -> float:
    """Return Ledoit and Wolf's weight of the identity, from the covariance's eigenvalues and the squared lengths.

    scikit-learn's function multiplies the whole matrix out again, which takes longer than all else here.
    """
    n = len(lengths)
    squares = float((values**2).sum())
    distance = squares / dim - (float(values.sum()) / dim) ** 2
    error = (float((lengths**2).mean()) - squares) / (n * dim)
    return min(error, distance) / distance if distance > 0 else 0.0
