import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedstore.exchange.column_names import OUR_NAMES, exported_name, label_name, original_name

# What Arrow can hold as a name: any text without half surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PIECES = st.sampled_from(
    ["vectors", "label", ":", "_", "%", "%5F", "%2F", "/", "a", "A", ".", ".npy", " ", "\0", "é", "e\u0301"]
)
NAMES = TEXT | st.lists(PIECES, max_size=5).map("".join) | st.sampled_from(OUR_NAMES)


@given(NAMES, NAMES)
@example("a/b", "a%2Fb")
@example("vectors", "vectors_")
@example("", "_")
def test_a_name_leads_back_and_two_names_never_become_one(one, other):
    assert original_name(exported_name(one)) == one
    assert (exported_name(one) == exported_name(other)) == (one == other)


@given(NAMES)
def test_no_column_has_a_name_of_ours_or_one_that_a_format_cannot_hold(name):
    found = exported_name(name)
    assert found.casefold() not in {ours.casefold() for ours in OUR_NAMES}
    assert not found.casefold().startswith("label:")
    assert not re.search(r"[/\\\x00-\x1f]", found)
    assert found not in (".", "..")
    assert not found.endswith(".npy")
    assert found == found.strip()


@pytest.mark.parametrize(
    "name", ["patient_id", "file", "Alter in Jahren", "größe", "age.years", "label", "x_", "日本"]
)
def test_a_name_that_every_format_holds_stays(name):
    assert exported_name(name) == name


def test_labels_stand_apart_from_columns():
    assert label_name("t", "a:b") == "label:t:a:b"
    assert exported_name("label:t:a") == "label_:t:a"
    assert original_name("label:t:a") is None
    assert original_name("vectors") is None
