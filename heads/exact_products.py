"""Matrix products whose bits do not depend on the batch, the threads or the BLAS.

Sums of floating-point numbers depend on their order, and a BLAS picks its order by shape and thread count; a
prediction would change in the last bits with the size of its batch. Here both factors are cut into slices of
whole numbers so short that every product and every sum stays below 2**53 and is therefore exact in float64
in any order (Ozaki et al. 2012, doi 10.1007/s11075-011-9478-1).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError

Floats = npt.NDArray[np.float64]
# Rows that are widened at once; a few arrays of float64 are held of them.
_ROWS = 1024


def reproducible_product(X: npt.NDArray[Any], coefficients: Floats) -> Floats:
    """Return ``X @ coefficients.T`` to about 12 digits, each row a function of that row alone.

    Parameters
    ----------
    X
        (n, dim) float32 or float64, finite.
    coefficients
        (columns, dim) float64, finite.

    Returns
    -------
    ndarray
        (n, columns) float64.

    Raises
    ------
    DataError
        If a number is NaN or infinite.
    """
    bits = _slice_bits(X.shape[1])
    column_scale, high, low = _slices(np.asarray(coefficients, np.float64), bits, "coefficients")
    product = np.empty((len(X), len(coefficients)))
    for start in range(0, len(X), _ROWS):
        row_scale, rows_high, rows_low = _slices(np.asarray(X[start : start + _ROWS], np.float64), bits, "X")
        # The product of both low slices is below the last digit kept.
        mixed = rows_high @ low.T + rows_low @ high.T
        exact = rows_high @ high.T + np.ldexp(mixed, -bits)
        product[start : start + _ROWS] = np.ldexp(exact, row_scale + column_scale.T - 2 * bits)
    return product


def reproducible_norms(X: npt.NDArray[Any]) -> Floats:
    """Return the Euclidean length of each row, (n, 1) float64; arguments and errors as the product."""
    bits = _slice_bits(X.shape[1])
    norms = np.empty((len(X), 1))
    for start in range(0, len(X), _ROWS):
        scale, high, low = _slices(np.asarray(X[start : start + _ROWS], np.float64), bits, "X")
        squares = np.einsum("ij,ij->i", high, high) + np.ldexp(np.einsum("ij,ij->i", high, low), 1 - bits)
        norms[start : start + _ROWS] = np.ldexp(np.sqrt(squares)[:, None], scale - bits)
    return norms


def _slice_bits(dim: int) -> int:
    """Bits of a slice such that `dim` products of two slices, two of them summed, stay below 2**53."""
    return (52 - math.ceil(math.log2(max(dim, 2)))) // 2


def _slices(rows: Floats, bits: int, name: str) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
    """Return each row's exponent (n, 1) and its two slices of whole numbers up to ``2**bits``."""
    if not np.isfinite(rows).all():
        raise DataError(
            f"{name} must be finite; found NaN or infinity in {_bad_rows(rows)} of {len(rows)} rows"
        )
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    exponent = np.frexp(largest)[1].astype(np.int32)
    scaled = np.ldexp(rows, bits - exponent)
    high = np.rint(scaled)
    low = np.rint(np.ldexp(scaled - high, bits))
    return exponent, high, low


def _bad_rows(rows: Floats) -> int:
    return int((~np.isfinite(rows)).any(axis=1).sum())
