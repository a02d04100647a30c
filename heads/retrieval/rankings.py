"""Units by their cosine to a unit: the largest of all pairs of their images, as a search finds them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_CELLS = 1 << 24  # cosines at once: 64 MB


def unit_cosines(
    X: npt.NDArray[np.floating], unit_of_image: npt.NDArray[np.int64], queries: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Yield some of the queries, (m,), and their cosines to all units, (m, n_units), in single precision.

    Parameters
    ----------
    X
        (n_images, dim), finite. A vector without length has cosine 0 to everything.
    unit_of_image
        (n_images,) from 0 and without gaps.
    queries
        (q,) units, ascending.
    """
    order = np.argsort(unit_of_image, kind="stable")
    first = np.searchsorted(unit_of_image[order], np.arange(int(unit_of_image.max(initial=-1)) + 1))
    sizes = np.diff([*first.tolist(), len(order)])
    units = _units(X[order])
    step = max(1, _CELLS // max(1, len(X) * int(sizes.max(initial=1))))
    for start in range(0, len(queries), step):
        some = queries[start : start + step]
        rows = np.concatenate([np.arange(first[unit], first[unit] + sizes[unit]) for unit in some])
        products = units[rows] @ units.T
        of_images = np.maximum.reduceat(products, first, axis=1)
        starts = np.cumsum([0, *sizes[some[:-1]].tolist()])
        yield some, np.maximum.reduceat(of_images, starts, axis=0)


def _units(X: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Divide (n, dim) vectors by their lengths."""
    lengths = np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64))[:, None]
    units: npt.NDArray[np.float32] = np.divide(X, np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return units
