import dataclasses
import hashlib
import json

import pytest

from embedstore.errors import DataError, IdentityMismatch
from embedstore.identity import Identity, identity_from_json

IDENTITY = Identity("hog", "1", "none", {"preset": "pad", "size_px": 444}, "cells", "float32", 1152)
_OTHERS = {"preprocess": {"preset": "hf"}, "options": {"cells": 8}}


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
