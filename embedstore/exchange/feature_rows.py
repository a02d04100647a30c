"""All vectors that an import names, in one order: a file with ids, or files of slides with a bag of patches each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.exchange.feature_file import FeatureFile
from embedstore.exchange.feature_files import READERS, open_features

# Where CLAM keeps the files that need no pickle.
_CLAM_FOLDER = "h5_files"
_PATCH_DIGITS = 4


@dataclass(frozen=True)
class FeatureRows:
    """Vectors of one or more files, one after the other.

    Parameters
    ----------
    root
        The folder that the files lie in.
    files
        In order.
    in_folder
        Whether the folder was named, and not a file.
    """

    root: Path
    files: Sequence[FeatureFile]
    in_folder: bool

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.files[0].dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers, the widest of all files."""
        return np.result_type(*(file.dtype for file in self.files))

    def __len__(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def are_bags(self) -> bool:
        """Whether the files are slides, whose rows have no ids of their own."""
        return self.files[0].ids is None

    @cached_property
    def ids(self) -> list[str]:
        """An id for each vector; ``slide/0000``, ``slide/0001``, ... for the patches of a slide."""
        return [image_id for file in self.files for image_id in _ids_of(file)]

    @cached_property
    def keys(self) -> list[str]:
        """What a table calls each vector's image: its id, or the name of its slide."""
        if not self.are_bags:
            return self.ids
        return [file.path.stem for file in self.files for _ in range(file.rows)]

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """What the files say of each vector beside its id: `path`, `frame`, and the place of a patch."""
        columns: dict[str, list[Any]] = {"path": [], "frame": []}
        for file in self.files:
            columns["path"] += [str(file.path.relative_to(self.root))] * file.rows
            columns["frame"] += range(file.rows) if file.ids is None else [0] * file.rows
        if any(file.coordinates is not None for file in self.files):
            for axis, name in enumerate(("coords_x", "coords_y")):
                columns[name] = [
                    place
                    for file in self.files
                    for place in (
                        [None] * file.rows if file.coordinates is None else file.coordinates[:, axis].tolist()
                    )
                ]
        return columns

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield the first row and the vectors of each block, (some rows, dim) float32, in order."""
        start = 0
        for file in self.files:
            end = start + file.rows
            try:
                for block in file.blocks():
                    with np.errstate(over="ignore", invalid="ignore"):
                        yield start, np.ascontiguousarray(block, dtype=np.float32)
                    start += len(block)
            except (OSError, ValueError, RuntimeError) as error:
                raise DataError(f"{file.path}: cannot be read: {error}") from error
            if start != end:
                raise DataError(f"{file.path}: changed while it was read")


def open_feature_rows(path: Path, *, array: str | None, id_column: str | None) -> FeatureRows:
    """Look into a file of features, or into all of a folder; see `embedstore.exchange.feature_files.open_features`.

    Raises
    ------
    DataError
        As there, and if a folder holds none, vectors differ in length, or two have one id.
    """
    folder = path / _CLAM_FOLDER if (path / _CLAM_FOLDER).is_dir() else path
    paths = sorted(entry for entry in folder.iterdir() if _is_features(entry)) if folder.is_dir() else [path]
    if not paths:
        raise DataError(f"{folder}: must hold files that end in {', '.join(READERS)}; found none")
    if len(suffixes := sorted({entry.suffix.lower() for entry in paths})) > 1:
        raise DataError(f"{folder}: the files of a folder must be of one format; found {', '.join(suffixes)}")
    files = [open_features(entry, array=array, id_column=id_column) for entry in paths]
    for file in files:
        if file.dim != files[0].dim:
            raise DataError(
                f"{file.path}: its vectors have {file.dim:,} numbers, those of {files[0].path.name} {files[0].dim:,}; "
                "features of two encoders never mix"
            )
        if (file.ids is None) != (files[0].ids is None):
            raise DataError(
                f"{folder}: {file.path.name} and {files[0].path.name}: one holds ids, the other none"
            )
    rows = FeatureRows(paths[0].parent, files, folder.is_dir())
    _require_different(rows)
    return rows


def _is_features(entry: Path) -> bool:
    return entry.suffix.lower() in READERS and not entry.name.startswith(".") and entry.is_file()


def _ids_of(file: FeatureFile) -> Sequence[str]:
    if file.ids is not None:
        return file.ids
    slide = file.path.stem
    digits = max(_PATCH_DIGITS, len(str(file.rows - 1)))
    return [slide] if file.is_whole else [f"{slide}/{row:0{digits}d}" for row in range(file.rows)]


def _require_different(rows: FeatureRows) -> None:
    seen: set[str] = set()
    doubled = list(dict.fromkeys(name for name in rows.ids if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
    if doubled:
        raise DataError(
            f"{rows.root}: ids must differ; {len(doubled):,} stand more than once: "
            f"{', '.join(map(repr, doubled[:3]))}"
        )
