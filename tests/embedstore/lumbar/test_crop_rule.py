"""The rule of crops: what it says in an identity, and what it refuses."""

import pytest

from embedstore.errors import DataError, UsageError
from embedstore.lumbar.crop_rule import CropRule, rule_from_json


@pytest.mark.parametrize(
    "rule", [CropRule(), CropRule(42.5, 3, "localised", "ab" * 32), CropRule(neighbours=0)]
)
def test_a_rule_comes_back_from_what_an_identity_says(rule):
    assert rule_from_json(rule.to_json(), source="a store") == rule


def test_every_part_of_a_rule_is_told():
    documents = [
        rule.to_json()
        for rule in (
            CropRule(),
            CropRule(size_mm=40),
            CropRule(neighbours=2),
            CropRule(points="localised", localiser_sha256="ab" * 32),
            CropRule(points="localised", localiser_sha256="cd" * 32),
        )
    ]
    assert all(one != other for one in documents for other in documents if one is not other)
    assert "localiser_sha256" not in documents[0]


@pytest.mark.parametrize("size_mm", [9.9, 301.0, -50.0, float("nan"), float("inf")])
def test_a_size_no_spine_has_is_refused(size_mm):
    with pytest.raises(UsageError, match="from 10 to 300 mm"):
        CropRule(size_mm=size_mm)


def test_neighbours_and_origin_are_checked():
    with pytest.raises(UsageError, match="0 or more; found -1"):
        CropRule(neighbours=-1)
    with pytest.raises(UsageError, match="oracle, localised; found 'guessed'"):
        CropRule(points="guessed")


@pytest.mark.parametrize(
    "changed", [{"rules": 2}, {"sides": "as they are"}, {"size_mm": "wide"}, {"further": 1}, {"points": "x"}]
)
def test_a_rule_of_another_version_is_refused(changed):
    with pytest.raises(DataError, match="a store: "):
        rule_from_json(CropRule().to_json() | changed, source="a store")
    with pytest.raises(DataError, match="not a rule"):
        rule_from_json({"rules": 1}, source="a store")
