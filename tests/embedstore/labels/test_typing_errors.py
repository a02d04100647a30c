"""Rare labels that look like frequent ones."""

from __future__ import annotations

import pytest

from embedstore.datasets.table import Table
from embedstore.labels.typing_errors import likely_typing_errors


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"yes": 100, "no": 100, "yess": 1}, "'yess' 1, near 'yes' 100"),
        ({"Cardiomegaly": 30, "Cardiomegly": 3, "Edema": 2}, "'Cardiomegly' 3, near 'Cardiomegaly' 30"),
        ({"Cardiomegaly": 29, "Cardiomegly": 3}, None),
        ({"grade 1": 500, "grade 2": 1}, None),
        ({"normal": 500, "abnormal": 3}, None),
        ({"COVID": 500, "non-COVID": 3}, None),
        ({"left": 500, "right": 2}, None),
        ({}, None),
    ],
)
def test_only_a_rare_label_near_a_frequent_one_is_said(counts, said):
    assert likely_typing_errors(counts) == said


def test_the_summary_names_a_mistyped_class_and_a_mistyped_finding(tmp_path):
    lines = ["path,sign,x"]
    lines += [f"{row}.png,{('no', 'yes')[row % 2]},{('Mass', 'Edema')[row % 2]}" for row in range(60)]
    lines += ["60.png,yess,Edem|Mass"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    said = Table(label=["sign", "x"], label_separator="x=|").read(tmp_path / "t.csv").summary
    assert said["sign: typing errors?"] == "'yess' 1, near 'yes' 30"
    assert said["x: typing errors?"] == "'Edem' 1, near 'Edema' 30"
