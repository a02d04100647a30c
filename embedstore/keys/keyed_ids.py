"""Pseudonyms: keyed digests of what names a patient, a study, a series, an order or an image.

Whoever has the key makes the same digest from an identifier; nobody turns a digest back.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata

_HEX_DIGITS = 32  # 128 bits of HMAC-SHA256
_FINGERPRINT_DIGITS = 16
# What is hashed for a fingerprint holds no NUL, which every keyed id has behind its level: the two never meet.
_FINGERPRINT_OF = b"embedstore key"

# The DICOM attribute that names something -> (level, column of the manifest).
CLINICAL_IDS = {
    "PatientID": ("patient", "patient_id"),
    "StudyInstanceUID": ("study", "study_id"),
    "SeriesInstanceUID": ("series", "series_id"),
    "AccessionNumber": ("accession", "accession_id"),
    "SOPInstanceUID": ("image", "image_id"),
}


def keyed_id(secret: bytes, level: str, identifier: bytes) -> str:
    """Return the pseudonym of an identifier: 32 hexadecimal digits of HMAC-SHA256.

    Parameters
    ----------
    secret
        The key.
    level
        What it names: ``patient``, ``study``, ``series``, ``accession``, ``image``, ``path`` or ``root``. One
        number may name a patient and a study; their pseudonyms differ.
    identifier
        As `identifier_bytes` writes it.

    Examples
    --------
    >>> keyed_id(b"0123456789abcdef", "patient", b"P1") == keyed_id(b"0123456789abcdef", "study", b"P1")
    False
    """
    digest = hmac.new(secret, level.encode() + b"\0" + identifier, hashlib.sha256)
    return digest.hexdigest()[:_HEX_DIGITS]


def fingerprint_of(secret: bytes) -> str:
    """Return what tells one key from another without giving it away: 16 hexadecimal digits of HMAC-SHA256."""
    return hmac.new(secret, _FINGERPRINT_OF, hashlib.sha256).hexdigest()[:_FINGERPRINT_DIGITS]


def identifier_bytes(text: str) -> bytes:
    """Return the one form of an identifier: composed characters (NFC) in UTF-8, without padding.

    A name with an umlaut has one pseudonym, whatever the character set of the file or the spreadsheet.

    Examples
    --------
    >>> identifier_bytes(" M\u0075\u03081 ") == identifier_bytes("M\u00fc1")
    True
    """
    # A path may hold bytes that are not UTF-8.
    return unicodedata.normalize("NFC", text).strip(" \0\t\r\n\u00a0\ufeff").encode("utf-8", "surrogatepass")
