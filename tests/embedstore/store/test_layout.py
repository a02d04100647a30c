"""Rows of a chunk by size, and chunk files as the format says."""

import numpy as np
import pytest

from embedstore.errors import DataError
from embedstore.store.layout import ArrayPlan, PartPlan, default_chunk_rows, encode_chunk, planned_arrays
from embedstore.store.reader import open_store
from embedstore.store.writer import open_writer
from tests.stores import IDENTITY, TOKEN_IDENTITY, make_store, manifest_of


@pytest.mark.parametrize(
    ("shape", "dtype", "rows"),
    [
        ((1152,), "float16", 256),
        ((1152,), "float32", 256),
        ((32_768,), "float16", 256),  # 64 KiB a row: 16 MiB hold exactly 256
        ((1024, 64), "float16", 128),  # 128 KiB a row
        ((1024, 64), "float32", 64),
        ((1024, 1152), "float16", 7),  # 2.25 MiB a row
        ((4096, 1152), "float32", 1),  # 18 MiB a row: a chunk is never empty
    ],
)
def test_rows_of_a_chunk_follow_from_the_size_of_its_largest_array(shape, dtype, rows):
    names = tuple(f"axis{number}" for number in range(len(shape)))
    arrays = {
        "vectors": ArrayPlan((4,), dtype, ("feature",), "vector"),
        "other": ArrayPlan(shape, dtype, names, "what is measured"),
    }
    assert default_chunk_rows(arrays) == rows


def test_a_number_of_rows_that_is_given_wins(tmp_path):
    for number, given in enumerate((None, 7)):
        with open_writer(tmp_path / f"s{number}", IDENTITY, say=print) as writer:
            plan = writer.plan_part(
                manifest_of(4), dataset="t", data_root="r", chunk_rows=given, dtype="float16"
            )
        assert plan.chunk_rows == (given or 256)


def test_a_plan_survives_json_and_must_have_the_arrays_of_its_identity(tmp_path):
    plan = make_store(tmp_path / "s", identity=TOKEN_IDENTITY)
    document = plan.to_json()
    assert PartPlan.from_json(document, source="x") == plan
    assert open_store(tmp_path / "s").parts[0].plan == plan
    without = {name: entry for name, entry in document["arrays"].items() if name != "tokens"}
    with pytest.raises(ValueError, match="arrays must be those of its identity"):
        PartPlan.from_json(document | {"arrays": without}, source="x")
    with pytest.raises(DataError, match="not an identity"):
        PartPlan.from_json(document | {"identity": {}}, source="x")


def test_vectors_are_written_first_and_digests_of_pixels_last(tmp_path):
    plan = make_store(tmp_path / "s", identity=TOKEN_IDENTITY)
    assert list(plan.stored_arrays) == ["vectors", "tokens", "content"]
    assert list(planned_arrays(TOKEN_IDENTITY, "float16")) == ["vectors", "tokens"]


def test_a_chunk_of_a_grid_is_its_rows_in_c_order_padded_with_nan():
    array = ArrayPlan((2, 3), "float16", ("token", "token_feature"), "tokens")
    rows = np.arange(12, dtype="<f2").reshape(2, 2, 3)
    payload = encode_chunk(rows, array, chunk_rows=3)
    assert len(payload) == 3 * 6 * 2 + 4
    assert payload[:24] == rows.tobytes()
    assert np.isnan(np.frombuffer(payload[24:36], "<f2")).all()
