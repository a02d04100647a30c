"""Labels as plain words, and which words say that nothing was found."""

from __future__ import annotations

import re
import unicodedata

# Whole cells and entries of lists that say that nothing was found; a list's other entries are findings.
NOTHING_FOUND = frozenset({
    "no finding", "no findings", "nofinding", "nofindings", "no abnormality", "no abnormalities",
    "no abnormal findings", "no acute finding", "no acute findings",
    "no disease", "no pathology", "no lesion", "none", "nothing", "normal",
    "negative", "healthy", "unremarkable", "within normal limits", "wnl", "nad", "clear",
    "o.b", "o. b", "ohne pathologischen befund", "nessun reperto", "sem achados", "normaal",
    "sin hallazgos", "sano", "sana", "normale", "ohne befund", "kein befund", "unauffällig", "gesund",
    "rien à signaler", "ras",
})  # fmt: skip


def label_words(text: str) -> str:
    """Return a label in lower case, its words apart by one space, without punctuation around it.

    Examples
    --------
    >>> label_words("No_Finding.")
    'no finding'
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\s_\-]+", " ", plain).strip(" .,;:!()[]'\"")


def says_nothing_found(text: str) -> bool:
    """Whether an entry of a list of findings says that there is none (``No Finding``, ``normal``).

    Examples
    --------
    >>> says_nothing_found("No_Finding"), says_nothing_found("Nodule")
    (True, False)
    """
    return label_words(text) in NOTHING_FOUND
