"""Labels that are rare and spelled nearly as a frequent one: said, never mended."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

_NEAR = 0.8  # share of letters that two words have in common, as `difflib` counts them
_TIMES = 10  # how much more frequent the other one must be
_SHOWN = 5


def likely_typing_errors(counts: Mapping[str, int]) -> str | None:
    """Return a line on labels that may be typing errors of others, or None.

    Labels that differ in digits only (``grade 1``, ``grade 2``) are no typing errors.

    Parameters
    ----------
    counts
        Label -> number of rows.

    Examples
    --------
    >>> likely_typing_errors({"yes": 120, "no": 300, "yess": 1})
    "'yess' 1, near 'yes' 120"
    """
    found = []
    for label, count in sorted(counts.items()):
        frequent = [
            name for name, own in counts.items() if own >= _TIMES * count and _plain(name) != _plain(label)
        ]
        near = difflib.get_close_matches(label, frequent, n=1, cutoff=_NEAR)
        if near and not _opposite(label, near[0]):
            found.append(f"{label!r} {count:,}, near {near[0]!r} {counts[near[0]]:,}")
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more if found else None


def _plain(label: str) -> str:
    return re.sub(r"\d+", "#", label)


def _opposite(one: str, other: str) -> bool:
    """Whether one is the other behind a prefix, as in abnormal and normal, non-COVID and COVID."""
    longer, shorter = sorted((one.casefold(), other.casefold()), key=len, reverse=True)
    return len(longer) - len(shorter) > 1 and longer.endswith(shorter)
