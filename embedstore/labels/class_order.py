"""Which order classes have, and so which of two is the positive one."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterable

from embedstore.errors import DataError

# Whole cells and entries of lists that say that nothing was found; a list's other entries are findings.
_NOTHING_FOUND = frozenset({
    "no finding", "no findings", "nofinding", "nofindings", "no abnormality", "no abnormalities",
    "no abnormal findings", "no acute finding", "no acute findings",
    "no disease", "no pathology", "no lesion", "none", "nothing", "normal",
    "negative", "healthy", "unremarkable", "within normal limits", "wnl", "nad", "clear",
    "sin hallazgos", "sano", "sana", "normale", "ohne befund", "kein befund", "unauffällig", "gesund",
    "rien à signaler", "ras",
})  # fmt: skip
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

    That is `positive`, else the one that is no common word for "nothing found" (normal, negative, no, benign,
    healthy, absent, control, 0, "no finding", "not ...", "non-..."), else the second as numbers or by alphabet.

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
    """Sort as numbers where all labels are numbers (2 before 10), else as text."""
    found = set(labels)
    if not are_numbers(found):
        return sorted(found)
    return sorted(found, key=lambda label: (float(label), label))


def are_numbers(labels: Iterable[str]) -> bool:
    """Whether all labels are finite numbers."""
    try:
        return all(math.isfinite(float(label)) for label in labels)
    except ValueError:
        return False


def says_nothing_found(text: str) -> bool:
    """Whether an entry of a list of findings says that there is none (``No Finding``, ``normal``).

    Examples
    --------
    >>> says_nothing_found("No_Finding"), says_nothing_found("Nodule")
    (True, False)
    """
    return _words(text) in _NOTHING_FOUND


def _rank(label: str, other: str) -> int:
    """0 for words that say that nothing was found, 1 for the lesser of two, 2 for all else."""
    words, rest = _words(label), _words(other)
    tokens = words.split()
    if label.strip() in ("-", "\N{MINUS SIGN}") or words in _NOTHING_FOUND or words in _NEGATIVE:
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


def _words(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\s_\-]+", " ", plain).strip(" .,;:!()[]'\"")
