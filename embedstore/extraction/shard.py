"""A share of the chunks of a store, by which many processes divide the work without talking to each other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from embedstore.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Share `number` of `count`: the chunks whose number leaves ``number - 1`` when divided by `count`.

    Parameters
    ----------
    number
        From 1.
    count
        Number of shares.

    Examples
    --------
    >>> [chunk for chunk in range(10) if Shard(2, 4).holds(chunk)]
    [1, 5, 9]
    >>> [str(share) for share in Shard(2, 4).split(2)]
    ['2/8', '6/8']
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(f"`shard` must be i/n with 1 <= i <= n; found {self}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """Name of the worker that does this share."""
        return f"shard-{self.number}-of-{self.count}"

    def holds(self, chunk: int) -> bool:
        """Whether the chunk of this number belongs to the share."""
        return chunk % self.count == self.number - 1

    def split(self, ways: int) -> list[Self]:
        """Return shares that hold the chunks of this one between them, each chunk once."""
        return [type(self)(self.number + self.count * way, self.count * ways) for way in range(ways)]


WHOLE = Shard()


def parse_shard(text: str) -> Shard:
    """Return the shard that ``i/n`` names, ``1/n`` to ``n/n``.

    Raises
    ------
    UsageError
        For anything else.
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not found:
        raise UsageError(f"`shard` must be i/n with 1 <= i <= n, 2/8 for instance; found {text!r}")
    return Shard(int(found[1]), int(found[2]))
