"""Generated answers about a lumbar study: one JSON object with a code for each of five conditions at five levels.

``{"L1L2":{"canal":"N","lf":"N","rf":"N","ls":"N","rs":"N"},"L2L3":{...},...}``, where N is normal or mild, M moderate
and S severe: the schema of https://huggingface.co/LamNH147/medgemma-lumbar-finetune. Generated text keeps to it more or
less; what is read in spite of a flaw, and what cannot be read, is counted by its kind.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.lumbar.levels import CONDITIONS, LEVELS, TARGETS
from embedstore.view import MISSING

CODES = ("N", "M", "S")
LEVEL_KEYS = tuple(level.replace("_", "").upper() for level in LEVELS)
CONDITION_KEYS = ("canal", "lf", "rf", "ls", "rs")  # in the order of `CONDITIONS`
# Kinds of flaws of a whole response: the first four leave nothing to read.
EMPTY, NO_JSON, BROKEN_JSON, WRONG_KEYS = "empty", "no JSON", "broken JSON", "no key of a level"
EXTRA_TEXT, SEVERAL = "text around the JSON", "several answers, the first taken"
# Kinds of flaws of cells: the first three leave the cell unread.
NO_LEVEL, NO_CODE, UNKNOWN_CODE = "no key of the level", "no key of the condition", "unknown code"
LOWER_CASE, UNKNOWN_KEY, REPEATED_KEY = "lower-case code", "unknown key", "repeated key, the last taken"
UNREAD_RESPONSES = (EMPTY, NO_JSON, BROKEN_JSON, WRONG_KEYS)
FLAWS_OF_RESPONSES = (*UNREAD_RESPONSES, EXTRA_TEXT, SEVERAL)
FLAWS_OF_CELLS = (NO_LEVEL, NO_CODE, UNKNOWN_CODE, LOWER_CASE, UNKNOWN_KEY, REPEATED_KEY)
# Text that opens a brace again and again is not searched for ever.
_BRACES_TRIED = 1000


@dataclass(frozen=True)
class ReadResponse:
    """What a response says.

    Parameters
    ----------
    classes
        (25,) int64 in the order of `TARGETS`: 0, 1, 2, or `MISSING` where nothing can be read.
    flaws
        Kind of flaw -> how often; of `FLAWS_OF_RESPONSES` once at most.
    """

    classes: npt.NDArray[np.int64]
    flaws: Mapping[str, int]


def read_response(text: str) -> ReadResponse:
    """Read one generated answer; never refuses.

    The first JSON object with the key of a level counts, whatever stands around it. Codes may be lower-case and stand
    in blanks; words (``Normal``) are not codes. Of a key that is repeated the last counts, as in every reader of JSON.

    Examples
    --------
    >>> found = read_response('The answer: {"L1L2": {"canal": "S", "lf": "m"}}')
    >>> found.classes[[0, 5]].tolist(), found.flaws["text around the JSON"], found.flaws["lower-case code"]
    ([2, 1], 1, 1)
    """
    flaws: Counter[str] = Counter()
    classes = np.full(len(TARGETS), MISSING, np.int64)
    answer = _answer(text, flaws)
    if answer is None:
        return ReadResponse(classes, flaws)
    flaws[UNKNOWN_KEY] += len(answer.keys() - set(LEVEL_KEYS))
    for column, key in enumerate(LEVEL_KEYS):
        of_level = answer.get(key)
        if not isinstance(of_level, dict):
            flaws[NO_LEVEL] += len(CONDITION_KEYS)
            continue
        flaws[UNKNOWN_KEY] += len(of_level.keys() - set(CONDITION_KEYS))
        for row, condition in enumerate(CONDITION_KEYS):
            if condition not in of_level:
                flaws[NO_CODE] += 1
            else:
                classes[row * len(LEVELS) + column] = _class(of_level[condition], flaws)
    return ReadResponse(classes, +flaws)


def write_response(classes: Iterable[int]) -> str:
    """Return the answer as the schema has it, without a blank: 25 classes (0, 1, 2) in the order of `TARGETS`.

    What is `MISSING` has no key, nor has a level of which all is.

    Examples
    --------
    >>> write_response([0] * 24 + [2]).partition('"L5S1":')[2]
    '{"canal":"N","lf":"N","rf":"N","ls":"N","rs":"S"}}'
    >>> write_response([1] + [MISSING] * 24)
    '{"L1L2":{"canal":"M"}}'
    """
    numbers = np.fromiter(classes, np.int64).reshape(len(CONDITIONS), len(LEVELS)).tolist()
    answer = {
        level: {
            condition: CODES[row[column]]
            for condition, row in zip(CONDITION_KEYS, numbers, strict=True)
            if row[column] != MISSING
        }
        for column, level in enumerate(LEVEL_KEYS)
    }
    return json.dumps({level: said for level, said in answer.items() if said}, separators=(",", ":"))


def _class(code: object, flaws: Counter[str]) -> int:
    """Return the class of a code, `MISSING` where it is none."""
    written = code.strip() if isinstance(code, str) else ""
    if written.upper() not in CODES or len(written) != 1:
        flaws[UNKNOWN_CODE] += 1
        return MISSING
    flaws[LOWER_CASE] += written not in CODES
    return CODES.index(written.upper())


def _answer(text: str, flaws: Counter[str]) -> dict[str, Any] | None:
    """Return the first object with the key of a level, or None; and count what is wrong with the whole."""
    if not text.strip():
        flaws[EMPTY] += 1
        return None
    found, broken = _objects(text)
    answers = [entry for entry in found if entry[0].keys() & set(LEVEL_KEYS)]
    if not answers:
        kind = NO_JSON if not (found or broken) else BROKEN_JSON if broken else WRONG_KEYS
        flaws[kind] += 1
        return None
    answer, start, end, repetitions = answers[0]
    flaws[SEVERAL] += len(answers) > 1
    flaws[EXTRA_TEXT] += bool(text[:start].strip() or text[end:].strip())
    flaws[REPEATED_KEY] += repetitions
    return answer


def _objects(text: str) -> tuple[list[tuple[dict[str, Any], int, int, int]], bool]:
    """Return the JSON objects in a text, each with its start, end and repeated keys; and whether a brace began none."""
    repeated: list[int] = []

    def joined(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.append(len(pairs) - len(dict(pairs)))
        return dict(pairs)

    decoder = json.JSONDecoder(object_pairs_hook=joined)
    found, broken, behind = [], False, 0
    for brace in [match.start() for match in re.finditer(r"\{", text)][:_BRACES_TRIED]:
        if brace < behind:
            continue
        repeated.clear()
        try:
            entry, behind = decoder.raw_decode(text, brace)
        except (ValueError, RecursionError):
            broken = True
            continue
        found.append((entry, brace, behind, sum(repeated)))
    return found, broken
