"""Names of a user's columns in exported files: never one of ours, readable by every format, and leading back.

`exported_name` first writes what some format cannot hold as ``%`` and the hexadecimal of its UTF-8 bytes, as URLs do,
and then sets one more ``_`` behind a name that is one of ours. `original_name` undoes both, so that two columns never
get one name.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

# The names of ours in a file, whatever its format. A reader that is blind to letter case (DuckDB) must not mix them up
# with a user's either. The empty name is ours because no format treats it well.
OUR_NAMES = ("embedding", "export", "feature", "identity", "identity_sha256", "row", "vectors", "")
LABEL = "label"
_OURS = re.compile(rf"(?:({'|'.join(OUR_NAMES)})|({LABEL}))(_*)((?(2):.*))", re.IGNORECASE | re.DOTALL)
# HDF5 separates groups by a slash, zip on Windows by a backslash; netCDF has no control characters in names.
_NEVER = re.compile(r"[%/\\\x00-\x1f\x7f-\x9f]|^\s+|\s+$")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
# HDF5's name for a group itself, and the ending that NumPy takes off the names of an npz file.
_DOT = re.compile(r"^\.\.?$|\.(?=npy$)")


def exported_name(name: str) -> str:
    """Return the name of a column in exported files.

    Examples
    --------
    >>> [exported_name(name) for name in ("age", "a/b", "100%", "vectors", "vectors_", "")]
    ['age', 'a%2Fb', '100%25', 'vectors_', 'vectors__', '_']
    """
    text = _percent(name)
    found = _OURS.fullmatch(text)
    return text if found is None else f"{found[1] or found[2] or ''}{found[3]}_{found[4]}"


def original_name(exported: str) -> str | None:
    """Return the column that `exported_name` gave this name; None for a name of ours.

    Examples
    --------
    >>> [original_name(name) for name in ("age", "a%2Fb", "100%25", "vectors_", "vectors__", "_", "vectors")]
    ['age', 'a/b', '100%', 'vectors', 'vectors_', '', None]
    """
    found = _OURS.fullmatch(exported)
    if found is None:
        return unquote(exported)
    if not found[3]:
        return None
    return unquote(f"{found[1] or found[2] or ''}{found[3][1:]}{found[4]}")


def label_name(task: str, target: str) -> str:
    """Return the name of the column with a target's labels, ``label:TASK:TARGET``; no name of a task has a colon.

    Examples
    --------
    >>> label_name("stenosis", "l4/l5")
    'label:stenosis:l4%2Fl5'
    """
    return f"{LABEL}:{task}:{_percent(target)}"


def _percent(name: str) -> str:
    text = _NEVER.sub(_quoted, name)
    # netCDF makes one form of Unicode of all names, by which two columns could become one.
    if unicodedata.normalize("NFC", text) != text:
        text = _NOT_ASCII.sub(_quoted, text)
    return _DOT.sub(_quoted, text)


def _quoted(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())
