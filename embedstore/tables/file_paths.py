"""Paths of another place -> paths below the folder of the images, by one ordered rule, with counts.

A path is taken as it is written where that is a file. Else, in this order: it is read as another system writes paths
(backslashes, ``file://``, percent codes, ``./``); its letter case, its Unicode form and an ending that it lacks are
taken from the file of that name; its first folders are left out, as few as possible, which is what it takes for a
folder's own name in front and for the absolute paths of another machine; and a name without a folder is the one file of
that name in any folder below.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from embedstore.errors import DataError
from embedstore.manifest import path_to_manifest
from embedstore.tables.file_tree import FileTree, fold
from embedstore.tables.remarks import Remark, counted, some_of

PATHS = "paths"
# What is no plain relative path, though it may name a file as it is.
_ODD = re.compile(r"\\|//|(?:^|/)\.{1,2}(?:/|$)|^/|^file:|^[A-Za-z]:[\\/]|/$", re.IGNORECASE)
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_SHOWN = 3


@dataclass
class FoundFiles:
    """Where the files of a table lie.

    Parameters
    ----------
    paths
        For each path of the table the one below the root; of a file that is absent the plain spelling.
    absent
        Which of `paths` name no file, by number.
    remarks
        What was changed to find them, with counts, and why files are absent where most are.
    """

    paths: list[str]
    absent: list[int] = field(default_factory=list)
    remarks: tuple[Remark, ...] = ()


def find_files(root: Path, paths: Sequence[str]) -> FoundFiles:
    """Find the files of a table below `root`.

    Parameters
    ----------
    root
        The folder of the images; no file outside of it is ever found.
    paths
        As the table writes them.

    Raises
    ------
    DataError
        If a path may be two files (that differ in letter case, for example), or leads out of `root` and no file
        below it fits; `DataError.row` is the number of the path.
    """
    tree = FileTree(root)
    found = FoundFiles(list(paths))
    search = _Search(tree, root)
    odd = [number for number, path in enumerate(paths) if _ODD.search(path)]
    plain = set(range(len(paths))).difference(odd) if odd else range(len(paths))
    lost = [number for number in plain if not tree.has(paths[number])]
    for number in sorted([*odd, *lost]):
        try:
            search.look(number, paths[number])
        except DataError as error:
            raise PathRefused(number, str(error)) from error
    search.settle()
    for number in search.numbers:
        found.paths[number], there = search.result(number)
        if not there:
            found.absent.append(number)
    found.remarks = (*search.said(), *_cause(root, found, len(paths)))
    return found


class PathRefused(DataError):
    """A path of a table is ambiguous or leads out of the folder of the images.

    Parameters
    ----------
    row
        The number of the path.
    message
        What is wrong.
    """

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class _Match:
    path: str
    front: tuple[str, ...]
    spelled: str


class _Search:
    """Looks for each path that is not a file as written; front folders are judged when all are known."""

    def __init__(self, tree: FileTree, root: Path) -> None:
        self.tree = tree
        self.above = tuple(str(root.absolute()).strip("/").split("/"))
        self.numbers: list[int] = []
        self._written: dict[int, str] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        self._matches: dict[int, _Match] = {}
        self._fronts: Counter[tuple[str, ...]] = Counter()
        self._folders: dict[tuple[str, ...], list[tuple[int, str]]] = {}

    def look(self, number: int, path: str) -> None:
        """Look for one path."""
        self.numbers.append(number)
        self._written[number] = path
        for names in _readings(path):
            self._names.setdefault(number, names)
            match = self._match(names)
            if match is not None:
                self._names[number] = names
                self._matches[number] = match
                return

    def settle(self) -> None:
        """Drop matches without front folders that fit by accident: where two paths would be one file, or most are none.

        Raises
        ------
        PathRefused
            If a path that leads out of the root has no match.
        """
        by_front: dict[tuple[str, ...], list[int]] = {}
        for number, match in self._matches.items():
            by_front.setdefault(match.front, []).append(number)
        lost = self._lost(by_front)
        takers: dict[str, set[tuple[str, ...]]] = {}
        for number, match in self._matches.items():
            takers.setdefault(match.path, set()).add(self._names[number])
        for front, numbers in by_front.items():
            if not front:
                continue
            several = any(len(takers[self._matches[number].path]) > 1 for number in numbers)
            if several or lost[front] > len(numbers):
                for number in numbers:
                    del self._matches[number]
            else:
                self._fronts[front] = len(numbers)
        for number in self.numbers:
            if number not in self._matches:
                self._require_inside(number)

    def result(self, number: int) -> tuple[str, bool]:
        """Return the path below the root, and whether there is such a file."""
        if number in self._matches:
            return self._matches[number].path, True
        names = self._names[number]
        return "/".join(names[len(self._known_front(names)) :]), False

    def said(self) -> tuple[Remark, ...]:
        """Return what was done to find files, with counts."""
        counts: Counter[str] = Counter()
        for number, match in self._matches.items():
            counts.update(_differences(self._written[number], match))
        words = [f"{counted(count, 'path')} {what}" for what, count in counts.items()]
        fronts = sorted(self._fronts.items(), key=lambda front: -front[1])
        for front, count in fronts[:_SHOWN]:
            words.append(f"{counted(count, 'path')} found without {'/'.join(front) + '/'!r} in front")
        if len(fronts) > _SHOWN:
            words.append(f"and without {len(fronts) - _SHOWN:,} more folders in front")
        return tuple(Remark(PATHS, word) for word in words)

    def _match(self, names: tuple[str, ...]) -> _Match | None:
        if not names:
            return None
        folders = self._folders.get(names[:-1])
        if folders is None:
            folders = self._folders[names[:-1]] = self._candidates(names[:-1])
        for dropped, folder in folders:
            path = self.tree.file(folder, names[-1])
            if path is not None:
                front = names[:dropped]
                own = front == self.above[: len(front)] and len(front) == len(self.above)
                return _Match(path, () if own else front, "/".join(names[dropped:]))
        below = self.tree.below(names[0]) if len(names) == 1 else None
        return _Match(below, (), names[0]) if below else None

    def _candidates(self, names: tuple[str, ...]) -> list[tuple[int, str]]:
        """Return the folders that the ends of `names` name, the longest first, and how many names each leaves out."""
        found = []
        for dropped in range(len(names) + 1):
            if ".." not in names[dropped:]:
                folder = self.tree.folder(names[dropped:])
                if folder is not None:
                    found.append((dropped, folder))
        return found

    def _lost(self, fronts: Iterable[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
        """Count the paths that begin with each of `fronts` and have no match."""
        lengths = {len(front) for front in fronts}
        unmatched = (names for number, names in self._names.items() if number not in self._matches)
        return Counter(names[:length] for names in unmatched for length in lengths)

    def _known_front(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the folders in front of a path that other paths were found without; () for none."""
        if names[: len(self.above)] == self.above:
            return self.above
        lengths = sorted({len(front) for front in self._fronts}, reverse=True)
        return next((names[:length] for length in lengths if names[:length] in self._fronts), ())

    def _require_inside(self, number: int) -> None:
        names, written = self._names[number], self._written[number]
        if self._known_front(names):
            return
        if ".." in names or _is_absolute(written) or not names:
            raise PathRefused(
                number,
                f"path {written!r} must be relative to the folder of the images and stay below it, and no file there "
                "has its name. Name the folder that holds the images with `images_root`.",
            )


