"""Pseudonyms: HMAC-SHA256 by the standard library's other interface, one for each level, one for each spelling."""

import hashlib

import pytest

from embedstore.keys.keyed_ids import fingerprint_of, identifier_bytes, keyed_id

SECRET = b"0123456789abcdef"


def by_definition(message):
    """Return HMAC-SHA256 as RFC 2104 defines it; the key is shorter than a block of 64 bytes."""
    block = SECRET.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).hexdigest()


def test_a_pseudonym_is_an_hmac_of_level_and_identifier():
    assert keyed_id(SECRET, "patient", b"4711") == by_definition(b"patient\x004711")[:32]


def test_a_fingerprint_is_an_hmac_of_words_that_no_identifier_can_be():
    assert fingerprint_of(SECRET) == by_definition(b"embedstore key")[:16]


@pytest.mark.parametrize("spelled", ["Müller", "Mu\u0308ller", " Müller ", "Müller\0", "\ufeffMüller\r\n"])
def test_one_identifier_has_one_form(spelled):
    assert identifier_bytes(spelled) == "Müller".encode()


def test_zeros_in_front_are_part_of_an_identifier():
    assert identifier_bytes("007") != identifier_bytes("7")
