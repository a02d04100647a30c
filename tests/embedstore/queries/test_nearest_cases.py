"""The nearest units, against NumPy over all pairs, for every combination of what may be asked."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.queries.nearest_cases import Asked, UnitIndex, unit_index
from embedstore.queries.search import Index

# Vectors along the axes and along the diagonals, whose lengths are whole: equal cosines are frequent, and exact.
DIM = 4
AXES = [tuple(sign * (at == axis) for at in range(DIM)) for axis in range(DIM) for sign in (1, -2)]
DIAGONALS = [(1, 1, 1, 1), (1, -1, 1, -1), (-1, -1, 1, 1), (2, 2, -2, 2)]
VECTORS = st.sampled_from([*AXES, *DIAGONALS])


def index_of(vectors: np.ndarray[Any, Any], studies: list[str | None], patients: list[str | None]) -> Index:
    ids = [f"i{row}" for row in range(len(vectors))]
    columns = {"image_id": ids, "study_id": pa.array(studies, pa.string())}
    table = pa.table({**columns, "patient_id": pa.array(patients, pa.string())})
    return Index(table, np.array(ids, object), np.arange(len(vectors)), vectors)


def brute_force(
    index: Index, units: list[str], asked: Asked, k: int, findable: np.ndarray[Any, Any]
) -> list[tuple[str, str, float]]:
    """Rank all images by cosine and then by row, and keep the first of each unit."""
    best: dict[int, float] = {}
    patients = index.table.column("patient_id").to_pylist()
    for row, vector in enumerate(index.vectors.astype(np.float64)):
        left_out = patients[row] in asked.patients or f"i{row}" in asked.image_ids
        if left_out or units[row] in asked.unit_ids or not findable[row]:
            continue
        cosines = [
            float(vector @ query / np.sqrt((vector @ vector) * (query @ query)))
            for query in asked.vectors.astype(np.float64)
            if query.any()
        ]
        if cosines:
            best[row] = max(cosines)
    found: dict[str, tuple[str, str, float]] = {}
    for row in sorted(best, key=lambda row: (-best[row], row)):
        found.setdefault(units[row], (units[row], f"i{row}", best[row]))
    return list(found.values())[:k]


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_whatever_is_asked_the_units_are_those_of_brute_force(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 24))
    vectors = np.array([data.draw(VECTORS) for _ in range(rows)], np.float32)
    names = st.sampled_from(["a", "b", "c", "d", "e", None])
    studies = [data.draw(names) for _ in range(rows)]
    patients = [data.draw(st.sampled_from(["p", "q", None])) for _ in range(rows)]
    index = index_of(vectors, studies, patients)
    grouped = unit_index(index, data.draw(st.sampled_from(["study", "image"])))
    units = grouped.units.tolist()
    findable = np.array([data.draw(st.booleans()) or row == 0 for row in range(rows)])
    queries = st.lists(st.one_of(VECTORS, st.just((0,) * DIM)), min_size=1, max_size=3)
    asked = [
        Asked(
            vectors=np.array(data.draw(queries), np.float32),
            patients=data.draw(st.lists(st.sampled_from(["p", "q", "gone"]), max_size=2, unique=True)),
            image_ids=data.draw(st.lists(st.sampled_from(["i0", "i1", "i2", "gone"]), max_size=2)),
            unit_ids=data.draw(st.lists(st.sampled_from([*units, "gone"]), max_size=1)),
        )
        for _ in range(data.draw(st.integers(1, 3)))
    ]
    k = data.draw(st.integers(1, 5))
    everything = data.draw(st.booleans())
    # However few images are looked at first.
    first = data.draw(st.integers(1, 6))
    with mock.patch.object(UnitIndex, "_first_width", return_value=first):
        found = grouped.nearest(asked, k=k, findable=None if everything else findable)
    for one, hits in zip(asked, found, strict=True):
        expected = brute_force(index, units, one, k, findable | everything)
        assert [(hit.unit_id, f"i{hit.position}") for hit in hits] == [pair[:2] for pair in expected]
        np.testing.assert_allclose([hit.cosine for hit in hits], [pair[2] for pair in expected], atol=1e-12)
