"""Columns of the manifest beside the vector: anatomy, series, manufacturer, as zeros and a number at the level seen.

Every column becomes a block with one entry per level (value) of the images learned from. The entry of an image's
level is the root mean square of those images' vector lengths, the rest are zero, so a column weighs as much as
the vector itself. With plain ones it would count for nothing where vectors are long: in cosines and after
division by the length it would vanish, and a penalty on weights would forbid the large weight that it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.manifest import FIXED_COLUMNS
from embedstore.task import UNIT_ID, Task

Cells = Mapping[str, npt.NDArray[np.str_]]

# A column with more different values is an identifier or a measurement: each value would have a handful of patients.
MAX_LEVELS = 64
# Of the fixed columns only the modality describes the image without identifying its patient or place.
_IDENTIFIERS = frozenset({*FIXED_COLUMNS, UNIT_ID}) - {"modality"}
_ANSWERS = frozenset(
    {"label", "labels", "target", "targets", "class", "classes", "ground_truth", "diagnosis"}
)


@dataclass(frozen=True)
class MetadataBlocks:
    """How cells of the manifest become numbers, as learned from the images that a head was fitted on.

    Parameters
    ----------
    columns
        Names of the columns, in the order of their blocks.
    levels
        Sorted different values of each column; ``""`` (unknown) is one where it was seen.
    scale
        Value of the one-hot entries: the root mean square length of the vectors.
    """

    columns: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    scale: float

    @classmethod
    def learn(cls, X: npt.NDArray[np.float32], metadata: Cells) -> MetadataBlocks:
        """Learn levels and scale.

        Parameters
        ----------
        X
            (n_images, dim) float32 vectors, finite.
        metadata
            Column -> (n_images,) str.

        Raises
        ------
        UsageError
            If a column has more than `MAX_LEVELS` different values.
        """
        levels = []
        for column, cells in metadata.items():
            found = tuple(np.unique(cells).tolist())
            if len(found) > MAX_LEVELS:
                raise UsageError(
                    f"`with_columns` {column}: {len(found):,} different values in {len(cells):,} images ({found[0]!r}, "
                    f"{found[1]!r}, ...), {MAX_LEVELS} at most: such a column is an identifier or a measurement, "
                    "not metadata with levels; put numbers into a few ranges first"
                )
            levels.append(found)
        square = float(np.einsum("ij,ij->i", X, X, dtype=np.float64).mean())
        # Vectors that are all zero have no length to be compared with.
        return cls(tuple(metadata), tuple(levels), float(np.sqrt(square)) or 1.0)

    def append(self, X: npt.NDArray[np.float32], metadata: Cells | None) -> npt.NDArray[np.float32]:
        """Put the blocks behind the vectors.

        Parameters
        ----------
        X
            (n_images, dim) float32.
        metadata
            Column -> (n_images,) str; further columns have no part.

        Returns
        -------
        ndarray
            (n_images, dim + all levels) float32. A value without a level leaves its block zero. A row depends
            on nothing but itself.

        Raises
        ------
        UsageError
            If a column is missing.
        """
        given = self.require(metadata)
        n, dim = X.shape
        wide = np.zeros((n, dim + sum(map(len, self.levels))), np.float32)
        wide[:, :dim] = X
        start = dim
        for column, of_column in zip(self.columns, self.levels, strict=True):
            names, cells = np.array(of_column), given[column]
            at = np.minimum(np.searchsorted(names, cells), len(names) - 1)
            known = np.flatnonzero(names[at] == cells)
            wide[known, start + at[known]] = self.scale
            start += len(names)
        return wide

    def require(self, metadata: Cells | None) -> Cells:
        """Return `metadata`, or raise UsageError naming the columns that are missing and their levels."""
        lacking = [column for column in self.columns if column not in (metadata or {})]
        if metadata is None or lacking:
            named = "; ".join(
                f"{column} (known: {', '.join(map(_named, of_column))})"
                for column, of_column in zip(self.columns, self.levels, strict=True)
                if column in lacking
            )
            raise UsageError(f"the head was fitted with metadata and needs it of every image: {named}")
        return metadata

    def unseen(self, metadata: Cells) -> dict[str, list[str]]:
        """Return the values of each column that have no level, sorted; columns without any are left out."""
        strange = {
            column: sorted(set(np.unique(metadata[column]).tolist()) - set(of_column))
            for column, of_column in zip(self.columns, self.levels, strict=True)
        }
        return {column: found for column, found in strange.items() if found}

    @classmethod
    def joined(cls, blocks: Sequence[MetadataBlocks]) -> MetadataBlocks | None:
        """Return the columns that any of several heads needs, each once; None where none needs any.

        The heads learned from the same images, so that a column has the same levels in each.
        """
        levels = {
            column: of_column
            for each in blocks
            for column, of_column in zip(each.columns, each.levels, strict=True)
        }
        return cls(tuple(levels), tuple(levels.values()), blocks[0].scale) if levels else None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "columns": list(self.columns),
            "levels": [list(of_column) for of_column in self.levels],
            "scale": self.scale,
        }


def metadata_from_json(document: Mapping[str, Any]) -> MetadataBlocks:
    """Build from `MetadataBlocks.to_json`; raises KeyError where something is missing."""
    return MetadataBlocks(
        tuple(document["columns"]), tuple(map(tuple, document["levels"])), float(document["scale"])
    )


def require_metadata_columns(columns: Sequence[str], task: Task | None = None) -> None:
    """Refuse columns that say who or where an image is, or what the answer is, by their names.

    Parameters
    ----------
    columns
        Names that are asked for.
    task
        Its name, targets and classes are answers.

    Raises
    ------
    UsageError
        With the first such column, or one that is named twice.
    """
    answers = _ANSWERS | (
        set() if task is None else set(map(str.lower, (task.name, *task.targets, *task.classes)))
    )
    for column in columns:
        if column in _IDENTIFIERS:
            raise UsageError(
                f"`with_columns` {column}: {column} says which image this is, or who judges it, and nothing that holds "
                "for another patient; a head must not see it"
            )
        if column.lower() in answers:
            raise UsageError(
                f"`with_columns` {column}: by its name the column holds the answer; a head must not see it"
            )
        if list(columns).count(column) > 1:
            raise UsageError(f"`with_columns` {column} is given twice")


def _named(level: str) -> str:
    return level or "'' (unknown)"
