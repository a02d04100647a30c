"""Which order classes have, and so which of two is the positive one."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from embedstore.errors import DataError
from embedstore.labels.grade_order import grade_order
from embedstore.labels.label_words import NOTHING_FOUND, label_words

# Further words that are never the positive one of two classes.
_NEGATIVE = frozenset({
    "no", "n", "0", "false", "neg", "not", "without", "benign", "absent", "absence", "control", "controls",
    "healthy control", "background", "free", "unaffected", "uninfected", "unchanged", "disease free",
    "wild type", "wildtype", "norm", "unchecked", "unticked", "\u2610",
    "nein", "nicht", "kein", "keine", "non", "negativ", "negativo", "negativa", "negatif", "négatif",
    "negative control", "benigno", "benigna", "benigne", "bénin", "gutartig", "ausente", "sain", "saine",
})  # fmt: skip
# Words for the lesser one of two.
_LESSER = frozenset({"low", "low risk", "mild", "minor", "small", "alive", "survived", "stable"})
_FIRST_WORDS = frozenset({"no", "not", "non", "without", "negative", "kein", "keine", "ohne", "sin", "sans"})
_LAST_WORDS = frozenset({"absent", "negative", "free"})


def order_classes(labels: Collection[str], positive: str | None = None, *, where: str) -> tuple[str, ...]:
    """Return the classes in order; of two the positive one comes last.

    Labels that are grades by their words (`embedstore.labels.grade_order`) go from the least to the gravest, others as
    numbers or by alphabet. Of two the positive one is `positive`, else the one that is no common word for "nothing
    found" (normal, negative, no, benign, healthy, absent, control, 0, "no finding", "not ...", "non-..."), else the
    second in that order.

    Parameters
    ----------
    labels
        The different labels.
    positive
        The class to put last, of two.
    where
        The file and column, for the message.

    Raises
    ------
    DataError
        If both of two classes say that nothing was found, and `positive` is None.

    Examples
    --------
    >>> order_classes({"normal", "abnormal"}, where="t.csv"), order_classes({"10", "9", "8"}, where="t.csv")
    (('normal', 'abnormal'), ('8', '9', '10'))
    """
    found = sort_classes(labels)
    if len(found) != 2:
        return tuple(found)
    if positive in found:
        return tuple(sorted(found, key=lambda label: label == positive))
    one, other = _rank(found[0], found[1]), _rank(found[1], found[0])
    if one == other == 0:
        raise DataError(
            f"{where}: {found[0]!r} and {found[1]!r} both say that nothing was found, so neither can be taken for the "
            "positive class; name it by `positive`, or rename the labels"
        )
    return tuple(found if one <= other else found[::-1])


def sort_classes(labels: Iterable[str]) -> list[str]:
    """Sort as numbers where all labels are numbers (2 before 10), as grades where their words say so, else as text."""
    found = set(labels)
    if not are_numbers(found):
        grades = grade_order(found)
        return list(grades.labels) if grades else sorted(found)
    return sorted(found, key=lambda label: (float(label), label))


def are_numbers(labels: Iterable[str]) -> bool:
    """Whether all labels are finite numbers."""
    try:
        return all(math.isfinite(float(label)) for label in labels)
    except ValueError:
        return False


def _rank(label: str, other: str) -> int:
    """0 for words that say that nothing was found, 1 for the lesser of two, 2 for all else."""
    words, rest = label_words(label), label_words(other)
    tokens = words.split()
    if label.strip() in ("-", "\N{MINUS SIGN}") or words in NOTHING_FOUND or words in _NEGATIVE:
        return 0
    if (
        len(tokens) > 1
        and not tokens[1].isdigit()
        and (tokens[0] in _FIRST_WORDS or tokens[-1] in _LAST_WORDS)
    ):
        return 0
    if words in (f"non{rest}", f"no {rest}") or (are_numbers([words]) and float(words) == 0):
        return 0
    return 1 if words in _LESSER else 2
