"""The files below a folder, listed folder by folder as they are asked for, and found by names spelled otherwise."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Set
from pathlib import Path

from embedstore.errors import DataError
from embedstore.manifest import path_from_manifest, path_to_manifest

_NO_NAMES: frozenset[str] = frozenset()  # most folders hold either files or folders


class Listing:
    """The names in a folder; `exists` is False where it cannot be listed."""

    __slots__ = ("exists", "files", "folded_files", "folded_folders", "folders", "stems")

    def __init__(self) -> None:
        self.exists = True
        self.files: Set[str] = _NO_NAMES
        self.folders: Set[str] = _NO_NAMES
        # Folded name -> the names that fold to it; made when a name is not there as it is written.
        self.folded_files: dict[str, list[str]] | None = None
        self.folded_folders: dict[str, list[str]] | None = None
        self.stems: dict[str, list[str]] | None = None


_NOTHING = Listing()
_NOTHING.exists = False


class FileTree:
    """Looks for files below a folder; each folder is listed once.

    Paths are those of a manifest (`embedstore.manifest.path_to_manifest`), relative, with forward slashes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._top = os.path.join(root.absolute(), "")
        self._listings: dict[str, Listing] = {}
        self._everywhere: dict[str, list[str]] | None = None

    def has(self, path: str) -> bool:
        """Whether `path`, letter by letter, is a file."""
        folder, _, name = path.rpartition("/")
        return name in self.listing(folder).files

    def has_top(self, name: str) -> bool:
        """Whether the root has a folder of this name, in any Unicode form and case."""
        top = self.listing("")
        if top.folded_folders is None:
            top.folded_folders = _grouped(top.folders)
        return fold(name) in top.folded_folders

    def folder(self, names: tuple[str, ...]) -> str | None:
        """Return the folder of these names, spelled as it lies on the disk; None where there is none."""
        if not names:
            return ""
        if names[0] in self.listing("").folders:
            written = "/".join(names)
            if self.listing(written).exists:
                return written
        found = ""
        for name in names:
            listing = self.listing(found)
            match: str | None = name
            if name not in listing.folders:
                if listing.folded_folders is None:
                    listing.folded_folders = _grouped(listing.folders)
                match = _only(listing.folded_folders.get(fold(name), []), name, found)
            if match is None:
                return None
            found = f"{found}/{match}" if found else match
        return found

    def file(self, folder: str, name: str) -> str | None:
        """Return the path of a file in `folder`, its name in any Unicode form and case, or without its ending."""
        listing = self.listing(folder)
        if name not in listing.files:
            if listing.folded_files is None:
                listing.folded_files = _grouped(listing.files)
            match = _only(listing.folded_files.get(fold(name), []), name, folder)
            if match is None and "." not in name:
                if listing.stems is None:
                    listing.stems = {}
                    for file in listing.files:
                        listing.stems.setdefault(file.rpartition(".")[0], []).append(file)
                match = _only(listing.stems.get(name, []), name, folder)
            if match is None:
                return None
            name = match
        return f"{folder}/{name}" if folder else name

    def listing(self, folder: str) -> Listing:
        """Return what lies in a folder; nothing where there is no such folder."""
        listing = self._listings.get(folder)
        if listing is None:
            listing = self._listings[folder] = self._list(folder)
        return listing

    def below(self, name: str) -> str | None:
        """Return the path of the one file of this name in any folder below the root; None for none and for several."""
        if self._everywhere is None:
            self._everywhere = {}
            folders = [""]
            while folders:
                folder = folders.pop()
                prefix = f"{folder}/" if folder else ""
                listing = self.listing(folder)
                folders += [prefix + inner for inner in listing.folders if not self._is_link(prefix + inner)]
                for file in listing.files:
                    self._everywhere.setdefault(file, []).append(prefix + file)
        paths = self._everywhere.get(name, [])
        return paths[0] if len(paths) == 1 else None

    def _is_link(self, folder: str) -> bool:
        return os.path.islink(self._place(folder))

    def _place(self, folder: str) -> str:
        if folder.isascii():  # a Path for each of many folders would take most of the time
            return self._top + folder
        return str(path_from_manifest(self.root, folder))

    def _list(self, folder: str) -> Listing:
        files, folders = set[str](), set[str]()
        try:
            with os.scandir(self._place(folder)) as entries:
                for entry in entries:
                    name = entry.name
                    if not name.isascii():
                        name = path_to_manifest(name)
                    if entry.is_file():
                        files.add(sys.intern(name))
                    elif entry.is_dir():
                        folders.add(sys.intern(name))
        except (OSError, ValueError):  # no such folder, no permission, a NUL in its name: no file to be read
            return _NOTHING
        listing = Listing()
        listing.files, listing.folders = files or _NO_NAMES, folders or _NO_NAMES
        return listing


def fold(name: str) -> str:
    """Return a name without what systems change when files are copied: Unicode form and letter case."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _grouped(names: Set[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(fold(name), []).append(name)
    return groups


def _only(names: list[str], wanted: str, folder: str) -> str | None:
    if len(names) > 1:
        raise DataError(
            f"{wanted!r} may be {' or '.join(map(repr, sorted(names)))} in {folder or 'the folder of the images'!r}; "
            "write the name as it is"
        )
    return names[0] if names else None
