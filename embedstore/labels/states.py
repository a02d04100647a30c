"""Cells of a finding's own column (0, 1, -1, empty, yes, no) -> states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# States of a finding in a cell. Numbers of their own, so that an uncertain cell and a certain one are told apart
# until the labels of a unit are compared.
MISSING, NO, YES, UNCERTAIN = -1, 0, 1, 2
STATE_CLASSES = ("0", "1", "uncertain")
FINDING_CLASSES = STATE_CLASSES[:2]

# In English, German, French and Spanish; and how forms and spreadsheets tick a box.
_NO_WORDS = frozenset(
    {"no", "n", "false", "f", "negative", "neg", "absent", "unchecked", "unticked", "nein", "non", "\u2610"}
)
_YES_WORDS = frozenset(
    {
        "yes",
        "y",
        "true",
        "t",
        "positive",
        "pos",
        "present",
        "checked",
        "ticked",
        "x",
        "ja",
        "oui",
        "si",
        "s\xed",
    }
    | set("\u2611\u2612\u2713\u2714\u2715\u2717\xd7")
)
_UNCERTAIN_WORDS = frozenset({"uncertain", "u", "maybe", "equivocal", "possible", "unklar", "fraglich"})
_BY_NUMBER = {0.0: NO, 1.0: YES, -1.0: UNCERTAIN}


def read_states(cells: Sequence[str]) -> npt.NDArray[np.int8] | None:
    """Return the state of each cell, or None where one is neither 0, 1, -1 nor a word for one of them.

    Parameters
    ----------
    cells
        Cells that are not empty.

    Returns
    -------
    numpy.ndarray or None
        int8, (cells,): `NO`, `YES` or `UNCERTAIN`.
    """
    states = [state_of(cell) for cell in cells]
    return None if None in states else np.array(states, np.int8).reshape(-1)


def state_of(cell: str) -> int | None:
    """Return the state that a cell says, or None.

    Examples
    --------
    >>> state_of("1.0") == YES, state_of("no") == NO, state_of("-1") == UNCERTAIN, state_of("2")
    (True, True, True, None)
    """
    text = cell.strip().casefold()
    for words, state in ((_NO_WORDS, NO), (_YES_WORDS, YES), (_UNCERTAIN_WORDS, UNCERTAIN)):
        if text in words:
            return state
    try:
        return _BY_NUMBER.get(float(text))
    except ValueError:
        return None
