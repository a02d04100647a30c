"""Paths of another place -> paths below the folder of the images, by one ordered rule, with counts.

A path is taken as it is written where that is a file. Else, in this order: it is read as another system writes paths
(backslashes, ``file://``, percent codes, ``./``); its letter case, its Unicode form and an ending that it lacks are
taken from the file of that name; its first folders are left out, as few as possible, which is what it takes for a
folder's own name in front and for the absolute paths of another machine; and a name without a folder is the one file of
that name in any folder below.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import DataError
from embedstore.manifest import path_to_manifest
from embedstore.tables.file_tree import FileTree, fold
from embedstore.tables.remarks import Remark, counted, some_of

PATHS = "paths"
# What is no plain relative path, though it may name a file as it is.
_ODD = r"\\|//|(?:^|/)\.{1,2}(?:/|$)|^/|^file:|^[A-Za-z]:[\\/]|/$"
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
    odd = pc.match_substring_regex(pa.array(paths, pa.string()), _ODD, ignore_case=True).to_pylist()
    for number, path in enumerate(paths):
        if odd[number] or not tree.has(path):
            try:
                search.look(number, path)
            except DataError as error:
                raise PathRefused(number, str(error)) from error
    search.settle()
    for number, path, there in search.results():
        found.paths[number] = path
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


@dataclass(slots=True)
class _Folder:
    """The folder of a path as the table writes it; most of its files are found as the first of them was.

    Parameters
    ----------
    names
        Its names.
    known
        The folders below the root that ends of `names` name, the longest first, as far as they were asked for: how
        many names are left out in front, and the folder.
    looked
        How many ends were asked for.
    files, prefix, front, said
        Once a file was found by its own name in the first of `known`: the names that are files there, what stands
        before them in paths, the folders left out, and how such a path differs from the written one.
    """

    names: tuple[str, ...]
    known: list[tuple[int, str]] = field(default_factory=list)
    looked: int = 0
    files: Set[str] = frozenset()
    prefix: str = ""
    front: tuple[str, ...] = ()
    said: tuple[str, ...] = ()

    def candidates(self, tree: FileTree) -> Iterator[tuple[int, str]]:
        """Yield `known`, and then what it lacks, which is kept."""
        yield from self.known
        while self.looked <= len(self.names):
            dropped = self.looked
            self.looked += 1
            end = self.names[dropped:]
            folder = None if ".." in end else tree.folder(end)
            if folder is not None:
                self.known.append((dropped, folder))
                yield dropped, folder


@dataclass
class _Front:
    """Folders in front of paths that were found without them."""

    rows: array[int] = field(default_factory=lambda: array("q"))
    differences: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def take(self, row: int, differences: tuple[str, ...]) -> None:
        """Count a path that was found, and how it differs from the written one."""
        self.rows.append(row)
        self.differences[differences] += 1


class _Search:
    """Looks for each path that is not a file as written; front folders are judged when all are known."""

    def __init__(self, tree: FileTree, root: Path) -> None:
        self.tree = tree
        self.above = _names(str(root.absolute()))
        self.numbers = array("q")
        # For each of `numbers`: the path as written; that of its file below the root, or None; its folder and name in
        # the reading that was found, else in the plainest one.
        self._written: list[str] = []
        self._paths: list[str | None] = []
        self._places: list[_Folder] = []
        self._names: list[str] = []
        self._fronts: dict[tuple[str, ...], _Front] = {}
        self._folders: dict[str, _Folder] = {}

    def look(self, number: int, path: str) -> None:
        """Look for one path."""
        self.numbers.append(number)
        self._written.append(path)
        end = max(path.rfind("/"), path.rfind("\\")) + 1
        known, name = self._folders.get(path[:end]), path[end:]
        if known is not None and name in known.files and "%" not in path:
            self._fronts[known.front].take(len(self._paths), known.said)
            self._keep(known.prefix + name, known, name)
            return
        first: tuple[_Folder, str] | None = None
        for text in _readings(path):
            end = max(text.rfind("/"), text.rfind("\\")) + 1
            folder, name = self._folder(text[:end] if end > 1 else ""), text[end:]
            first = first or (folder, name)
            found = self._found(folder, name, path)
            if found is not None:
                first = folder, name
                if text is path and end > 1 and "%" not in path and not folder.files:
                    self._remember(folder, found, name)
                break
        assert first is not None  # for the type checker: there is one reading at least
        self._keep(found, *first)

    def _keep(self, found: str | None, folder: _Folder, name: str) -> None:
        self._paths.append(found)
        self._places.append(folder)
        self._names.append(sys.intern(name))  # the tree has most of the names already

    def settle(self) -> None:
        """Drop what fits by accident: where two paths would be one file, or most paths of a front are not found.

        Raises
        ------
        PathRefused
            If a path that leads out of the root has no file.
        """
        lost = self._count_lost()
        shared = self._shared()
        for front, found in list(self._fronts.items()):
            several = bool(shared) and any(self._paths[row] in shared for row in found.rows)
            if front and (several or lost[front] > len(found.rows)):
                for row in found.rows:
                    self._paths[row] = None
                del self._fronts[front]
        for row, path in enumerate(self._paths):
            if path is None:
                self._require_inside(row)

    def _shared(self) -> set[str | None]:
        """Return the files that paths of several spellings name."""
        spellings: dict[str, set[tuple[tuple[str, ...], str]]] = {}
        takers = Counter(self._paths)
        if len(takers) < len(self._paths):
            for row, path in enumerate(self._paths):
                if path is not None and takers[path] > 1:
                    spellings.setdefault(path, set()).add((self._places[row].names, self._names[row]))
        return {path for path, spelled in spellings.items() if len(spelled) > 1}

    def results(self) -> Iterator[tuple[int, str, bool]]:
        """Yield the number of each path, the path below the root, and whether there is such a file."""
        for row, number in enumerate(self.numbers):
            path, folder = self._paths[row], self._places[row]
            if path is not None:
                yield number, path, True
            else:
                front = self._known_front(folder.names)
                yield number, "/".join((*folder.names[len(front) :], self._names[row])), False

    def said(self) -> tuple[Remark, ...]:
        """Return what was done to find files, with counts."""
        counts: Counter[str] = Counter()
        for found in self._fronts.values():
            for differences, count in found.differences.items():
                counts.update(dict.fromkeys(differences, count))
        words = [f"{counted(count, 'path')} {what}" for what, count in counts.items()]
        fronts = sorted((-len(found.rows), "/".join(front)) for front, found in self._fronts.items() if front)
        for count, front in fronts[:_SHOWN]:
            words.append(f"{counted(-count, 'path')} found without {front + '/'!r} in front")
        if len(fronts) > _SHOWN:
            words.append(f"and without {len(fronts) - _SHOWN:,} more folders in front")
        return tuple(Remark(PATHS, word) for word in words)

    def _folder(self, text: str) -> _Folder:
        known = self._folders.get(text)
        if known is None:
            known = self._folders[text] = _Folder(_names(text))
        return known

    def _found(self, folder: _Folder, name: str, written: str) -> str | None:
        path, dropped, below = None, 0, False
        if name not in ("", ".", ".."):
            for dropped, candidate in folder.candidates(self.tree):  # noqa: B007 - the last one counts
                path = self.tree.file(candidate, name)
                if path is not None:
                    break
            if path is None and not folder.names:
                path = self.tree.below(name)
                below = path is not None
        if path is None:
            return None
        front = folder.names[:dropped]
        front = () if front == self.above or below else front
        taken = self._fronts.get(front)
        if taken is None:
            taken = self._fronts[front] = _Front()
        spelled = name if below else "/".join((*folder.names[dropped:], name))
        differences = tuple(_differences(written, path, spelled, front))
        taken.take(len(self._paths), differences)
        if not folder.files:
            folder.front, folder.said = front, differences
        return path

    def _remember(self, folder: _Folder, path: str, name: str) -> None:
        """Let other files of a folder be found as `path` was, if that has its own name in the first folder known."""
        candidate = folder.known[0][1]
        prefix = f"{candidate}/" if candidate else ""
        files = self.tree.listing(candidate).files
        if path == prefix + name and name in files:
            folder.files, folder.prefix = files, prefix

    def _count_lost(self) -> Counter[tuple[str, ...]]:
        """Count the paths that begin with each front and were not found."""
        lengths = {len(front) for front in self._fronts}
        unmatched = (self._places[row].names for row, path in enumerate(self._paths) if path is None)
        return Counter(names[:length] for names in unmatched for length in lengths)

    def _known_front(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the folders in front of a path that other paths were found without; () for none."""
        if names[: len(self.above)] == self.above:
            return self.above
        lengths = sorted({len(front) for front in self._fronts}, reverse=True)
        return next((names[:length] for length in lengths if names[:length] in self._fronts), ())

    def _require_inside(self, row: int) -> None:
        folder, name, written = self._places[row], self._names[row], self._written[row]
        if self._known_front(folder.names):
            return
        if ".." in folder.names or name in ("", ".", "..") or _is_absolute(written):
            raise PathRefused(
                self.numbers[row],
                f"path {written!r} must be relative to the folder of the images and stay below it, and no file there "
                "has its name. Name the folder that holds the images with `images_root`.",
            )


def _readings(path: str) -> list[str]:
    """Return a path as other systems may have meant it, the plainest reading first."""
    texts = [path]
    if path[:5].lower() == "file:":
        texts = [unquote(re.sub(r"^file:(//[^/]*)?", "", path, flags=re.IGNORECASE))]
    if "%" in texts[0] and _PERCENT.search(texts[0]):
        texts.append(path_to_manifest(unquote(texts[0], errors="surrogateescape")))
    return texts


def _names(text: str) -> tuple[str, ...]:
    names: list[str] = []
    for name in text.replace("\\", "/").split("/"):
        if name == ".." and names and names[-1] != "..":
            names.pop()
        elif name not in ("", "."):
            names.append(sys.intern(name))
    return tuple(names)


def _is_absolute(path: str) -> bool:
    return bool(re.match(r"[/\\]|file:|[A-Za-z]:[\\/]", path, re.IGNORECASE))


def _differences(written: str, path: str, spelled: str, front: tuple[str, ...]) -> list[str]:
    """Say how a path as it is written differs from that of its file; () for nothing but the folders in front."""
    said = []
    if "\\" in written:
        said.append("with backslashes read with slashes")
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
