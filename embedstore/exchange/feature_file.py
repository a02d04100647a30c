"""What a file of features is, whatever its format, and the rules by which its arrays are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, did_you_mean

# What tools call the array with the vectors, in the order in which it is looked for.
ARRAY_NAMES = ("features", "vectors", "embeddings", "embedding", "feats")
_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class FeatureFile:
    """Vectors in a file, in row order.

    Parameters
    ----------
    path
        The file.
    rows, dim
        How many vectors, and their length.
    dtype
        Of the numbers in the file.
    ids
        An id for each row, or None.
    coordinates
        (rows, 2) place of each row in its slide, in pixels, or None.
    blocks
        Yields the vectors in order, (some rows, dim) each.
    is_whole
        Whether the file is one vector of a whole slide, and no bag of patches.
    """

    path: Path
    rows: int
    dim: int
    dtype: np.dtype[Any]
    ids: Sequence[str] | None
    coordinates: npt.NDArray[Any] | None
    blocks: Callable[[], Iterator[npt.NDArray[Any]]]
    is_whole: bool = False


def block_rows(dim: int) -> int:
    """Return how many vectors are read at once."""
    return max(1, _BLOCK_BYTES // (4 * max(dim, 1)))


def choose_array(path: Path, shapes: Mapping[str, tuple[int, ...]], wanted: str | None) -> str:
    """Return the name of the array with the vectors.

    Parameters
    ----------
    path
        The file, for messages.
    shapes
        Name -> shape of every array of floating-point numbers.
    wanted
        The name that was asked for; None for the only candidate, or the one that has a name of `ARRAY_NAMES`.

    Raises
    ------
    DataError
        If there is none, or several without such a name.
    """
    listed = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in shapes.items()) or "none"
    if wanted is not None:
        if wanted not in shapes:
            raise DataError(
                f"{path}: `array` names {wanted!r}, which is no array of floating-point numbers in the file; those "
                f"are: {listed}{did_you_mean(wanted, shapes)}"
            )
        return wanted
    for name in ARRAY_NAMES:
        if name in shapes:
            return name
    tables = [name for name, shape in shapes.items() if len(shape) > 1]
    if len(tables) != 1:
        raise DataError(
            f"{path}: which array holds the vectors? None is called {' or '.join(ARRAY_NAMES)}; `array` names it. "
            f"Arrays of floating-point numbers: {listed}"
        )
    return tables[0]


def table_shape(path: Path, name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and dimension of (N, D), of (1, N, D) as patches of one slide, or of (D,), one vector of a slide."""
    if len(shape) == 3 and shape[0] == 1:
        return shape[1], shape[2]
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) == 1:
        return 1, shape[0]
    raise DataError(
        f"{path}: the array {name!r} must have the shape N x D, 1 x N x D or D; found {' x '.join(map(str, shape))}"
    )


def checked_ids(path: Path, name: str, cells: npt.NDArray[Any], rows: int) -> list[str]:
    """Return an array of ids as text; raises DataError if it is no list of text or whole numbers, one for each row."""
    flat = np.asarray(cells)
    if flat.shape != (rows,) or flat.dtype.kind not in "OSUTiu":
        raise DataError(
            f"{path}: {name!r} must hold text or whole numbers, one for each of {rows:,} vectors; found "
            f"{flat.dtype} of shape {flat.shape}"
        )
    try:
        ids = [cell.decode() if isinstance(cell, bytes) else str(cell) for cell in flat.tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {name!r} must hold text in UTF-8; {error}") from error
    if "" in ids:
        raise DataError(f"{path}: {name!r}, row {ids.index('')}: the id is empty; every vector needs one")
    return ids
