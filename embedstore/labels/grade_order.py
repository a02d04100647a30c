"""Labels that are grades by their words (mild, moderate, severe; BI-RADS 4A; KL 2; stage IIIB) -> the clinical order.

Sorted as text, ``mild`` would come before ``normal`` and ``V`` before ``IX``: an error of one grade then counts as one
of three in a quadratic kappa. Only scales whose order nobody disputes are known. BI-RADS 0 (incomplete) is no grade,
nor are types, clusters, sequences (T1, T2) or quality words, which run either way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from embedstore.labels.label_words import label_words, says_nothing_found

# Words of one row are the same grade; of labels that share a row none is the graver one, so no order is proposed.
_SEVERITY = (
    ("no", "non", "not", "without", "absent", "negative", "neg", "n"),
    ("minimal", "trace", "trivial", "doubtful", "very mild", "very low"),
    ("mild", "slight", "minor", "low", "small", "mi"),
    ("moderate", "medium", "intermediate", "mod", "m", "mo"),
    ("severe", "marked", "major", "high", "large", "sev", "s"),
    ("very severe", "extreme", "critical", "very high", "proliferative", "proliferate"),
)
_DIFFERENTIATED = ("well", "moderately", "poorly")
_GRADE_OF_WORD = {word: grade for grade, words in enumerate(_SEVERITY) for word in words}
# Beside these, "normal" lies in the middle and not at the end.
_BELOW_NORMAL = frozenset({"low", "small"})
# What may stand before a number, and the scale that it names.
_SCALES = {
    "bi rads": "BI-RADS", "birads": "BI-RADS", "br": "BI-RADS",
    "pi rads": "PI-RADS", "pirads": "PI-RADS",
    "ti rads": "TI-RADS", "tirads": "TI-RADS", "tr": "TI-RADS",
    "li rads": "LI-RADS", "lirads": "LI-RADS", "lr": "LI-RADS",
    "lung rads": "Lung-RADS", "lungrads": "Lung-RADS",
    "o rads": "O-RADS", "orads": "O-RADS",
    "kl": "Kellgren-Lawrence", "k l": "Kellgren-Lawrence", "kellgren lawrence": "Kellgren-Lawrence",
    "pfirrmann": "Pfirrmann", "fazekas": "Fazekas", "outerbridge": "Outerbridge", "meyerding": "Meyerding",
    "isup": "ISUP", "nyha": "NYHA", "asa": "ASA", "who": "WHO", "dr": "retinopathy", "cdr": "CDR",
    "grade": "grades", "grad": "grades", "g": "grades", "stage": "stages", "score": "scores",
}  # fmt: skip
# A number of 0 says that the assessment is not finished.
_FROM_ONE = frozenset({"BI-RADS", "O-RADS", "Lung-RADS", ""})
_NUMBERED = re.compile(
    r"(?P<scale>[a-z][a-z ]*?)?(?: (?:grade|category|class|stage|score))? ?(?P<number>\d+(?:\.\d+)?)(?P<part>[a-d]?)"
)
_ROMAN = re.compile(
    r"(?:(?P<scale>[a-z][a-z ]*?)(?: (?:grade|class|stage))? )?(?P<number>0|x{0,2}(?:ix|iv|v?i{0,3}))(?P<part>[a-d]?)"
)
_ROMAN_DIGITS = {"i": 1, "v": 5, "x": 10}


@dataclass(frozen=True)
class GradeOrder:
    """Labels from the least to the gravest, and the scale by which they were recognised."""

    labels: tuple[str, ...]
    scale: str


def grade_order(labels: Collection[str]) -> GradeOrder | None:
    """Return the order of labels that are all grades of one scale, or None.

    One of them may be a word for "nothing found" (normal, none, no finding), which comes first.

    Parameters
    ----------
    labels
        The different labels, two or more.

    Examples
    --------
    >>> grade_order({"Severe", "Moderate", "Normal/Mild"}).labels
    ('Normal/Mild', 'Moderate', 'Severe')
    >>> grade_order({"BI-RADS 4C", "BI-RADS 2", "BI-RADS 4A"}).labels
    ('BI-RADS 2', 'BI-RADS 4A', 'BI-RADS 4C')
    >>> grade_order({"IX", "V", "II"}), grade_order({"CT", "MR", "US"})
    (GradeOrder(labels=('II', 'V', 'IX'), scale='Roman numerals'), None)
    """
    nothing = [label for label in labels if says_nothing_found(label)]
    rest = [label for label in labels if label not in nothing]
    if len(nothing) > 1 or len(rest) < 2 - len(nothing):
        return None
    for scale, read in _READERS:
        places = {label: place for label in rest if (place := read(_plain(label))) is not None}
        if len(places) < len(rest):
            continue
        named = {place.scale for place in places.values()} - {""}
        grades = [place.grade for place in places.values()]
        if (
            len(named) <= 1
            and len(set(grades)) == len(rest)
            and _fits_nothing(nothing, rest, places.values())
        ):
            inside = sorted(rest, key=lambda label: places[label].grade)
            # What stands before numbers names a scale; what stands behind words is what they grade.
            name = next(iter(named), "") if read in (_numbered, _roman) else ""
            return GradeOrder((*nothing, *inside), name or scale)
    return None


def grades_in_words(classes: Sequence[str]) -> str | None:
    """Return a line on three or more classes that stand in the order of grades by their words, or None.

    Examples
    --------
    >>> grades_in_words(("mild", "moderate", "severe"))
    'mild, moderate, severe, by words of severity'
    """
    found = grade_order(classes) if len(classes) > 2 else None
    return (
        f"{' < '.join(found.labels)}, by {found.scale}" if found and found.labels == tuple(classes) else None
    )


@dataclass(frozen=True)
class _Place:
    """A grade, and its scale (or the noun that it grades), ``""`` where the label names none."""

    grade: tuple[float, str]
    scale: str = ""


def _plain(label: str) -> str:
    return label_words(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label))


def _fits_nothing(nothing: Collection[str], rest: Collection[str], places: Collection[_Place]) -> bool:
    """Whether a word for nothing found lies below all grades: not beside "no ...", nor between low and high."""
    if not nothing:
        return True
    around = any(_plain(label).split()[0] in _BELOW_NORMAL for label in rest)
    return all(place.grade[0] > 0 for place in places) and not (around and "normal" in map(_plain, nothing))


def _severity(words: str) -> _Place | None:
    """Read ``mild``, ``normal/mild``, ``moderate to severe`` and ``very mild stenosis``."""
    parts = [part for part in re.split(r" ?/ ?| to | or ", words) if part]
    grades, noun = [], ""
    for part in parts:
        tokens = part.split()
        length = next((n for n in (2, 1) if " ".join(tokens[:n]) in _GRADE_OF_WORD and n <= len(tokens)), 0)
        if says_nothing_found(part):
            grades.append(0)
        elif length == 0:
            return None
        else:
            grades.append(_GRADE_OF_WORD[" ".join(tokens[:length])])
            noun = " ".join(tokens[length:]) or noun
    return _Place((sum(grades) / len(grades), ""), noun) if grades else None


def _differentiated(words: str) -> _Place | None:
    if words == "undifferentiated":
        return _Place((len(_DIFFERENTIATED) + 1, ""))
    first, _, last = words.partition(" ")
    if last not in ("differentiated", "diff") or first not in _DIFFERENTIATED:
        return None
    return _Place((_DIFFERENTIATED.index(first) + 1, ""))


def _numbered(words: str) -> _Place | None:
    """Read ``bi rads 4a``, ``kl2``, ``grade 3``, and ``4a`` among numbers."""
    found = _NUMBERED.fullmatch(words)
    scale = None if found is None else _scale(found)
    if found is None or scale is None:
        return None
    number = float(found["number"])
    return None if number == 0 and scale in _FROM_ONE else _Place((number, found["part"]), scale)


def _roman(words: str) -> _Place | None:
    """Read ``iii``, ``stage iia`` and the 0 before them."""
    found = _ROMAN.fullmatch(words)
    if found is None or not found["number"] or (scale := _scale(found)) is None:
        return None
    digits = [_ROMAN_DIGITS[letter] for letter in found["number"] if letter in _ROMAN_DIGITS]
    after = [*digits[1:], 0]
    number = sum(-one if one < other else one for one, other in zip(digits, after, strict=False))
    return _Place((number, found["part"]), scale)


def _scale(found: re.Match[str]) -> str | None:
    """Return the scale before a number, ``""`` where there is no word, None where it is none that is known."""
    word = (found["scale"] or "").strip()
    return _SCALES.get(word) if word else ""


_READERS: tuple[tuple[str, Callable[[str], _Place | None]], ...] = (
    ("words of severity", _severity),
    ("differentiation", _differentiated),
    ("numbered grades", _numbered),
    ("Roman numerals", _roman),
)
