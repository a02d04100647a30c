"""Which of two classes is positive: never a word for "nothing found"."""

from __future__ import annotations

import pytest

from embedstore.errors import DataError
from embedstore.labels.class_order import order_classes


@pytest.mark.parametrize(
    ("negative", "positive"),
    [
        ("normal", "abnormal"),
        ("Normal", "Pneumonia"),
        ("negative", "positive"),
        ("no", "yes"),
        ("N", "Y"),
        ("nein", "ja"),
        ("benign", "malignant"),
        ("healthy", "diseased"),
        ("absent", "Present"),
        ("control", "case"),
        ("0", "1"),
        ("0", "-2"),
        ("0.0", "abnormal"),
        ("No Finding", "Finding"),
        ("no_finding", "Cardiomegaly"),
        ("false", "FALSE POSITIVE"),
        ("none", "mass"),
        ("no fracture", "fracture"),
        ("without contrast", "contrast"),
        ("non-COVID", "COVID"),
        ("NonDemented", "Demented"),
        ("tumor absent", "tumor"),
        ("COVID negative", "COVID"),
        ("unaffected", "affected"),
        ("unauffällig", "auffällig"),
        ("o.B.", "Fraktur"),
        ("-", "+"),
        ("low", "high"),
        ("normal", "low"),
        ("No. 1", "No. 2"),
        ("1", "2"),
        ("9", "10"),
        ("A", "B"),
    ],
)
def test_the_word_for_nothing_found_comes_first(negative, positive):
    assert order_classes({negative, positive}, where="t") == (negative, positive)
    assert order_classes([positive, negative], where="t") == (negative, positive)
    assert order_classes([positive, negative], negative, where="t") == (positive, negative)


@pytest.mark.parametrize(
    "both", [("normal", "benign"), ("no", "absent"), ("0", "none"), ("no mass", "no nodule")]
)
def test_two_words_for_nothing_found_are_refused_until_one_is_named(both):
    with pytest.raises(DataError, match=r"t: .* both say that nothing was found.*`positive`"):
        order_classes(both, where="t")
    assert order_classes(both, both[0], where="t") == (both[1], both[0])


def test_more_than_two_classes_are_sorted_as_numbers_or_text():
    assert order_classes({"10", "9", "8"}, where="t") == ("8", "9", "10")
    assert order_classes({"normal", "mild", "benign"}, "mild", where="t") == ("benign", "mild", "normal")
