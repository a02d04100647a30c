"""The nearest vectors are those of a float64 scan, for every scan, batch, filter, exclusion and number of cores."""

from __future__ import annotations

from fractions import Fraction

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import UsageError
from embedstore.similarity import candidates, exact_search
from embedstore.similarity.exact_search import ExactSearch


@pytest.fixture(params=["plain", "int8"])
def scan(request, monkeypatch):
    """Every search of a test takes one scan."""
    monkeypatch.setattr(exact_search, "_CODING", 1e9 if request.param == "plain" else 0.0)
    return request.param


def brute_force(vectors, queries, k, *, allowed=None):
    """Rank by the cosine in float64, the earlier row first among those that are equal to 15 digits."""
    wide, asked = vectors.astype(np.float64), queries.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1), np.linalg.norm(asked, axis=1)
    scale = np.outer(*norms[::-1])
    cosines = np.divide(asked @ wide.T, scale, out=np.zeros_like(scale), where=scale > 0).round(14)
    if allowed is not None:
        cosines = np.where(allowed, cosines, -2)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(cosines, order, 1)
    return np.where(found == -2, -1, order), np.where(found == -2, -1, found)


def outputs(rng, rows, dim=96):
    """Vectors as encoders make them: a common direction, a few outlying dimensions, clusters."""
    spread = np.arange(1, dim + 1) ** -0.6
    spread[::17] *= 6
    centres = rng.normal(size=(12, dim)) * spread
    return (3 * spread + centres[rng.integers(0, 12, rows)] + rng.normal(size=(rows, dim)) * spread).astype(
        np.float16
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_nearest_are_those_of_a_float64_scan(scan, dtype):
    vectors = outputs(np.random.default_rng(0), 5000).astype(dtype)
    queries = vectors[::50].astype(np.float32)
    rows, cosines = ExactSearch(vectors).search(queries, 10)
    expected, expected_cosines = brute_force(vectors, queries, 10)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(cosines, expected_cosines, atol=1e-13)


def test_and_those_of_faiss():
    vectors = outputs(np.random.default_rng(1), 3000).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    _, expected = flat.search(vectors[:40], 5)
    rows, _ = ExactSearch(vectors).search(vectors[:40], 5)
    np.testing.assert_array_equal(rows, expected)


# Cosines of 500 cine frames differ by 1e-4, of copies by 1e-6, which is less than single precision tells apart.
@pytest.mark.parametrize("noise", [0.01, 0.003, 1e-3])
@pytest.mark.parametrize("count", [500, 20_000])
def test_near_duplicates_are_told_apart(scan, noise, count):
    rng = np.random.default_rng(2)
    base = rng.normal(size=192)
    vectors = (base + noise * rng.normal(size=(count, 192))).astype(np.float32)
    rows, _ = ExactSearch(vectors).search(vectors[:20], 10)
    np.testing.assert_array_equal(rows, brute_force(vectors, vectors[:20], 10)[0])
    np.testing.assert_array_equal(rows[:, 0], np.arange(20))


def test_copies_come_in_the_order_of_their_rows_on_any_number_of_cores(scan):
    rng = np.random.default_rng(3)
    different = outputs(rng, 40)
    copies = rng.integers(0, 40, 3000)
    search = ExactSearch(different[copies])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            rows, cosines = search.search(different.astype(np.float32), 25)
            for query in range(40):
                # Each of the 40 has more than 25 copies.
                np.testing.assert_array_equal(rows[query], np.flatnonzero(copies == query)[:25])
                assert len(set(cosines[query])) == 1
    finally:
        torch.set_num_threads(threads)


def test_a_query_alone_has_the_bits_that_it_has_in_a_batch(scan):
    vectors = outputs(np.random.default_rng(4), 2000)
    queries = vectors[:300].astype(np.float32)
    search = ExactSearch(vectors)
    rows, cosines = search.search(queries, 7)
    for query in (0, 17, 299):
        alone = search.search(queries[query : query + 1], 7)
        np.testing.assert_array_equal(alone[0][0], rows[query])
        np.testing.assert_array_equal(alone[1][0], cosines[query])


def drawn_vectors(data, rng):
    """Draw vectors as encoders make them or near duplicates, with copies and images without an edge."""
    count, dim = data.draw(st.integers(1, 400)), data.draw(st.sampled_from([1, 3, 24, 65]))
    if data.draw(st.booleans()):
        vectors = outputs(rng, count, dim)
    else:
        vectors = rng.normal(size=dim) + 0.01 * rng.normal(size=(count, dim))
    for _ in range(data.draw(st.integers(0, 3))):
        vectors[rng.integers(0, count)] = vectors[rng.integers(0, count)] * rng.integers(0, 2)
    return vectors.astype(data.draw(st.sampled_from([np.float16, np.float32])))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_combination_of_options_is_that_of_brute_force(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    vectors, k = drawn_vectors(data, rng), data.draw(st.integers(1, 30))
    count, asked = len(vectors), data.draw(st.sampled_from([1, 12, 70]))
    groups = rng.integers(-1, 20, count)
    queries = vectors[rng.integers(0, count, asked)].astype(np.float32)
    among = np.flatnonzero(rng.random(count) < 0.6) if data.draw(st.booleans()) else None
    outside = rng.integers(-1, 20, asked) if data.draw(st.booleans()) else None
    without = rng.integers(-1, count, asked) if data.draw(st.booleans()) else None
    allowed = np.ones((asked, count), bool)
    if among is not None:
        allowed &= np.isin(np.arange(count), among)
    if outside is not None:
        allowed &= (groups != outside[:, None]) | (outside[:, None] < 0)
    if without is not None:
        allowed &= np.arange(count) != without[:, None]
    search = ExactSearch(vectors, groups)
    search._plain_work = data.draw(st.sampled_from([0, 1000]))  # which scan is taken
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_search, "_BATCH", data.draw(st.sampled_from([3, 128])))
        patch.setattr(exact_search, "_CROWD", data.draw(st.sampled_from([0, 256])))
        patch.setattr(exact_search, "_COSINE", data.draw(st.sampled_from([3.0, 1e9])))
        patch.setattr(exact_search, "_MOST_PAIRS", data.draw(st.sampled_from([20, 1 << 22])))
        patch.setattr(exact_search, "_SAMPLE", data.draw(st.sampled_from([2, 1024])))
        patch.setattr(exact_search, "_ROWS_OF_A_THREAD", 50)
        patch.setattr(exact_search, "thread_count", lambda: data.draw(st.sampled_from([1, 3])))
        patch.setattr(candidates, "_BLOCK_CELLS", data.draw(st.sampled_from([1 << 7, 1 << 17])))
        patch.setattr(candidates, "_LEAST_ROWS", 16)
        rows, cosines = search.search(queries, k, among=among, outside=outside, without=without)
    expected, expected_cosines = brute_force(vectors, queries, k, allowed=allowed)
    found = np.minimum(k, count)
    np.testing.assert_array_equal(rows[:, :found], expected)
    np.testing.assert_allclose(cosines[:, :found], expected_cosines, atol=1e-13)
    assert (rows[:, found:] == -1).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([0.0, 1e-3, 0.3]))
