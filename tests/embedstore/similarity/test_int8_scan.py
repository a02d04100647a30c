"""A scan may be wrong, but never by more than it says."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.similarity.int8_scan import int8_scan, is_exact_here
from embedstore.similarity.plain_scan import PlainScan
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


@pytest.mark.parametrize("make", [PlainScan, int8_scan])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cosine_is_never_further_off_than_the_bound(kind, make):
    vectors = KINDS[kind]
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    units = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
    queries = np.concatenate([units[::40], RNG.normal(size=(20, wide.shape[1]))])
    norms = np.linalg.norm(queries, axis=1, keepdims=True)
    queries = np.divide(queries, norms, out=np.zeros_like(queries), where=norms > 0)
    scores = make(vectors).scores_of(queries).of_rows(slice(0, len(vectors)))
    cosines = scores.base + scores.factor * scores.values
    off = np.abs(units @ queries.T - cosines)
    assert (off <= scores.bound).all()
    assert (scores.bound < 0.06).all()
    if kind != "one number each" and make is int8_scan:
        # The bound is of use: random rows are off by a fraction of it.
        assert np.median(off) < scores.bound.max() / 3


def test_a_scan_of_some_rows_is_that_of_all():
    vectors = KINDS["as encoders make them"]
    queries = vectors[:3].astype(np.float64) / np.linalg.norm(vectors[:3].astype(np.float64), axis=1)[:, None]
    some = np.array([5, 7, 1000])
    scores = int8_scan(vectors).scores_of(queries)
    np.testing.assert_array_equal(scores.of_rows(some).values, scores.of_rows(slice(0, 3000)).values[some])


def test_this_processor_multiplies_int8_exactly():
    assert is_exact_here()