def _readings(path: str) -> list[tuple[str, ...]]:
    """Return the names of a path as other systems may have meant it, the plainest reading first."""
    texts = [path]
    if path.lower().startswith("file:"):
        texts = [unquote(re.sub(r"^file:(//[^/]*)?", "", path, flags=re.IGNORECASE))]
    if _PERCENT.search(texts[-1]):
        texts.append(path_to_manifest(unquote(texts[-1], errors="surrogateescape")))
    return [_names(text) for text in texts]


def _names(text: str) -> tuple[str, ...]:
    names: list[str] = []
    for name in text.replace("\\", "/").split("/"):
        if name == ".." and names and names[-1] != "..":
            names.pop()
        elif name not in ("", "."):
            names.append(name)
    return tuple(names)


def _is_absolute(path: str) -> bool:
    return bool(re.match(r"[/\\]|file:|[A-Za-z]:[\\/]", path, re.IGNORECASE))


def _differences(written: str, match: _Match) -> list[str]:
    said = []
    if "\\" in written:
        said.append("with backslashes read with slashes")
    if written.lower().startswith("file:"):
        said.append("read as a file:// address")
    elif _PERCENT.search(written) and not _PERCENT.search(match.spelled):
        said.append("with percent codes decoded")
    if match.path != match.spelled:
        if match.path.endswith(f"/{match.spelled}"):
            said.append("of a name alone found in a folder below")
        elif fold(match.path) != fold(match.spelled):
            said.append("found by the name without its ending")
        elif match.path.casefold() != match.spelled.casefold():
            said.append("found in another Unicode form")
        else:
            said.append("found in another letter case")
    if not said and not match.front:
        said.append("written in another way (./, //, absolute) for the same file")
    return said


def _cause(root: Path, found: FoundFiles, total: int) -> tuple[Remark, ...]:
    """Say why files may be absent, where most are."""
    if len(found.absent) * 2 <= total:
        return ()
    firsts = Counter(
        found.paths[number].partition("/")[0] for number in found.absent if "/" in found.paths[number]
    )
    if not firsts:
        words = f"most files are not in {root.name or root}"
    else:
        there = [first for first in firsts if (root / first).is_dir()]
        gone = [first for first, _ in firsts.most_common() if first not in there]
        words = (
            f"{root.name or root} has no folder {some_of(gone)}" if gone else "most folders lack their files"
        )
    return (Remark(PATHS, f"{words}: if the images lie elsewhere, name their folder with `images_root`"),)
