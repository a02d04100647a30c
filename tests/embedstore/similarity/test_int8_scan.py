"""A scan may be wrong, but never by more than it says."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.similarity.int8_scan import int8_scan, is_exact_here
from embedstore.similarity.plain_scan import PlainScan, WideScan
from tests.embedstore.similarity.test_exact_search import outputs

RNG = np.random.default_rng(0)
KINDS = {
    "as encoders make them": outputs(RNG, 3000),
    "noise": RNG.normal(size=(2000, 1152)).astype(np.float32),
    "near duplicates": (RNG.normal(size=96) + 1e-3 * RNG.normal(size=(2000, 96))).astype(np.float32),
    "one number each": np.eye(64, dtype=np.float16)[RNG.integers(0, 64, 500)],
    "some without length": outputs(RNG, 600) * (RNG.random((600, 1)) < 0.5),
    "all alike": np.ones((400, 8), np.float16),
    "of all sizes": outputs(RNG, 500).astype(np.float32)
    * np.geomspace(1e-20, 1e20, 500)[:, None].astype(np.float32),
}


def cosines_of(kind):
    """Return vectors, some queries of length 1 or 0, and (queries, rows) cosines in float64."""
    vectors = KINDS[kind]
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    units = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
    queries = np.concatenate([units[::40], RNG.normal(size=(20, wide.shape[1]))])
    norms = np.linalg.norm(queries, axis=1, keepdims=True)
    queries = np.divide(queries, norms, out=np.zeros_like(queries), where=norms > 0)
    return vectors, queries, queries @ units.T


@pytest.mark.parametrize("make", [PlainScan, WideScan, int8_scan])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cosine_is_never_further_off_than_the_bound(kind, make):
    vectors, queries, cosines = cosines_of(kind)
    scores = make(vectors).scores_of(queries).of_rows(slice(0, len(vectors)))
    at = np.indices(cosines.shape).reshape(2, -1)
    least, most = (side.reshape(cosines.shape) for side in scores.of_pairs(*at))
    assert (least - 1e-15 <= cosines).all()
    assert (cosines <= most + 1e-15).all()
    assert (most - least < 0.12).all()
    if kind != "one number each" and make is int8_scan:
        # The bound is of use: most rows are off by a fraction of it.
        off = np.abs(cosines - (least + most) / 2)
        assert (off <= (most - least) / 6).mean() > 0.5


@pytest.mark.parametrize("make", [PlainScan, WideScan, int8_scan])
@pytest.mark.parametrize("kind", ["as encoders make them", "some without length"])
def test_vectors_of_length_one_are_taken_as_they_are(kind, make):
    vectors, queries, _ = cosines_of(kind)
    wide = vectors.astype(np.float64)
    units = (wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-9)).astype(np.float16)
    scores = make(units, unit=True).scores_of(queries).of_rows(slice(0, len(units)))
    products = queries @ units.astype(np.float64).T
    least, most = scores.of_pairs(*np.indices(products.shape).reshape(2, -1))
    assert (least - 1e-15 <= products.ravel()).all()
    assert (products.ravel() <= most + 1e-15).all()


@pytest.mark.parametrize("make", [PlainScan, WideScan, int8_scan])
def test_a_scan_of_some_rows_is_that_of_all(make):
    vectors, queries, _ = cosines_of("as encoders make them")
    some = np.array([5, 10, 1000])
    scan = make(vectors)
    of_all = scan.scores_of(queries).of_rows(slice(0, 3000)).values[:, some].copy()
    of_some = (
        scan.taken(np.arange(0, 3000, 5)).taken(some // 5).scores_of(queries).of_rows(slice(0, 3)).values
    )
    np.testing.assert_allclose(of_some, of_all, rtol=1e-5, atol=1e-6)


def test_rows_that_may_reach_a_cosine_are_all_that_do():
    vectors, queries, cosines = cosines_of("near duplicates")
    scores = int8_scan(vectors).scores_of(queries).of_rows(slice(0, len(vectors)))
    tenth = np.sort(cosines, axis=1)[:, -10]
    found = np.zeros(cosines.shape, bool)
    found[scores.that_may_reach(tenth)] = True
    assert found[cosines >= tenth[:, None]].all()
    assert (scores.surely_reached(10, None) <= tenth).all()


def test_this_processor_multiplies_int8_exactly():
    assert is_exact_here()
