"""What a receipt may say of a file whose owner is hidden."""

import pytest

from embedstore.errors import ImageRefused
from embedstore.images.hostile import refusing
from embedstore.keys.quiet_messages import without_values


@pytest.mark.parametrize(
    ("message", "quiet"),
    [
        ("the file does not exist", "the file does not exist"),
        ("a file may have at most 512 bytes; found 1,048", "a file may have at most 512 bytes; found 1,048"),
        ("found '19500611' instead", "found ... instead"),
        ("study 1.2.840.113619.2.55.3 is odd", "study ... is odd"),
        ("born 19500611, number 4711223", "born ..., number ..."),
        ("cannot be read: struct.error: b'Anna'", "cannot be read: struct.error: ..."),
    ],
)
def test_values_are_left_out_and_words_stay(message, quiet):
    assert without_values(message) == quiet


def test_words_of_a_parser_are_left_out_whatever_they_quote():
    with pytest.raises(ImageRefused) as caught, refusing("the pixels cannot be decoded"):
        raise ValueError("Anna Müller, born 1950, is no number")
    assert without_values(caught.value.message) == "the pixels cannot be decoded: ValueError"