def test_on_the_grid_of_float16_a_cosine_is_right_to_the_last_bit(seed, k, noise):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=48)
    vectors = base + noise * rng.normal(size=(300, 48))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    queries = np.rint(vectors[:20].astype(np.float64) * 1.001 * 2**24) / 2**24
    # Whole numbers of any size, which Python multiplies and adds without rounding.
    whole = [
        (np.rint(of.astype(np.float64) * 2**24)).astype(np.int64).astype(object) for of in (queries, vectors)
    ]
    exact = (whole[0] @ whole[1].T).astype(np.int64)
    search = ExactSearch(vectors, unit=True)
    search._plain_work = 1000
    rows, cosines = search.search(queries, k)
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(cosines, np.take_along_axis(exact, expected, 1) / 2.0**48)


def test_a_cosine_is_right_to_the_last_digits():
    rng = np.random.default_rng(5)
    vectors = outputs(rng, 50, 40)
    _, cosines = ExactSearch(vectors).search(vectors[:1].astype(np.float32), 50)
    exact = [[Fraction(float(number)) for number in row] for row in vectors]
    length = [sum(number * number for number in row) for row in exact]
    squares = sorted(
        (
            float(sum(a * b for a, b in zip(exact[0], row, strict=True)) ** 2 / (length[0] * own))
            for row, own in zip(exact, length, strict=True)
        ),
        reverse=True,
    )
    np.testing.assert_allclose(cosines[0] ** 2, squares, rtol=1e-14)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_length_does_not_matter(scan, size):
    vectors = outputs(np.random.default_rng(6), 500).astype(np.float32)
    scaled = vectors * np.geomspace(1, size, 500, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(
        ExactSearch(scaled).search(scaled[:9], 4)[0], brute_force(vectors, vectors[:9], 4)[0]
    )


def test_constant_vectors_are_all_equally_near(scan):
    search = ExactSearch(np.ones((700, 16), np.float16))
    np.testing.assert_array_equal(search.search(np.ones((1, 16)), 3)[0], [[0, 1, 2]])
    assert search.search(np.zeros((1, 16)), 2)[1].tolist() == [[0, 0]]


def test_nothing_to_find():
    rows, cosines = ExactSearch(np.zeros((0, 4), np.float16)).search(np.ones((2, 4)), 3)
    assert rows.tolist() == [[-1] * 3] * 2
    assert cosines.tolist() == [[-1] * 3] * 2


def test_wrong_arguments_are_named():
    search = ExactSearch(np.ones((3, 4), np.float16))
    with pytest.raises(UsageError, match="k must be at least 1; found 0"):
        search.search(np.ones((1, 4)), 0)
    with pytest.raises(UsageError, match="outside needs the groups"):
        search.search(np.ones((1, 4)), 1, outside=np.zeros(1, np.int64))
