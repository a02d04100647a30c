"""Options and settings about labels, in every form in which they come."""

from __future__ import annotations

import pytest

from embedstore.errors import DataError, UsageError
from embedstore.labels.label_rules import label_rules

COLUMNS = ["path", "a", "b", "c, d", "e..f"]


@pytest.mark.parametrize("given", [["g=a,b"], "g=a, b", {"g": ["a", "b"]}, {"g": "a,b"}])
def test_a_group_is_a_text_or_a_mapping(given):
    assert label_rules(label_group=given).groups == {"g": ("a", "b")}


def test_a_range_of_a_group_is_written_out_and_names_with_commas_are_quoted():
    rules = label_rules(label_group=['g=a.."c, d"', 'h="c, d",e..f'])
    assert rules.groups["h"] == ("c, d", "e..f")
    assert label_rules(label_group={"g": ["a..c, d"], "h": ["e..f"]}).with_columns(COLUMNS).groups == {
        "g": ("a", "b", "c, d"),
        "h": ("e..f",),
    }
    with pytest.raises(UsageError, match=r"'a' comes before 'b' in the table; write a\.\.b"):
        label_rules(label_group="g=b..a").with_columns(COLUMNS)
    with pytest.raises(UsageError, match="`label_group g` names the column 'b' twice"):
        label_rules(label_group="g=a..b,b").with_columns(COLUMNS)


@pytest.mark.parametrize(
    ("given", "of_a", "of_b"),
    [("|", "|", "|"), (["a=|"], "|", None), (["a=|", ";"], "|", ";"), ({"b": ";"}, None, ";"), (" | ", "|", "|"),
     (" ", " ", " "), ("x=y", "x=y", "x=y")],
)  # fmt: skip
def test_a_separator_is_for_all_label_columns_or_for_one(given, of_a, of_b):
    rules = label_rules(label=["a", "b"], label_separator=given)
    assert (rules.separator_of("a"), rules.separator_of("b")) == (of_a, of_b)


def test_a_column_may_be_a_label_and_stand_in_groups():
    rules = label_rules(label="a", label_group=["g=a,b", "h=b"])
    assert rules.columns == ("a", "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": ["a", "a"]}, "`label` names the column 'a' twice"),
        ({"label_group": "g"}, "`label_group` takes NAME=COLUMN,COLUMN"),
        ({"label_group": "g="}, "`label_group` takes NAME=COLUMN,COLUMN"),
        ({"label_group": ["g=a", "g=b"]}, "`label_group` g is given twice"),
        ({"label_group": "g=a,a"}, "`label_group g` names the column 'a' twice"),
        ({"label_group": [7]}, "`label_group` takes NAME=COLUMN,COLUMN,...; found 7"),
        ({"label_separator": "|"}, "`label_separator` splits the cells of `label`"),
        ({"label": "a", "label_separator": ["|", ";"]}, "given twice for all label columns"),
        ({"label": "a", "label_separator": {"b": "|"}}, "'b' is no label column"),
        ({"label": "a", "label_separator": ""}, "must be text that is not empty"),
        (
            {"uncertain": "perhaps"},
            "`uncertain` must be one of missing, positive, negative, class; found 'perhaps'",
        ),
        ({"empty": "no"}, "`empty` must be one of missing, negative; found 'no'"),
        ({"positive": "a"}, "`positive` is a class of `label`"),
    ],
)
def test_impossible_rules_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        label_rules(**options)


def test_a_unit_is_written_in_one_way():
    assert label_rules(unit="study_id").unit == "study"
    with pytest.raises(DataError, match="unit must be"):
        label_rules(unit="study_id,study_id")
