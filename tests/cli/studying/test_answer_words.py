"""What an answer says in words, from numbers that a person can check."""

from __future__ import annotations

import pytest

from cli.studying.answer_words import (
    answer_in_words,
    is_lumbar,
    lumbar_table,
    notes_in_words,
    probability_in_words,
    set_in_words,
)
from embedstore.lumbar.levels import TARGETS


def of(shares, decision, held=()):
    return {"probabilities": shares, "decision": decision, "conformal_set": held}


def answer(targets, **more):
    plain = {
        "unit_id": "s1",
        "image_id": None,
        "images": 2,
        "conformal_coverage": 0.9,
        "unlike_training": False,
    }
    plain |= {"learned_from": False, "partial": False, "run_id": "abc", "notice": "Research software."}
    return {**plain, "targets": targets, **more}


@pytest.mark.parametrize(
    ("shares", "decision", "positive", "words"),
    [
        ({"no": 0.694, "yes": 0.306}, "no", "yes", "Of 100 studies with this answer, about 31 are yes."),
        ({"no": 0.001, "yes": 0.999}, "yes", "yes", "Of 100 studies with this answer, nearly all are yes."),
        ({"no": 0.999, "yes": 0.001}, "no", "yes", "Of 100 studies with this answer, hardly any is yes."),
        # Of three grades the one that was decided for.
        ({"a": 0.1, "b": 0.7, "c": 0.2}, "b", "c", "Of 100 studies with this answer, about 70 are b."),
    ],
)
def test_a_probability_is_said_as_a_frequency(shares, decision, positive, words):
    assert probability_in_words(of(shares, decision), positive=positive, unit="study") == words


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (None, "No set at 90 %: a class had too few cases to promise one."),
        ([], "At 90 % no class fits: it looks like none of the cases of either class."),
        (["no"], "At 90 % only no remains: sets like this hold the truth in 90 % of cases."),
        (["a", "b", "c"], "At 90 % it stays open: a, b or c."),
    ],
)
def test_a_set_says_what_stays_open(held, words):
    assert set_in_words(of({"no": 1.0}, "no", held), 0.9) == words


def test_what_speaks_against_an_answer_is_said_first():
    plain = {"targets": {}}
    assert notes_in_words(answer(plain)) == [
        {"kind": "plain", "text": "Looks like the images that the run learned from."}
    ]
    assert "keeps no vectors" in notes_in_words(answer(plain, unlike_training=None))[0]["text"]
    doubtful = answer(
        plain,
        unlike_training=True,
        learned_from=True,
        partial=True,
        level_unsure=True,
        kinds_unseen={"modality": ["CT"]},
        metadata_unseen={"site": ["B"]},
    )
    warnings = [note["text"] for note in notes_in_words(doubtful) if note["kind"] == "warning"]
    assert warnings == [
        "Unlike the images that the run learned from: do not rely on this answer.",
        "The run never saw modality CT.",
        "The run never saw site B; it counts as none of its values.",
        "The run learned from this very case: its answer is no evidence.",
        "The names of the levels are unsure and may be one off.",
    ]


def test_a_target_without_an_image_has_no_bars():
    found = answer_in_words(
        answer({"t": of(None, None)}), classes=("no", "yes"), positive="yes", unit="image"
    )
    (target,) = found["targets"]
    assert target["bars"] == []
    assert target["words"] == "No image that was sent speaks for this."
    assert target["set_words"] == ""


def test_the_25_targets_fill_a_table_of_five_levels():
    table = lumbar_table()
    assert [row["level"] for row in table["rows"]] == ["L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"]
    assert sorted(name for row in table["rows"] for name in row["targets"]) == sorted(TARGETS)
    assert table["columns"][1] == "Foramen left"
    assert table["rows"][3]["targets"][1] == "left_neural_foraminal_narrowing_l4_l5"
    assert is_lumbar(dict.fromkeys(TARGETS))
    assert not is_lumbar({"abnormal": None, TARGETS[0]: None})
    classes = ("Normal/Mild", "Moderate", "Severe")
    shares = dict(zip(classes, (0.2, 0.7, 0.1), strict=True))
    named = of(shares, "Moderate", None) | {"prevalence": {"assumed": shares}}
    found = answer_in_words(
        answer(dict.fromkeys(TARGETS, named)), classes=classes, positive="Severe", unit="study"
    )
    assert found["lumbar"] is True
    assert found["codes"].count('"M"') == 25
