"""A part is a Zarr group that needs nothing of this project to be read."""

import json

import numpy as np
import zarr

from embedstore.errors import Reason
from tests.stores import DIM, TOKEN_IDENTITY, content_of, make_store, tokens_of, vectors_of


def test_plain_zarr_opens_a_part_as_a_group_with_named_dimensions(tmp_path):
    make_store(
        tmp_path / "s",
        rows=20,
        chunk_rows=8,
        chunks=(0, 2),
        failures={17: (Reason.TIMEOUT, "slow")},
        identity=TOKEN_IDENTITY,
    )
    # A warning would be an error here: folders that are no arrays stay out of sight.
    group = zarr.open_group(tmp_path / "s" / "parts" / "0000", mode="r")
    assert sorted(group.array_keys()) == ["content", "tokens", "vectors"]
    named = {name: (array.shape, array.metadata.dimension_names) for name, array in group.arrays()}
    assert named == {
        "vectors": ((20, DIM), ("row", "feature")),
        "tokens": ((20, 2, 3), ("row", "token", "token_feature")),
        "content": ((20, 32), ("row", "digest_byte")),
    }
    gone = [*range(8, 16), 17]
    vectors, tokens, content = vectors_of(0, 20), tokens_of(0, 20)["tokens"], content_of(0, 20).copy()
    vectors[gone], tokens[gone], content[gone] = np.nan, np.nan, 0
    np.testing.assert_array_equal(group["vectors"][:], vectors)
    np.testing.assert_array_equal(group["tokens"][:], tokens)
    np.testing.assert_array_equal(group["content"][:], content)


def test_axes_of_one_name_have_one_length_in_a_part(tmp_path):
    """What xarray asks of a group before it opens it as one data set."""
    make_store(tmp_path / "s", identity=TOKEN_IDENTITY)
    group = zarr.open_group(tmp_path / "s" / "parts" / "0000", mode="r")
    lengths = {}
    for _, array in group.arrays():
        for name, length in zip(array.metadata.dimension_names, array.shape, strict=True):
            assert lengths.setdefault(name, length) == length


def test_the_group_document_repeats_the_arrays_own_metadata(tmp_path):
    make_store(tmp_path / "s", identity=TOKEN_IDENTITY)
    part = tmp_path / "s" / "parts" / "0000"
    group = json.loads((part / "zarr.json").read_text())
    assert (group["zarr_format"], group["node_type"]) == (3, "group")
    for name in ("vectors", "tokens", "content"):
        alone = json.loads((part / name / "zarr.json").read_text())
        assert group["consolidated_metadata"]["metadata"][name] == alone
