"""T1 or T2 by the words of a series."""

from __future__ import annotations

import re

T1, T2 = "T1", "T2"
# T12 is a vertebra.
_T1 = re.compile(r"(?<![a-z0-9])t1(?![0-9])", re.IGNORECASE)
_T2 = re.compile(r"(?<![a-z0-9])t2(?![0-9])|(?<![a-z])stir(?![a-z])", re.IGNORECASE)


def said_weighting(words: str) -> str:
    """Return which weighting words say, T2 (or STIR) or T1; ``""`` for none or both.

    Examples
    --------
    >>> said_weighting("Sagittal T2/STIR"), said_weighting("sag t1_tse"), said_weighting("T1 T2"), said_weighting("T12")
    ('T2', 'T1', '', '')
    """
    t1, t2 = (bool(pattern.search(words)) for pattern in (_T1, _T2))
    return "" if t1 == t2 else T1 if t1 else T2
