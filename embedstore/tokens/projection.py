"""The matrix that projects tokens to fewer numbers.

A grid of 32 x 32 tokens of 1,152 numbers is 2.4 MB a picture in float16. Random orthonormal directions keep lengths
and angles approximately (Johnson and Lindenstrauss 1984) and need no sample to learn from, so that every store of
one encoder and width has the same ones.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError

SEED = 0
_BYTES_PER_ENTRY = 8
_SWEEPS = 2  # "twice is enough" (Giraud, Langou and Rozloznik 2005): orthonormal to rounding

Floats = npt.NDArray[np.float32]


@lru_cache(maxsize=2)
def token_projection(width: int, kept: int) -> Floats:
    """Return the matrix that projects tokens: the same bits on every machine.

    Its columns are random directions made orthonormal. Random numbers come from SHAKE-256 and sums are taken one
    after the other, because generators, LAPACK and blocked sums change between versions and processors, and the
    digest of the matrix is part of an identity.

    Parameters
    ----------
    width
        Length of a token.
    kept
        Length of a projected token, below `width`.

    Returns
    -------
    (width, kept) float32, read-only; its columns are orthonormal.

    Raises
    ------
    UsageError
        If `kept` is not from 1 to `width` - 1.

    Examples
    --------
    >>> matrix = token_projection(8, 3)
    >>> np.allclose(matrix.T @ matrix, np.eye(3), atol=1e-6)
    True
    """
    if not 1 <= kept < width:
        raise UsageError(
            f"a projection of tokens of width {width} must keep 1 to {width - 1} numbers; found {kept}"
        )
    # A sum of eight bytes is nearly normal, and exact.
    name = f"embedstore tokens {SEED} {width} {kept}".encode()
    drawn = np.frombuffer(hashlib.shake_256(name).digest(width * kept * _BYTES_PER_ENTRY), np.uint8)
    sums = drawn.reshape(width, kept, _BYTES_PER_ENTRY).astype(np.int64).sum(axis=2)
    columns = (sums - _BYTES_PER_ENTRY * 255 / 2).astype(np.float64)
    for _ in range(_SWEEPS):
        for column in range(kept):
            unit = columns[:, column : column + 1]
            unit /= np.sqrt(_running_sum(unit * unit))
            later = columns[:, column + 1 :]
            later -= unit * _running_sum(unit * later)
    matrix: Floats = columns.astype(np.float32)
    matrix.flags.writeable = False
    return matrix


def _running_sum(products: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sums down the columns, added in order of the rows."""
    sums: npt.NDArray[np.float64] = np.cumsum(products, axis=0)[-1]
    return sums
