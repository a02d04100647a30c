"""Token grids: what an encoder knew of each place in the picture, in as many numbers as are kept."""

from __future__ import annotations

from functools import cached_property

from embedstore.errors import UsageError
from embedstore.files import sha256_bytes
from embedstore.identity import ArraySpec, Identity
from embedstore.tokens.projection import SEED, Floats, token_projection

TOKENS = "tokens"
GRID_DIMENSIONS = ("token_row", "token_column", "token_feature")


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
