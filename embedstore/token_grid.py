"""Token grids: what an encoder knew of each place in the picture, projected to fewer numbers by a fixed matrix.

A grid of 32 x 32 tokens of 1,152 numbers is 2.4 MB a picture in float16. Random orthonormal directions keep lengths
and angles approximately (Johnson and Lindenstrauss 1984) and need no sample to learn from, so that every store of
one encoder and width has the same ones.
"""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.files import sha256_bytes
from embedstore.identity import ArraySpec, Identity

TOKENS = "tokens"
GRID_DIMENSIONS = ("token_row", "token_column", "token_feature")
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


class TokenGrid:
    """The grid of tokens that an encoder gives beside its vector.

    Parameters
    ----------
    rows, columns
        Tokens from top to bottom and from left to right.
    width
        Length of a token as the encoder has it.
    wanted
        Numbers to keep of a token. A token that has no more than these is kept as it is.
    what
        What a token is, in a few words.

    Raises
    ------
    UsageError
        If `wanted` is below 1.
    """

    def __init__(self, rows: int, columns: int, *, width: int, wanted: int, what: str) -> None:
        check_wanted(wanted)
        self.shape = (rows, columns, min(width, wanted))
        self.width = width
        self.what = what

    @cached_property
    def projection(self) -> Floats | None:
        """(width, kept) float32, or None where tokens are kept as they are."""
        kept = self.shape[-1]
        return None if kept == self.width else token_projection(self.width, kept)

    @cached_property
    def spec(self) -> ArraySpec:
        """What the array of these tokens is, for an identity."""
        if self.projection is None:
            return ArraySpec(self.shape, GRID_DIMENSIONS, self.what)
        digest = sha256_bytes(self.projection.astype("<f4").tobytes())
        return ArraySpec(
            self.shape,
            GRID_DIMENSIONS,
            f"{self.what}, projected",
            projection={"kind": "orthonormal", "seed": SEED, "width": self.width, "sha256": digest},
        )


def check_wanted(wanted: int) -> None:
    """Refuse a number of kept numbers below 1; raises UsageError."""
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise UsageError(
            f"`tokens` must be a number of at least 1, the numbers kept of a token; found {wanted!r}"
        )


def tokens_of(identity: Identity) -> int | None:
    """Return how many numbers of a token an identity keeps; None without token grids.

    Examples
    --------
    >>> from embedstore.identity import ArraySpec, Identity
    >>> grid = ArraySpec((32, 32, 64), GRID_DIMENSIONS, "token")
    >>> tokens_of(Identity("e", "1", "none", {}, "mean", "float32", 2, arrays={"tokens": grid}))
    64
    """
    spec = identity.arrays.get(TOKENS)
    return spec.row_shape[-1] if spec is not None and spec.dimensions == GRID_DIMENSIONS else None
