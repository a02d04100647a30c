"""P-values of distance: against brute force, uniform for new patients, small for strangers, the same in any batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from embedstore.errors import DataError
from heads import outliers
from heads.outliers import METHODS, Outliers, Ranks, learn_outliers, unit_vectors


def _population(
    generator: np.random.Generator, patients: int, dim: int = 12, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One to four units a patient, alike within the patient; one or two images a unit."""
    patient = np.repeat(np.arange(patients), generator.integers(1, 5, patients))
    scale = np.linspace(0.2, 1.5, dim)
    of_unit = generator.normal(size=(patients, dim))[patient] + 0.4 * generator.normal(
        size=(len(patient), dim)
    )
    of_unit = of_unit * scale + 3.0
    of_unit[:, 0] += shift
    unit = np.repeat(np.arange(len(patient)), generator.integers(1, 3, len(patient)))
    X = of_unit[unit] + 0.05 * generator.normal(size=(len(unit), dim))
    return X.astype(np.float32), unit, patient


@pytest.fixture(scope="module")
def learned() -> Outliers:
    return learn_outliers(*_population(np.random.default_rng(0), 150), seed=0)


def _by_hand(measure: Callable[[np.ndarray, np.ndarray], float], patient: np.ndarray, vectors: np.ndarray):
    return np.array(
        [measure(vector, vectors[patient != own]) for vector, own in zip(vectors, patient, strict=True)]
    )


def test_knn_distances_are_those_without_the_own_patient(learned: Outliers) -> None:
    X, unit, patient = _population(np.random.default_rng(0), 150)
    vectors = unit_vectors(X, unit, n_units=len(patient))

    def tenth(vector: np.ndarray, others: np.ndarray) -> float:
        return 1 - np.sort(others.astype(np.float16).astype(np.float64) @ vector)[-10]

    expected = _by_hand(tenth, patient, vectors)
    assert learned.ranks["knn"].distances == pytest.approx(np.sort(expected), abs=1e-12)


@pytest.mark.parametrize("dim", [12, 200])
def test_mahalanobis_distances_are_those_without_the_own_patient(dim: int) -> None:
    """With 200 dimensions there are fewer units than axes."""
    X, unit, patient = _population(np.random.default_rng(3), 40, dim)
    vectors = unit_vectors(X, unit, n_units=len(patient)).astype(np.float64)
    centered = vectors - vectors.mean(0)
    covariance, shrinkage = ledoit_wolf(centered, assume_centered=True)
    target = shrinkage * np.trace(centered.T @ centered) / centered.size * np.eye(vectors.shape[1])

    def without(vector: np.ndarray, others: np.ndarray) -> float:
        spread = (1 - shrinkage) * np.cov(others.T, bias=True) + target
        return float(np.sqrt((vector - others.mean(0)) @ np.linalg.inv(spread) @ (vector - others.mean(0))))

    learned = learn_outliers(X, unit, patient, seed=0)
    expected = np.sort(_by_hand(without, patient, vectors))
    assert learned.ranks["mahalanobis"].distances == pytest.approx(expected, rel=1e-9)
    # The whitening itself is that of all units, for strangers too, which leave the space of the units.
    for vector in (centered[0], np.random.default_rng(4).normal(size=dim)):
        whole = np.sqrt(vector @ np.linalg.inv(covariance) @ vector)
        assert np.linalg.norm(learned.whitening @ vector) == pytest.approx(whole, rel=1e-5)


def test_p_values_are_ranks_with_patients_weighing_one() -> None:
    ranks = Ranks.of(np.array([1.0, 2.0, 3.0, 3.0]), np.array(["a", "b", "b", "c"]))
    # Weights 1, 1/2, 1/2, 1 and 1 for the new patient, of 4.
    assert ranks.p_values(np.array([0.5, 1.0, 1.5, 3.0, 3.5])) == pytest.approx([1, 1, 0.75, 0.625, 0.25])


