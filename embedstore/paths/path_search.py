"""The search for each path of a table that is not a file as it is written; fronts are judged when all are known."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from embedstore.errors import DataError
from embedstore.paths.file_tree import FileTree
from embedstore.paths.spelling import BACKSLASHES, differences, is_absolute, names_of, readings
from embedstore.tables.remarks import Remark, counted

PATHS = "paths"
_SHOWN = 3


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


class _Folder:
    """The folder of a path as the table writes it; most of its files are found as the first of them was.

    Parameters
    ----------
    text
        As written, with the separator behind.
    files, prefix, front, said
        Once a file was found by its own name in the first folder that the names name: the names that are files there,
        what stands before them in paths, the folders left out, and how such a path differs from the written one.
    """

    __slots__ = ("_known", "_looked", "_names", "files", "front", "prefix", "said", "text")

    def __init__(
        self,
        text: str,
        files: Set[str] = frozenset(),
        prefix: str = "",
        front: tuple[str, ...] = (),
        said: tuple[str, ...] = (),
    ) -> None:
        self.text, self.files, self.prefix, self.front, self.said = text, files, prefix, front, said
        self._names: tuple[str, ...] | None = None
        # The folders below the root that ends of the names name, the longest first, as far as they were asked for: how
        # many names are left out in front, and the folder. And how many ends were asked for.
        self._known: tuple[tuple[int, str], ...] = ()
        self._looked = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Its names; of most folders of a large table they are never asked for."""
        if self._names is None:
            self._names = names_of(self.text)
        return self._names

    def candidates(self, tree: FileTree) -> Iterator[tuple[int, str]]:
        """Yield the folders that are known, and then those that are not yet, which are kept."""
        yield from self._known
        while self._looked <= len(self.names):
            dropped = self._looked
            self._looked += 1
            end = self.names[dropped:]
            folder = None if ".." in end else tree.folder(end)
            if folder is not None:
                self._known += ((dropped, folder),)
                yield dropped, folder


@dataclass(frozen=True)
class _Habit:
    """How files were found whose paths begin with some text: below the root by what follows, letter by letter.

    Parameters
    ----------
    text
        As written; none of its names is a folder of the root.
    front
        What counts as left out in front.
    """

    text: str
    front: tuple[str, ...]


@dataclass
class _Front:
    """Folders in front of paths that were found without them."""

    rows: array[int] = field(default_factory=lambda: array("q"))
    differences: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def take(self, row: int, differences: tuple[str, ...]) -> None:
        """Count a path that was found, and how it differs from the written one."""
        self.rows.append(row)
        self.differences[differences] += 1


class PathSearch:
    """Looks for each path that is not a file as written; front folders are judged when all are known."""

    def __init__(self, tree: FileTree, root: Path, written: Sequence[str]) -> None:
        self.tree = tree
        self.above = names_of(str(root.absolute()))
        self.written = written
        self.numbers = array("q")
        # For each of `numbers`: the path of its file below the root, or None; its folder and name in the reading that
        # was found, else in the plainest one (the name is None where it is that of the path as written).
        self._paths: list[str | None] = []
        self._places: list[_Folder] = []
        self._names: list[str | None] = []
        self._fronts: dict[tuple[str, ...], _Front] = {}
        self._folders: dict[str, _Folder] = {}
        self._habit: _Habit | None = None

    def look(self, number: int) -> None:
        """Look for one path."""
        path = self.written[number]
        self.numbers.append(number)
        end = max(path.rfind("/"), path.rfind("\\")) + 1
        if "%" not in path:
            text, name = path[:end], path[end:]
            known = self._folders.get(text) or self._as_before(text)
            if known is not None and name in known.files:
                self._fronts[known.front].take(len(self._paths), known.said)
                self._keep(known.prefix + name, known, None)
                return
        first: tuple[_Folder, str] | None = None
        for text in readings(path):
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

    def _keep(self, found: str | None, folder: _Folder, name: str | None) -> None:
        self._paths.append(found)
        self._places.append(folder)
        self._names.append(name)

    def _name(self, row: int) -> str:
        name = self._names[row]
        return re.split(r"[/\\]", self.written[self.numbers[row]])[-1] if name is None else name

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
                    spellings.setdefault(path, set()).add((self._places[row].names, self._name(row)))
        return {path for path, spelled in spellings.items() if len(spelled) > 1}

    def results(self) -> Iterator[tuple[int, str, bool]]:
        """Yield the number of each path, the path below the root, and whether there is such a file."""
        for row, number in enumerate(self.numbers):
            path = self._paths[row]
            if path is not None:
                yield number, path, True
            else:
                names = self._places[row].names
                front = self._known_front(names)
                yield number, "/".join((*names[len(front) :], self._name(row))), False

    def said(self) -> tuple[Remark, ...]:
        """Return what was done to find files, with counts."""
        counts: Counter[str] = Counter()
        for found in self._fronts.values():
            for said, count in found.differences.items():
                counts.update(dict.fromkeys(said, count))
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
            known = self._folders[text] = _Folder(text)
        return known

    def _as_before(self, text: str) -> _Folder | None:
        """Return a new folder whose files are found as those of another were; None where that is not certain."""
        habit = self._habit
        if habit is None or not text.startswith(habit.text):
            return None
        below = text[len(habit.text) : -1].replace("\\", "/")
        if not below or below[0] in "./" or "/." in below or "//" in below or ":" in below:
            return None
        if below.partition("/")[0] not in self.tree.listing("").folders:
            return None
        listing = self.tree.listing(below)
        said = (BACKSLASHES,) if "\\" in text else ()
        folder = _Folder(text, listing.files, f"{below}/", habit.front, said)
        self._folders[text] = folder
        return folder

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
        said = tuple(differences(written, path, spelled, front))
        taken.take(len(self._paths), said)
        if not folder.files:
            folder.front, folder.said = front, said
        return path

    def _remember(self, folder: _Folder, path: str, name: str) -> None:
        """Let other files be found as `path` was, if that has its own name in the first folder that is known."""
        dropped, candidate = next(folder.candidates(self.tree))
        prefix = f"{candidate}/" if candidate else ""
        files = self.tree.listing(candidate).files
        if path != prefix + name or name not in files:
            return
        folder.files, folder.prefix = files, prefix
        text, front = folder.text[: len(folder.text) - len(prefix)], folder.names[:dropped]
        same = candidate != "" and folder.text.replace("\\", "/").endswith(f"/{prefix}" if text else prefix)
        if same and names_of(text) == front and not any(map(self.tree.has_top, front)):
            self._habit = _Habit(text, folder.front)

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
        folder, name, written = self._places[row], self._name(row), self.written[self.numbers[row]]
        if self._known_front(folder.names):
            return
        if ".." in folder.names or name in ("", ".", "..") or is_absolute(written):
            raise PathRefused(
                self.numbers[row],
                f"path {written!r} must be relative to the folder of the images and stay below it, and no file there "
                "has its name. Name the folder that holds the images with `images_root`.",
            )
