"""Files and folders that a user names -> the files below them, each once, however they were typed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedstore.errors import DataError, UsageError
from embedstore.store.layout import StoreLayout

PICTURES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".pbm", ".pnm"}
)


@dataclass(frozen=True)
class UserFile:
    """One file.

    Parameters
    ----------
    path
        Absolute; links above the input itself are resolved, those below it and that of the file are not.
    named
        Whether the user named it, and not a folder that holds it.
    """

    path: str
    named: bool

    @property
    def folder(self) -> str:
        """The folder that it lies in."""
        return os.path.dirname(self.path)

    @property
    def is_picture(self) -> bool:
        """Whether its ending is that of a picture; whatever else lies in a folder may be DICOM."""
        return os.path.splitext(self.path)[1].lower() in PICTURES


@dataclass(frozen=True)
class UserFiles:
    """The files below the inputs.

    Parameters
    ----------
    files
        In the order of the inputs, below a folder by their paths.
    again
        How many were met once more: below two inputs, or named twice.
    """

    files: tuple[UserFile, ...]
    again: int


def find_files(paths: Sequence[Path]) -> UserFiles:
    """List the files that the user named and those below the folders that he named.

    Hidden files, what is no regular file, and stores are left out of folders; links to folders are followed, each
    folder once.

    Raises
    ------
    DataError
        If a path does not exist.
    UsageError
        If one is a store.
    """
    found: dict[str, UserFile] = {}
    met = 0
    for path in paths:
        for file, place in _files_of(path):
            met += 1
            found.setdefault(place, file)
    return UserFiles(tuple(found.values()), met - len(found))


def files_beside(folder: str) -> Iterator[UserFile]:
    """Yield the regular files directly in a folder, by name."""
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not name.startswith(".") and os.path.isfile(path):
            yield UserFile(path, named=False)


def _files_of(path: Path) -> Iterator[tuple[UserFile, str]]:
    """Yield the files of one input, each with the one path that it has whatever links lead to its folder."""
    if StoreLayout(path).store_file.is_file():
        raise UsageError(f"{path} is a store; give it alone, or give files and folders")
    if path.is_dir():
        yield from _walk(os.path.realpath(path))
    elif path.exists():
        resolved = os.path.join(os.path.realpath(path.parent), path.name)
        yield UserFile(resolved, named=True), resolved
    else:
        raise DataError(f"{path} does not exist; give images, study folders or a store")


def _walk(top: str) -> Iterator[tuple[UserFile, str]]:
    seen = set()
    listed = []
    for folder, folders, names in os.walk(top, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen or StoreLayout(Path(folder)).store_file.is_file():
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.isfile(path):
                listed.append((UserFile(path, named=False), os.path.join(place, name)))
    yield from sorted(listed, key=lambda entry: entry[0].path)
