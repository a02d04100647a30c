"""How other systems spell paths: separators, addresses, percent codes, and what is said of the difference."""

from __future__ import annotations

import re
import sys
from urllib.parse import unquote

from embedstore.manifest import path_to_manifest
from embedstore.paths.file_tree import fold

BACKSLASHES = "with backslashes read with slashes"
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")


def readings(path: str) -> list[str]:
    """Return a path as other systems may have meant it, the plainest reading first."""
    texts = [path]
    if path[:5].lower() == "file:":
        texts = [unquote(re.sub(r"^file:(//[^/]*)?", "", path, flags=re.IGNORECASE))]
    if "%" in texts[0] and _PERCENT.search(texts[0]):
        texts.append(path_to_manifest(unquote(texts[0], errors="surrogateescape")))
    return texts


def names_of(text: str) -> tuple[str, ...]:
    """Return the names of folders and file in a path, without those that say nothing."""
    names: list[str] = []
    for name in text.replace("\\", "/").split("/"):
        if name == ".." and names and names[-1] != "..":
            names.pop()
        elif name not in ("", "."):
            names.append(sys.intern(name))
    return tuple(names)


def is_absolute(path: str) -> bool:
    """Whether a path is absolute on any system."""
    return bool(re.match(r"[/\\]|file:|[A-Za-z]:[\\/]", path, re.IGNORECASE))


def differences(written: str, path: str, spelled: str, front: tuple[str, ...]) -> list[str]:
    """Say how a path as it is written differs from that of its file; () for nothing but the folders in front."""
    said = []
    if "\\" in written:
        said.append(BACKSLASHES)
    if written[:5].lower() == "file:":
        said.append("read as a file:// address")
    elif "%" in written and _PERCENT.search(written) and not _PERCENT.search(spelled):
        said.append("with percent codes decoded")
    if path != spelled:
        if path.endswith(f"/{spelled}"):
            said.append("of a name alone found in a folder below")
        elif fold(path) != fold(spelled):
            said.append("found by the name without its ending")
        elif path.casefold() != spelled.casefold():
            said.append("found in another Unicode form")
        else:
            said.append("found in another letter case")
    if not said and not front:
        said.append("written in another way (./, //, absolute) for the same file")
    return said