@pytest.mark.parametrize("method", METHODS)
def test_units_of_new_patients_are_rarely_called_strangers(method: str) -> None:
    generator = np.random.default_rng(5)
    rates = []
    for _ in range(40):
        learned = learn_outliers(*_population(generator, 80), seed=0)
        X, unit, patient = _population(generator, 200)
        p = learned.p_values(X, unit, n_units=len(patient))[method]
        first = np.unique(patient, return_index=True)[1]
        rates.append([(p[first] <= level).mean() for level in (0.05, 0.2)])
    error = np.std(rates, axis=0) / np.sqrt(len(rates))
    assert (np.mean(rates, axis=0) < np.array([0.05, 0.2]) + 3 * error).all()
    # And not for being toothless: one patient's weight is 1 / 81.
    assert (np.mean(rates, axis=0) > np.array([0.05, 0.2]) - 2 / 81 - 3 * error).all()


@pytest.mark.parametrize("method", METHODS)
def test_strangers_have_small_p_values(learned: Outliers, method: str) -> None:
    X, unit, patient = _population(np.random.default_rng(9), 60, shift=30.0)
    assert (learned.p_values(X, unit, n_units=len(patient))[method] < 0.02).all()


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_a_p_value_has_the_same_bits_in_every_batch(learned: Outliers, batch: int) -> None:
    X, unit, patient = _population(np.random.default_rng(2), 40)
    whole = learned.p_values(X, unit, n_units=len(patient))
    for start in range(0, len(patient) - batch, batch):
        rows = np.flatnonzero((unit >= start) & (unit < start + batch))[::-1]
        part = learned.p_values(X[rows], unit[rows] - start, n_units=batch)
        for method in METHODS:
            assert part[method].tobytes() == whole[method][start : start + batch].tobytes()


def test_more_dimensions_than_units_are_no_trouble() -> None:
    X, unit, patient = _population(np.random.default_rng(0), 20, dim=200)
    p = learn_outliers(X, unit, patient, seed=0).p_values(X, unit, n_units=len(patient))
    assert all(np.isfinite(of_method).all() and (of_method > 0).all() for of_method in p.values())


def test_vectors_that_are_all_alike_make_none_a_stranger() -> None:
    X, unit = np.ones((6, 4), np.float32), np.arange(6)
    p = learn_outliers(X, unit, np.arange(6), seed=0).p_values(X, unit, n_units=6)
    assert (p["knn"] > 0.05).all()
    assert (p["mahalanobis"] > 0.05).all()
    assert np.isfinite(unit_vectors(np.zeros((1, 4), np.float32), np.zeros(1, np.int64), n_units=1)).all()


def test_a_bank_that_is_full_holds_whole_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "BANK_UNITS", 50)
    X, unit, patient = _population(np.random.default_rng(0), 150)
    learned = learn_outliers(X, unit, patient, seed=1)
    assert 40 < len(learned.bank) <= 50
    assert len(learned.ranks["mahalanobis"].distances) == len(patient)
    again = learn_outliers(X, unit, patient, seed=1)
    assert learned.bank.tobytes() == again.bank.tobytes()
    assert learned.bank.tobytes() != learn_outliers(X, unit, patient, seed=2).bank.tobytes()


def test_it_comes_back_from_arrays(learned: Outliers) -> None:
    X, unit, patient = _population(np.random.default_rng(2), 40)
    again = Outliers.from_arrays(learned.to_arrays())
    for method, p in again.p_values(X, unit, n_units=len(patient)).items():
        assert p.tobytes() == learned.p_values(X, unit, n_units=len(patient))[method].tobytes()


def test_one_patient_alone_is_refused() -> None:
    with pytest.raises(DataError, match="2 or more patients; found 1"):
        learn_outliers(np.ones((3, 2), np.float32), np.arange(3), np.zeros(3), seed=0)
