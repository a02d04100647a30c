"""Labels as plain words, and which of them say that nothing was found."""

from __future__ import annotations

import pytest

from embedstore.labels.label_words import label_words, says_nothing_found


@pytest.mark.parametrize(
    ("entry", "nothing"),
    [("No Finding", True), (" no_finding ", True), ("NORMAL", True), ("none", True), ("unremarkable", True),
     ("Nodule", False), ("benign", False), ("No", False), ("normal variant", False), ("0", False)],
)  # fmt: skip
def test_entries_of_lists_that_say_nothing_was_found(entry, nothing):
    assert says_nothing_found(entry) is nothing


@pytest.mark.parametrize(
    ("label", "words"),
    [("BI-RADS_4a", "bi rads 4a"), (" (Mild). ", "mild"), ("Ｎｏｒｍａｌ", "normal"), ("a  b", "a b")],
)
def test_case_dashes_and_outer_punctuation_make_no_difference(label, words):
    assert label_words(label) == words
