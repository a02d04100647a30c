"""Vectors, and rows of other arrays, with the names of their images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.brief import Brief


@dataclass(frozen=True, repr=False)
class Embeddings(Brief):
    """Vectors with their names.

    Parameters
    ----------
    image_ids
        (n,) object array of str, in store order or in the order asked for.
    vectors
        (n, dim) float16 or float32, un-normalised; every row finite.
    rows
        (n,) int64: row in the store, counted over all parts.
    """

    image_ids: npt.NDArray[np.object_]
    vectors: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]

    def _facts(self) -> dict[str, Any]:
        return {
            "images": len(self.image_ids),
            "dim": self.vectors.shape[1],
            "dtype": str(self.vectors.dtype),
        }


@dataclass(frozen=True, repr=False)
class ArrayRows(Brief):
    """Rows of one array with their names.

    Parameters
    ----------
    image_ids
        (n,) object array of str, in store order or in the order asked for.
    values
        (n, *row shape) float16 or float32; every row finite.
    rows
        (n,) int64: row in the store, counted over all parts.
    """

    image_ids: npt.NDArray[np.object_]
    values: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]

    def _facts(self) -> dict[str, Any]:
        return {
            "images": len(self.image_ids),
            "row_shape": self.values.shape[1:],
            "dtype": str(self.values.dtype),
        }
