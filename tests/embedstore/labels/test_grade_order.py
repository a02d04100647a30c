"""Labels that are grades by their words stand in the order that clinicians give them."""

from __future__ import annotations

import random

import pytest

from embedstore.labels.grade_order import grade_order, grades_in_words

ORDERS = [
    ("normal", "mild", "moderate", "severe"),
    ("Normal/Mild", "Moderate", "Severe"),  # RSNA lumbar
    ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR"),  # APTOS
    ("NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"),
    ("none", "trace", "slight", "marked"),
    ("no stenosis", "mild stenosis", "mild to moderate stenosis", "severe stenosis"),
    ("N", "M", "S"),
    ("low risk", "intermediate risk", "high risk", "very high risk"),
    ("well differentiated", "moderately differentiated", "poorly differentiated", "undifferentiated"),
    ("BI-RADS 1", "BI-RADS 2", "BI-RADS 4A", "BI-RADS 4C", "BI-RADS 5"),
    ("birads2", "birads3", "birads10"),
    ("1", "2", "4A", "4B"),
    ("KL0", "KL1", "KL2", "KL3", "KL4"),
    ("Kellgren-Lawrence grade 0", "Kellgren-Lawrence grade 1", "Kellgren-Lawrence grade 10"),
    ("normal", "grade 1", "grade 2", "grade 11"),
    ("I", "II", "III", "IV", "V", "IX", "X", "XI"),
    ("0", "I", "II", "III", "IV"),
    ("stage IA", "stage IB", "stage IIIA", "stage IV"),
    ("TR1", "TR2", "TR3"),
]
NO_ORDERS = [
    ("CT", "MR", "US"),
    ("normal", "benign", "malignant"),
    ("normal", "pneumonia", "covid"),
    ("BI-RADS 0", "BI-RADS 1", "BI-RADS 2"),  # 0: not yet assessed
    ("low", "normal", "high"),  # of a laboratory's values
    ("mild", "slight", "severe"),  # which of the first two is graver?
    ("mild edema", "severe effusion", "moderate edema"),  # two findings
    ("type 1", "type 2", "type 3"),
    ("T1", "T2", "FLAIR"),
    ("KL 1", "BI-RADS 2", "KL 3"),
    ("normal", "healthy", "mild"),
    ("no", "negative", "mild"),
    ("poor", "fair", "good"),
    ("mild", "moderate", "other"),
    ("I", "1", "II"),
    ("normal", "grade 0", "grade 1"),
]  # fmt: skip


@pytest.mark.parametrize("labels", ORDERS, ids=", ".join)
def test_grades_go_from_the_least_to_the_gravest(labels: tuple[str, ...]) -> None:
    shuffled = random.Random(0).sample(labels, len(labels))
    found = grade_order(shuffled)
    assert found is not None
    assert found.labels == labels


@pytest.mark.parametrize("labels", NO_ORDERS, ids=", ".join)
def test_labels_whose_order_is_in_doubt_have_none(labels: tuple[str, ...]) -> None:
    assert grade_order(labels) is None


def test_the_scale_is_named() -> None:
    named = [
        grade_order(labels)
        for labels in (("KL 2", "KL 1"), ("BIRADS-3", "BIRADS-2"), ("II", "I"), ("grade 2", "grade 1"))
    ]
    assert [found.scale for found in named if found] == [
        "Kellgren-Lawrence",
        "BI-RADS",
        "Roman numerals",
        "grades",
    ]


def test_a_line_is_said_of_three_grades_or_more_that_stand_in_their_order() -> None:
    assert grades_in_words(("KL 1", "KL 2", "KL 3")) == "KL 1 < KL 2 < KL 3, by Kellgren-Lawrence"
    assert grades_in_words(("KL 3", "KL 2", "KL 1")) is None
    assert grades_in_words(("mild", "severe")) is None
