"""How messages list what they cannot name in full."""

from __future__ import annotations

import pytest

from embedstore.errors import and_more, first_few
from embedstore.manifest import manifest_from_columns
from embedstore.store.reader import open_store


@pytest.mark.parametrize(
    ("names", "shown", "said"),
    [
        ([], 2, ""),
        (["a"], 2, "a"),
        (["a", "b"], 2, "a, b"),
        (["a", "b", "c"], 2, "a, b and 1 more"),
        (map(str, range(1203)), 3, "0, 1, 2 and 1,200 more"),
    ],
)
def test_a_list_is_whole_or_says_how_many_more(names, shown, said):
    assert first_few(names, shown=shown) == said


def test_a_list_that_is_whole_has_no_more():
    assert (and_more(0), and_more(-2), and_more(4)) == ("", "", " and 4 more")


def test_messages_use_it(tmp_path):
    with pytest.raises(ValueError, match="4 occur more than once: 'a', 'b', 'c' and 1 more"):
        manifest_from_columns(
            {"image_id": [*"abcdabcd"], "path": ["x"] * 8},
            source="t",
        )
    for name in "abcdefg":
        (tmp_path / name).touch()
    with pytest.raises(Exception, match="found a, b, c, d, e and 2 more"):
        open_store(tmp_path)


def test_half_a_store_is_recognised_behind_however_many_other_files(tmp_path):
    for name in "abcdefg":
        (tmp_path / name).touch()
    (tmp_path / "parts").mkdir()
    with pytest.raises(Exception, match=r"holds parts but no store\.json"):
        open_store(tmp_path)
