"""Cells that list findings, in the ways that people and programs write lists."""

from __future__ import annotations

import pytest

from embedstore.errors import DataError
from embedstore.labels.finding_lists import looks_like_lists, read_finding_lists


def read(*cells, separator="|", counts=None):
    return read_finding_lists(cells, counts or [1] * len(cells), separator, where="t.csv: column 'x'")


@pytest.mark.parametrize(
    "cell",
    [
        "Mass|Nodule/Mass|a, b",
        " Mass | Nodule/Mass|a, b |",
        "||Mass|Nodule/Mass||a, b",
        "['Mass', 'Nodule/Mass', 'a, b']",
        '["Mass", "Nodule/Mass", "a, b"]',
        "['Mass' 'Nodule/Mass'\n 'a, b']",
        "('Mass', 'Nodule/Mass', 'a, b',)",
        "{'Mass', 'a, b', 'Nodule/Mass'}",
        "[' Mass ', '', 'Nodule/Mass', \"a, b\"]",
        "Mass|Mass|a, b|Nodule/Mass",
    ],
)
def test_every_way_to_write_a_list_names_the_same_findings(cell):
    lists = read(cell, "No Finding")
    assert lists.findings == ("a, b", "Mass", "Nodule/Mass")
    assert lists.states.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert lists.nothing_found.tolist() == [False, True]


def test_quotes_inside_a_list_are_those_of_python():
    lists = read(r"['Bochdalek\'s hernia', " '"Kerley\'s lines"]', r"[]", separator=",")
    assert lists.findings == ("Bochdalek's hernia", "Kerley's lines")
    assert lists.empty.tolist() == [False, True]
    assert lists.states.tolist() == [[1, 1], [-1, -1]]


def test_escapes_of_python_and_json_are_read_and_nothing_is_evaluated():
    cells = [r'["Nodule\/Mass", "caf\u00e9"]', r"""['caf\xe9', "café \"au\" lait"]"""]
    assert read(*cells).findings == ("café", 'café "au" lait', "Nodule/Mass")


def test_unquoted_lists_are_split_at_commas():
    assert read("[mass, loc heart]", separator=",").findings == ("loc heart", "mass")


def test_spellings_that_differ_by_case_are_the_most_frequent_one():
    lists = read("mass|Edema", "Mass", "MASS", counts=[2, 5, 1])
    assert lists.findings == ("Edema", "Mass")
    assert lists.respelled == {("mass", "Mass"): 2, ("MASS", "Mass"): 1}


def test_nothing_found_beside_a_finding_is_a_contradiction_without_labels():
    lists = read("No Finding|Mass", "Mass", "normal")
    assert lists.contradictions == ("No Finding|Mass",)
    assert lists.states.tolist() == [[-1], [1], [0]]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["a;b", "c"], r"no cell holds the separator '\|', and 1 different ones hold ';', such as 'a;b'"),
        (["['a', b]"], r"entries of a list must be quoted text"),
        (["['a', __import__('os')]"], r"entries of a list must be quoted text"),
        (["['a', 'b'"], r"a list must end in '\]'"),
        (["No Finding", "normal"], r"names no finding; found only 'No Finding', 'normal'"),
    ],
)
def test_what_is_no_list_is_refused(cells, message):
    with pytest.raises(DataError, match=rf"t.csv: column 'x': .*{message}"):
        read(*cells)


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["A|B", "A", "B"], "|"),
        (["A;B;C", "A", "C"], ";"),
        (["['a']", "['b', 'c']"], ","),
        (["yes", "no"], None),
        (["Effusion|Mass", "Mass|Nodule", "No Finding"], "|"),
        (["A;B", "B;C"], ";"),
        (["Nodule/Mass", "effusion, left", "none"], None),
        (["effusion, left", "effusion, right"], None),
        (["grade 1|mild", "grade 2|severe"], None),
        ([], None),
    ],
)
def test_columns_that_look_like_lists_are_known(cells, separator):
    assert looks_like_lists(cells) == separator
