"""Messages about one file without anything that the file or its name says."""

from __future__ import annotations

import re

# `embedstore.images.hostile.describe` writes "what: kind of error: words of a library", and those may quote a value.
_LIBRARY_WORDS = re.compile(r"^([^:]*: [A-Za-z_]\w*): .*", re.DOTALL)
_QUOTED = re.compile(r"b?'[^']*'|b?\"[^\"]*\"")
# A UID, a date or a number of a patient; sizes of pictures and counts are shorter.
_LONG_NUMBER = re.compile(r"\d+(?:\.\d+){3,}|\d{6,}")
_NOTHING = "..."


def without_values(message: str) -> str:
    """Return a message of a refusal without quoted values, long numbers, and words of a library.

    Examples
    --------
    >>> without_values("the pixels cannot be decoded: ValueError: no value 'Anna' here")
    'the pixels cannot be decoded: ValueError'
    >>> without_values("no codec for the transfer syntax '1.2.840.113619.5.2'")
    'no codec for the transfer syntax ...'
    """
    short = _LIBRARY_WORDS.sub(r"\1", message)
    return _LONG_NUMBER.sub(_NOTHING, _QUOTED.sub(_NOTHING, short))
