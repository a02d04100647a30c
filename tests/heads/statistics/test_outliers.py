"""P-values of distance: against brute force, valid for new patients, small for strangers, the same in any batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from embedstore.errors import DataError, UsageError
from heads.statistics import outliers
from heads.statistics.outliers import METHODS, Outliers, Ranks, learn_outliers, unit_vectors

_SCALE = np.linspace(0.2, 1.5, 12)


def _population(
    generator: np.random.Generator, patients: int, dim: int = 12, shift: float = 0.0, most_images: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One to four units a patient, alike within the patient; images differ within a unit."""
    patient = np.repeat(np.arange(patients), generator.integers(1, 5, patients))
    of_unit = generator.normal(size=(patients, dim))[patient]
    of_unit += 0.4 * generator.normal(size=(len(patient), dim))
    unit = np.repeat(np.arange(len(patient)), generator.integers(1, most_images + 1, len(patient)))
    X = of_unit[unit] + 0.3 * generator.normal(size=(len(unit), dim))
    X = X * np.linspace(_SCALE[0], _SCALE[-1], dim) + 3.0
    X[:, 0] += shift
    return X.astype(np.float32), unit, patient


def _with_a_large_patient(images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patient 0 has one more unit, of so many images."""
    X, unit, patient = _population(np.random.default_rng(3), 40)
    more = np.random.default_rng(4).normal(size=(images, 12)) * _SCALE + 3.2
    unit = np.concatenate([unit, np.full(images, len(patient))])
    return np.concatenate([X, more.astype(np.float32)]), unit, np.append(patient, 0)


@pytest.fixture(scope="module")
def learned() -> Outliers:
    return learn_outliers(*_population(np.random.default_rng(0), 150), seed=0)


def _by_hand(
    measure: Callable[[np.ndarray, np.ndarray], float],
    vectors: np.ndarray,
    unit: np.ndarray,
    patient: np.ndarray,
    bank: np.ndarray | None = None,
) -> np.ndarray:
    """Measure every unit, with the images of other patients (of a bank) looked up anew for each."""
    among = np.arange(len(vectors)) if bank is None else bank
    means = []
    for own in range(len(patient)):
        others = vectors[among[patient[unit[among]] != patient[own]]]
        means.append(np.mean([measure(vector, others) for vector in vectors[unit == own]]))
    return np.array(means)


def _tenth(vector: np.ndarray, others: np.ndarray) -> float:
    return 1 - float(np.sort(others.astype(np.float16).astype(np.float64) @ vector)[-10])


def test_knn_distances_are_those_without_the_own_patient(learned: Outliers) -> None:
    X, unit, patient = _population(np.random.default_rng(0), 150)
    expected = _by_hand(_tenth, unit_vectors(X), unit, patient)
    assert learned.ranks["knn"].distances == pytest.approx(np.sort(expected), abs=1e-7)


def test_knn_distances_in_a_bank_that_is_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "BANK_IMAGES", 60)
    X, unit, patient = _with_a_large_patient(300)
    bank = outliers._drawn_images(patient[unit], 0)[1]
    learned = learn_outliers(X, unit, patient, seed=0)
    assert len(bank) == 60
    assert learned.bank.tobytes() == unit_vectors(X[bank]).astype(np.float16).tobytes()
    expected = _by_hand(_tenth, unit_vectors(X), unit, patient, bank)
    assert learned.ranks["knn"].distances == pytest.approx(np.sort(expected), abs=1e-7)


@pytest.mark.parametrize("cells", [1, 1 << 20])
@pytest.mark.parametrize(
    ("X", "unit", "patient"),
    [
        pytest.param(*_population(np.random.default_rng(3), 40), id="small patients"),
        pytest.param(*_population(np.random.default_rng(3), 40, 200), id="fewer images than dimensions"),
        pytest.param(*_with_a_large_patient(600), id="a patient of more images than dimensions"),
        pytest.param(
            *_population(np.random.default_rng(3), 60, most_images=9), id="many patients of more images"
        ),
    ],
)
def test_mahalanobis_distances_are_those_without_the_own_patient(
    X: np.ndarray, unit: np.ndarray, patient: np.ndarray, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outliers, "_CELLS", cells)
    vectors = unit_vectors(X)
    centered = vectors - vectors.mean(0)
    covariance, shrinkage = ledoit_wolf(centered, assume_centered=True)
    target = shrinkage * np.trace(centered.T @ centered) / centered.size * np.eye(X.shape[1])
    expected = np.empty(len(patient))
    for own in np.unique(patient):
        others = vectors[patient[unit] != own]
        inverse = np.linalg.inv((1 - shrinkage) * np.cov(others.T, bias=True) + target)
        for one in np.flatnonzero(patient == own):
            moved = vectors[unit == one] - others.mean(0)
            expected[one] = np.sqrt(np.einsum("ij,jk,ik->i", moved, inverse, moved)).mean()
    learned = learn_outliers(X, unit, patient, seed=0)
    assert learned.ranks["mahalanobis"].distances == pytest.approx(np.sort(expected), rel=1e-9)
    # The whitening itself is that of all images, for strangers too, which leave the space of the images.
    for vector in (centered[0], np.random.default_rng(4).normal(size=X.shape[1])):
        whole = np.sqrt(vector @ np.linalg.inv(covariance) @ vector)
        assert np.linalg.norm(learned.whitening @ vector) == pytest.approx(whole, rel=1e-5)


def test_a_distance_is_the_mean_over_the_images(learned: Outliers) -> None:
    X, unit, patient = _population(np.random.default_rng(7), 30, most_images=9)
    vectors = unit_vectors(X)
    knn = np.array([1 - np.sort(learned.bank.astype(np.float64) @ vector)[-10] for vector in vectors])
    white = (vectors - learned.center) @ learned.whitening.T.astype(np.float64)
    p = learned.p_values(X, unit, n_units=len(patient))
    for method, of_image in (("knn", knn), ("mahalanobis", np.sqrt((white**2).sum(1)))):
        means = np.array([of_image[unit == own].mean() for own in range(len(patient))])
        assert p[method].tolist() == learned.ranks[method].p_values(means).tolist()


def test_p_values_are_ranks_with_patients_weighing_one() -> None:
    ranks = Ranks.of(np.array([1.0, 2.0, 3.0, 3.0]), np.array(["a", "b", "b", "c"]))
    # Weights 1, 1/2, 1/2, 1 and 1 for the new patient, of 4.
    assert ranks.p_values(np.array([0.5, 1.0, 1.5, 3.0, 3.5])) == pytest.approx([1, 1, 0.75, 0.625, 0.25])
    # Rounding is no distance.
    assert ranks.p_values(np.array([3.0 + 1e-9])) == pytest.approx([0.625])


@pytest.fixture(scope="module")
def rates() -> dict[str, np.ndarray]:
    """Share of new patients at or below 0.05 and 0.1, for 40 trainings, whose units have 1 to 12 images."""
    generator = np.random.default_rng(5)
    shares: dict[str, list[list[float]]] = {method: [] for method in METHODS}
    for _ in range(40):
        learned = learn_outliers(*_population(generator, 80, most_images=12), seed=0)
        X, unit, patient = _population(generator, 200, most_images=12)
        first = np.unique(patient, return_index=True)[1]
        for method, p in learned.p_values(X, unit, n_units=len(patient)).items():
            shares[method].append([float((p[first] <= level).mean()) for level in (0.05, 0.1)])
    return {method: np.array(of_method) for method, of_method in shares.items()}


@pytest.mark.parametrize("method", METHODS)
def test_units_of_new_patients_are_rarely_called_strangers(rates: dict[str, np.ndarray], method: str) -> None:
    share, error = rates[method].mean(0), rates[method].std(0) / np.sqrt(40)
    assert (share < np.array([0.05, 0.1]) + 3 * error).all()
    # And not for being toothless: one patient's weight is 1 / 81.
    assert (share > np.array([0.05, 0.1]) - 2 / 81 - 3 * error).all()


@pytest.mark.parametrize("method", METHODS)
def test_strangers_have_small_p_values(learned: Outliers, method: str) -> None:
    X, unit, patient = _population(np.random.default_rng(9), 60, shift=30.0)
    assert (learned.p_values(X, unit, n_units=len(patient))[method] < 0.02).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_study_of_many_foreign_images_is_found_though_their_mean_looks_usual(
    learned: Outliers, method: str
) -> None:
    """Forty images, half of them far on either side."""
    images = np.random.default_rng(1).normal(size=(40, 12)) * _SCALE + 3.0
    images[:, 0] += np.repeat([-3.0, 3.0], 20)
    X, unit = images.astype(np.float32), np.zeros(40, np.int64)
    mean = unit_vectors(X).mean(0, keepdims=True).astype(np.float32)
    assert learned.p_values(mean, unit[:1], n_units=1)[method][0] > 0.5
    assert learned.p_values(X, unit, n_units=1)[method][0] < 0.05


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_a_p_value_has_the_same_bits_in_every_batch(learned: Outliers, batch: int) -> None:
    X, unit, patient = _population(np.random.default_rng(2), 40, most_images=9)
    whole = learned.p_values(X, unit, n_units=len(patient))
    for start in range(0, len(patient) - batch, batch):
        rows = np.flatnonzero((unit >= start) & (unit < start + batch))
        rows = np.random.default_rng(start).permutation(rows)
        part = learned.p_values(X[rows], unit[rows] - start, n_units=batch)
        for method in METHODS:
            assert part[method].tobytes() == whole[method][start : start + batch].tobytes()


def test_a_mean_of_distances_has_the_same_bits_in_any_order() -> None:
    """P-values are steps, which would hide a last bit."""
    generator = np.random.default_rng(0)
    distances, unit = generator.random(2000), np.sort(generator.integers(0, 40, 2000))
    whole = outliers._unit_means(distances, unit, 40)
    assert whole == pytest.approx([distances[unit == own].mean() for own in range(40)])
    for _ in range(5):
        order = generator.permutation(2000)
        assert outliers._unit_means(distances[order], unit[order], 40).tobytes() == whole.tobytes()


def test_cosines_have_the_same_bits_in_any_batch_and_order_of_columns() -> None:
    generator = np.random.default_rng(0)
    vectors = unit_vectors(generator.normal(size=(50, 1152)).astype(np.float32))
    bank = unit_vectors(generator.normal(size=(70, 1152)).astype(np.float32)).astype(np.float16)
    wide = bank.astype(np.float64).T
    whole = outliers._cosines(vectors, wide)
    assert whole == pytest.approx(vectors @ wide, abs=1e-7)
    columns = generator.permutation(1152)
    assert outliers._cosines(vectors[:, columns], wide[columns]).tobytes() == whole.tobytes()
    for row in range(50):
        assert outliers._cosines(vectors[[row]], wide).tobytes() == whole[row].tobytes()


@pytest.mark.parametrize("images", [(1, 500), (500, 1), (1, 1)])
@pytest.mark.parametrize("dim", [4, 40, 700])
def test_two_patients_are_enough(images: tuple[int, int], dim: int) -> None:
    unit = np.repeat([0, 1], images)
    X = np.random.default_rng(0).normal(size=(len(unit), dim)).astype(np.float32)
    learned = learn_outliers(X, unit, np.array(["a", "b"]), seed=0)
    for p in learned.p_values(X, unit, n_units=2).values():
        assert ((p >= 1 / 3) & (p <= 1)).all()


def test_two_patients_are_enough_where_one_would_fill_the_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "BANK_IMAGES", 50)
    unit = np.repeat([0, 1], [500, 1])
    X = np.random.default_rng(0).normal(size=(501, 4)).astype(np.float32)
    learned = learn_outliers(X, unit, np.arange(2), seed=0)
    assert (len(learned.bank), learned.neighbors) == (50, 1)
    assert all(np.isfinite(ranks.distances).all() for ranks in learned.ranks.values())


def test_more_dimensions_than_images_are_no_trouble() -> None:
    X, unit, patient = _population(np.random.default_rng(0), 20, dim=200)
    p = learn_outliers(X, unit, patient, seed=0).p_values(X, unit, n_units=len(patient))
    assert all(np.isfinite(of_method).all() and (of_method > 0).all() for of_method in p.values())


@pytest.mark.parametrize("dim", [4, 400])
def test_vectors_that_are_all_alike_make_none_a_stranger(dim: int) -> None:
    X = np.tile(np.random.default_rng(0).normal(size=dim).astype(np.float32), (120, 1))
    unit = np.repeat(np.arange(40), 3)
    p = learn_outliers(X, unit, np.arange(40), seed=0).p_values(X[:7], np.repeat([0, 1], [1, 6]), n_units=2)
    assert {method: of_method.tolist() for method, of_method in p.items()} == {
        "knn": [1.0, 1.0],
        "mahalanobis": [1.0, 1.0],
    }


def test_a_vector_of_zeros_stays_zero() -> None:
    assert (unit_vectors(np.zeros((1, 4), np.float32)) == 0).all()


def test_ranks_rest_on_whole_patients_drawn_until_the_bank_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "BANK_IMAGES", 50)
    monkeypatch.setattr(outliers, "RANKED_PATIENTS", 2)
    X, unit, patient = _population(np.random.default_rng(0), 150)
    of_image = patient[unit]
    ranked, bank = outliers._drawn_images(of_image, 1)
    assert 40 < len(bank) <= 50
    assert ranked.tolist() == bank.tolist() == np.flatnonzero(np.isin(of_image, of_image[ranked])).tolist()
    learned = learn_outliers(X, unit, patient, seed=1)
    assert all(len(ranks.distances) == len(np.unique(unit[ranked])) for ranks in learned.ranks.values())
    assert learned.bank.tobytes() == learn_outliers(X, unit, patient, seed=1).bank.tobytes()
    assert learned.bank.tobytes() != learn_outliers(X, unit, patient, seed=2).bank.tobytes()


def test_ranks_rest_on_enough_patients_where_few_fill_the_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "BANK_IMAGES", 50)
    monkeypatch.setattr(outliers, "RANKED_PATIENTS", 30)
    of_image = np.repeat(np.arange(40), 20)
    ranked, bank = outliers._drawn_images(of_image, 0)
    assert len(np.unique(of_image[ranked])) == 30
    assert len(ranked) == 600
    counts = np.unique(of_image[bank], return_counts=True)[1]
    assert (len(bank), len(counts), counts.max()) == (50, 30, 2)
    assert np.isin(bank, ranked).all()


def test_a_unit_without_an_image_is_refused(learned: Outliers) -> None:
    X = np.ones((2, 12), np.float32)
    with pytest.raises(UsageError, match="each of 3 units needs an image; 1 have none"):
        learned.p_values(X, np.array([0, 2]), n_units=3)


def test_it_comes_back_from_arrays(learned: Outliers) -> None:
    X, unit, patient = _population(np.random.default_rng(2), 40)
    again = Outliers.from_arrays(learned.to_arrays())
    for method, p in again.p_values(X, unit, n_units=len(patient)).items():
        assert p.tobytes() == learned.p_values(X, unit, n_units=len(patient))[method].tobytes()


def test_one_patient_alone_is_refused() -> None:
    with pytest.raises(DataError, match="2 or more patients; found 1"):
        learn_outliers(np.ones((3, 2), np.float32), np.arange(3), np.zeros(3), seed=0)
