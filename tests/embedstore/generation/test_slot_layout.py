"""Where codes stand among tokens: found by what changes, and refused where a code is not one token."""

from __future__ import annotations

import re

import numpy as np
import pytest

from embedstore.errors import UsageError
from embedstore.generation.slot_layout import slot_layout
from embedstore.lumbar.levels import TARGETS
from embedstore.lumbar.severity_codes import write_response


def by_pieces(pattern: str) -> object:
    """Return an encoder that cuts text by a pattern and numbers the pieces as they come."""
    numbers: dict[str, int] = {}
    return lambda text: [numbers.setdefault(piece, len(numbers)) for piece in re.findall(pattern, text)]


def test_characters_and_longer_pieces_give_the_places_of_the_codes() -> None:
    text = write_response([0] * 25)
    # By hand: the last level's right subarticular code stands before two braces and its quotation mark.
    layout = slot_layout(by_pieces("."))
    assert layout.positions[TARGETS.index("right_subarticular_stenosis_l5_s1")] == len(text) - 4
    assert layout.positions[TARGETS.index("spinal_canal_stenosis_l1_l2")] == len('{"L1L2":{"canal":"')
    pieces = slot_layout(by_pieces(r'":"|","|.'))
    assert len(pieces.skeleton) == len(layout.skeleton) - 2 * 25 - 2 * 20
    assert np.array_equal(np.argsort(pieces.positions), np.argsort(layout.positions))


def test_answers_are_written_slot_by_slot_as_the_tokenizer_writes_them() -> None:
    encode = by_pieces(r'":"|","|.')
    layout = slot_layout(encode)
    classes = np.random.default_rng(0).integers(0, 3, (4, 25))
    expected = [encode(write_response(row.tolist())) for row in classes]
    assert layout.answer_ids(classes).tolist() == expected
    layout.require_same(encode, classes)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        # N is joined to the mark behind it.
        (r'[N]"|.', "N and M of spinal_canal_stenosis_l1_l2 differ by other than one token"),
        # A code and the marks around it are one token: fine as long as it is one.
        (r'"(?:N|M)"|.', "N and S of spinal_canal_stenosis_l1_l2 differ by other than one token"),
    ],
)
def test_codes_of_several_tokens_are_refused(pattern: str, found: str) -> None:
    with pytest.raises(UsageError, match=f"`score_slots` needs a tokenizer .* found that {found}"):
        slot_layout(by_pieces(pattern))


def test_codes_that_share_a_token_are_refused() -> None:
    with pytest.raises(UsageError, match=r"M and S|N and S of spinal_canal_stenosis_l1_l2|the same token"):
        slot_layout(lambda text: [ord(letter) if letter != "S" else ord("M") for letter in text])


def test_codes_that_are_joined_across_slots_are_refused() -> None:
    # M of two neighbours is written as one token more, which single changes from N do not show.
    encode = by_pieces(r".")

    def joined(text: str) -> list[int]:
        return [*encode(text), *([-1] if '"lf":"M","rf":"M"' in text else [])]

    layout = slot_layout(joined)
    layout.require_same(joined, np.zeros((1, 25), np.int64))
    with pytest.raises(UsageError, match="codes beside each other are joined"):
        layout.require_same(joined, np.ones((1, 25), np.int64))
