"""Paths of another place -> paths below the folder of the images, by one ordered rule, with counts.

A path is taken as it is written where that is a file. Else, in this order: it is read as another system writes paths
(backslashes, ``file://``, percent codes, ``./``); its letter case, its Unicode form and an ending that it lacks are
taken from the file of that name; its first folders are left out, as few as possible, which is what it takes for a
folder's own name in front and for the absolute paths of another machine; and a name without a folder is the one file of
that name in any folder below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import DataError
from embedstore.paths.file_tree import FileTree
from embedstore.paths.path_search import PATHS, PathRefused, PathSearch
from embedstore.tables.remarks import Remark, some_of

# What is no plain relative path, though it may name a file as it is.
_ODD = r"\\|//|(?:^|/)\.{1,2}(?:/|$)|^/|^file:|^[A-Za-z]:[\\/]|/$"

_LOOKED_AT, _FEW = 100, 5
_ENDINGS = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".webp")


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
    search = PathSearch(tree, root, paths)
    odd = pc.match_substring_regex(pa.array(paths, pa.string()), _ODD, ignore_case=True).to_pylist()
    for number, path in enumerate(paths):
        if odd[number] or not tree.has(path):
            try:
                search.look(number)
            except DataError as error:
                raise PathRefused(number, str(error)) from error
    search.settle()
    for number, path, there in search.results():
        found.paths[number] = path
        if not there:
            found.absent.append(number)
    found.remarks = (*search.said(), *_cause(root, found, len(paths)))
    return found


def _cause(root: Path, found: FoundFiles, total: int) -> tuple[Remark, ...]:
    """Say why files may be absent, where most are."""
    if len(found.absent) * 2 <= total:
        return ()
    folders = [number for number in found.absent[:_LOOKED_AT] if (root / found.paths[number]).is_dir()]
    if folders:
        return (Remark(PATHS, f"{found.paths[folders[0]]!r} is a folder: a row names one file"),)
    if other := _other_ending(root, found):
        return (
            Remark(PATHS, f"{other[0]!r} is absent, and {other[1]!r} is there: mend the ending in the table"),
        )
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


def _other_ending(root: Path, found: FoundFiles) -> tuple[str, str] | None:
    """Return an absent path, and a file beside it of the same name with another ending."""
    for number in found.absent[:_FEW]:
        path = root / found.paths[number]
        if path.suffix and path.parent.is_dir():
            for ending in _ENDINGS:
                if path.with_suffix(ending).is_file():
                    return found.paths[number], path.with_suffix(ending).name
    return None
