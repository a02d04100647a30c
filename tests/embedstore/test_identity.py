import dataclasses
import hashlib
import json

import pytest

from embedstore.encoders.hog import HogEncoder
from embedstore.errors import DataError, IdentityMismatch, UsageError
from embedstore.identity import ArraySpec, Identity, identity_from_json

TOKENS = ArraySpec((1024, 64), ("token", "token_feature"), "tokens after the last layer norm")
IDENTITY = Identity("hog", "1", "none", {"preset": "pad", "size_px": 444}, "cells", "float32", 1152)
_OTHERS = {
    "preprocess": {"preset": "hf"},
    "options": {"cells": 8},
    "arrays": {"tokens": TOKENS},
    "declared": {"encoder": "other"},
}


def test_the_digest_is_that_of_the_sorted_compact_json():
    text = json.dumps(IDENTITY.to_json(), sort_keys=True, separators=(",", ":"))
    assert IDENTITY.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_an_identity_survives_json():
    assert identity_from_json(json.loads(json.dumps(IDENTITY.to_json())), source="x") == IDENTITY


def test_json_with_another_field_is_refused():
    with pytest.raises(DataError, match=r"store\.json: not an identity"):
        identity_from_json({**IDENTITY.to_json(), "colour": "red"}, source="store.json")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Identity)])
def test_every_field_counts(field):
    other = dataclasses.replace(IDENTITY, **{field: _OTHERS.get(field, "other")})
    assert other.sha256 != IDENTITY.sha256
    with pytest.raises(IdentityMismatch, match=field):
        IDENTITY.require_same(other, holder="store x")


def test_a_mismatch_names_the_nested_field_and_both_values():
    other = dataclasses.replace(IDENTITY, preprocess={"preset": "eval", "size_px": 444})
    assert IDENTITY.differences(other) == {"preprocess.preset": ("pad", "eval")}
    with pytest.raises(IdentityMismatch, match=r"store x .*preprocess\.preset: 'pad' there, 'eval' asked"):
        IDENTITY.require_same(other, holder="store x")


def test_the_identity_of_hog_is_that_of_the_first_release():
    # Stores and runs of format version 1 stay compatible with vectors made today by the rules of then: pixels as
    # they lie.
    assert (
        HogEncoder(square_pixels=False).identity.sha256
        == "ce23509b026292bfea2edd233bff20afec06e6cb1b7c59cf85396e8317582041"
    )


def test_an_identity_without_further_arrays_does_not_mention_them():
    assert set(IDENTITY.to_json()) == {
        "encoder", "revision", "weights_sha256", "preprocess", "pooling", "compute_dtype", "dim",
    }  # fmt: skip


def test_an_identity_with_further_arrays_survives_json_and_names_what_differs():
    identity = dataclasses.replace(IDENTITY, arrays={"tokens": TOKENS})
    assert identity_from_json(json.loads(json.dumps(identity.to_json())), source="x") == identity
    assert identity.to_json()["arrays"] == {
        "tokens": {
            "row_shape": [1024, 64],
            "dimensions": ["token", "token_feature"],
            "row": "tokens after the last layer norm",
        }
    }
    other = dataclasses.replace(identity, arrays={"tokens": dataclasses.replace(TOKENS, row="raw tokens")})
    with pytest.raises(
        IdentityMismatch, match=r"arrays\.tokens\.row: 'tokens after the last layer norm' there, 'raw tokens'"
    ):
        identity.require_same(other, holder="store x")


@pytest.mark.parametrize(
    ("row_shape", "dimensions", "row", "message"),
    [
        ((), (), "x", r"row_shape must hold lengths of at least 1; found \(\)"),
        ((4, 0), ("a", "b"), "x", r"at least 1; found \(4, 0\)"),
        ((4, 2), ("a",), "x", r"each of the 2 axes of a row once; found \('a',\)"),
        ((4, 2), ("a", "a"), "x", r"each of the 2 axes of a row once"),
        ((4,), ("row",), "x", r"not 'row'; found 'row'"),
        ((4,), ("a b",), "x", r"found 'a b'"),
        ((4,), ("a",), "", r"row must say in a few words"),
    ],
)
def test_a_further_array_that_is_not_described_is_refused(row_shape, dimensions, row, message):
    with pytest.raises(UsageError, match=message):
        ArraySpec(row_shape, dimensions, row)


@pytest.mark.parametrize("name", ["vectors", "content", "receipts", "tables", "zarr", "../x", "Tokens", ""])
def test_a_further_array_cannot_take_a_name_that_a_part_uses(name):
    with pytest.raises(UsageError, match="a further array's name must be"):
        dataclasses.replace(IDENTITY, arrays={name: TOKENS})


def test_axes_of_one_name_have_one_length():
    wide = ArraySpec((7, 64), ("token", "feature"), "tokens")
    with pytest.raises(
        UsageError, match=r"dimension 'feature' of array 'tokens' must be 1152 long, .* found 64"
    ):
        dataclasses.replace(IDENTITY, arrays={"tokens": wide})
    dataclasses.replace(IDENTITY, arrays={"tokens": ArraySpec((7, 1152), ("token", "feature"), "tokens")})


def test_a_damaged_description_of_an_array_is_no_identity():
    document = {**IDENTITY.to_json(), "arrays": {"tokens": {"row_shape": [2]}}}
    with pytest.raises(DataError, match=r"store\.json: not an identity"):
        identity_from_json(document, source="store.json")


def test_an_identity_without_options_is_that_of_stores_from_before_there_were_any():
    # Digest of the fields as they stood then, by hand.
    fields = ("encoder", "revision", "weights_sha256", "preprocess", "pooling", "compute_dtype", "dim")
    text = json.dumps(
        {name: getattr(IDENTITY, name) for name in fields}, sort_keys=True, separators=(",", ":")
    )
    assert IDENTITY.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_options_survive_json_and_are_named_where_they_differ():
    small, large = (dataclasses.replace(IDENTITY, options={"cells": cells}) for cells in (8, 12))
    assert identity_from_json(json.loads(json.dumps(small.to_json())), source="x") == small
    assert small.differences(large) == {"options.cells": (8, 12)}
    assert small.differences(IDENTITY) == {"options.cells": (8, None)}
