"""The nearest of anybody are found among those of others and one's own, as a search among all finds them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from embedstore.audit.audited_rows import AuditedRows


@pytest.mark.parametrize("patients", [1, 40, 300])
def test_the_nearest_of_anybody_are_those_of_a_brute_force(patients: int) -> None:
    rng = np.random.default_rng(patients)
    vectors = rng.normal(size=(300, 16)).astype(np.float16)
    vectors[10:14] = vectors[200:204]  # equal vectors, of which the earlier row comes first
    vectors[7] = 0
    names = [f"p{number}" for number in rng.integers(0, patients, 300)]
    ids = [str(number) for number in range(300)]
    table = pa.table({"image_id": ids, "patient_id": names, "study_id": names})
    rows = AuditedRows(table, vectors, np.arange(300))
    units = vectors.astype(np.float64)[rows.firsts]
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -2)
    expected = np.argsort(-cosines.round(12), axis=1, kind="stable")[:, :4]
    found, distances = rows.nearest
    assert 7 not in rows.firsts
    np.testing.assert_array_equal(found, rows.firsts[expected])
    np.testing.assert_allclose(distances, 1 - np.take_along_axis(cosines, expected, 1), atol=1e-12)
