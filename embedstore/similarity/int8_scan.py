"""A scan in whole numbers: a byte a number, a quarter of single precision to read, and a bound for every row.

A unit vector is kept as ``mean + weight * scale * codes``, codes from -127 to 127, with the length of what is left,
computed and not estimated. The mean of the store is subtracted and each dimension divided by the root of its deviation
because outputs of encoders have a common direction and outlying dimensions, which would cost the others their digits.
A query is cut into two planes of codes; what is left of it has a length too. By Cauchy and Schwarz a cosine is off by
at most the one length, and the other times the length of the codes.

The product is torch's: whole numbers below 2**31, exact in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.similarity.scan import BlockScores, Floats, Rows
from embedstore.similarity.threads import on_threads, thread_count

_LARGEST = 127
_SECOND_PLANE = 2 * _LARGEST  # steps of the second plane in one of the first, where the sums allow it
_SAMPLE = 4096
_ROWS = 256  # which stay in a core's cache
# Half of 2**31 holds the products of each plane, of 127 * 127 for each dimension.
# torch 2.13 returns memory as it finds it where vectors are of one number.
DIMS = range(2, 2**30 // _LARGEST**2 + 1)


@dataclass(frozen=True, eq=False)
class Int8Scan:
    """Codes of vectors; `int8_scan` makes one.

    Parameters
    ----------
    codes
        (n, dim) int8 tensor.
    scale, left, length
        (n,) float32: of the codes; at least the length of what they leave; at least the length of ``scale * codes``.
    mean, weight
        (dim,) float64.
    """

    codes: Any
    scale: npt.NDArray[np.float32]
    left: npt.NDArray[np.float32]
    length: npt.NDArray[np.float32]
    mean: Floats
    weight: Floats

    def taken(self, rows: Rows) -> Int8Scan:
        """Return the codes of some rows, copied."""
        import torch

        return replace(
            self,
            codes=self.codes[torch.from_numpy(rows)],
            scale=self.scale[rows],
            left=self.left[rows],
            length=self.length[rows],
        )

    def scores_of(self, queries: Floats) -> _Int8Scores:
        """Prepare (m, dim) queries."""
        import torch

        weighted = queries * self.weight
        largest = np.abs(weighted).max(axis=1, keepdims=True, initial=0.0)
        step = np.where(largest > 0, largest, 1.0) / _LARGEST
        first = np.rint(weighted / step)
        steps = self._steps_of_second_plane(first)
        second = np.rint((weighted / step - first) * steps)
        left = np.linalg.norm(weighted - step * (first + second / steps), axis=1)
        length = np.linalg.norm(weighted, axis=1)
        return _Int8Scores(
            scan=self,
            planes=torch.from_numpy(np.concatenate([first, second]).astype(np.int8)),
            steps=steps,
            base=queries @ self.mean,
            factor=step[:, 0] / steps,
            bound=self._longest * (left + 2.0**-21 * length),
            of_left=np.linalg.norm(queries, axis=1) * (1 + 2.0**-40),
        )

    def _steps_of_second_plane(self, first: Floats) -> int:
        """Return how fine the second plane may be, that the sum of both products stays below 2**31."""
        longest = self._longest_code
        own = longest * float(np.linalg.norm(first, axis=1).max(initial=1.0))
        second = longest * _LARGEST * np.sqrt(first.shape[1])
        return max(1, min(_SECOND_PLANE, int((2**31 - 1 - second) / max(own, 1.0))))

    @cached_property
    def _longest(self) -> float:
        return float(self.length.max(initial=0))

    @cached_property
    def _longest_code(self) -> float:
        return float((self.length / self.scale).max(initial=0)) * (1 + 2.0**-20)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Int8Scores:
    """Both planes of some queries.

    Parameters
    ----------
    scan
        What is scanned.
    planes
        (2 m, dim) int8 tensor.
    steps
        Steps of the second plane in one of the first.
    base, factor, bound, of_left
        (m,) as `BlockScores`.
    """

    scan: Int8Scan
    planes: Any
    steps: int
    base: Floats
    factor: Floats
    bound: Floats
    of_left: Floats
    _room: dict[int, Any] = field(default_factory=dict)

    def of_rows(self, rows: slice) -> BlockScores:
        import torch

        count, scan = len(self.base), self.scan
        # Written over and over, as memory that is new costs more than the product's result.
        products, values = self._room.setdefault(rows.stop - rows.start, (None, None))
        if products is None:
            products = torch.empty((2 * count, rows.stop - rows.start), dtype=torch.int32)
            values = torch.empty((count, rows.stop - rows.start))
            self._room[rows.stop - rows.start] = products, values
        torch._int_mm(self.planes, scan.codes[rows].t(), out=products)
        both = torch.add(products[count:], products[:count], alpha=self.steps, out=products[count:])
        # Two roundings to single precision, each of at most the lengths' product.
        torch.mul(both, torch.from_numpy(scan.scale[rows]), out=values)
        return BlockScores(values.numpy(), self.base, self.factor, self.bound, self.of_left, scan.left[rows])


def int8_scan(vectors: npt.NDArray[np.floating], *, unit: bool = False) -> Int8Scan:
    """Code (n, dim) float16 or float32 vectors; a vector without length stays zero.

    Parameters
    ----------
    vectors
        What is coded.
    unit
        Whether they are taken as they are, with a length of 1 but for their rounding, or 0.
    """
    import torch

    def units(rows: npt.NDArray[np.floating]) -> Any:
        wide = torch.tensor(rows, dtype=torch.float32)
        return wide if unit else _units(wide)

    n, dim = vectors.shape
    sample = units(vectors[:: max(1, n // _SAMPLE)]).double()
    mean = sample.mean(0).float()
    spread = sample.std(0, correction=0).sqrt()
    weight = torch.clamp(spread, min=1e-3 * float(spread.max())).float() if spread.any() else torch.ones(dim)
    codes = torch.empty((n, dim), dtype=torch.int8)
    scale, left, length = (torch.empty(n) for _ in range(3))

    def code(start: int) -> None:
        rows = slice(start, start + _ROWS)
        away = units(vectors[rows]).sub_(mean)
        whitened = away / weight
        largest = whitened.abs().amax(1)
        scale[rows] = torch.where(largest > 0, largest, 1.0) / _LARGEST
        rounded = whitened.div_(scale[rows, None]).round_().clamp_(-_LARGEST, _LARGEST)
        codes[rows] = rounded.to(torch.int8)
        rounded.mul_(scale[rows, None])
        length[rows] = torch.linalg.vector_norm(rounded, dim=1)
        left[rows] = torch.linalg.vector_norm(away.sub_(rounded.mul_(weight)), dim=1)

    on_threads(code, range(0, n, _ROWS), threads=thread_count())
    # A sum of `dim` squares in single precision is off by a share of this, a unit vector by as much.
    rounding = (dim + 8) * 2.0**-24
    length, left = length * (1 + rounding), left * (1 + rounding) + 2 * rounding
    return Int8Scan(
        codes, scale.numpy(), left.numpy(), length.numpy(), mean.double().numpy(), weight.double().numpy()
    )


def _units(rows: Any) -> Any:
    """Divide a float32 tensor of rows by their lengths, in place."""
    import torch

    # The largest number becomes 1 first, so that no square leaves single precision.
    largest = rows.abs().amax(1, keepdim=True)
    rows /= torch.where(largest > 0, largest, 1.0)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    rows /= torch.where(lengths > 0, lengths, 1.0)
    return rows


@cache
def is_exact_here() -> bool:
    """Return whether torch multiplies int8 on this processor, without the saturation of some instruction sets."""
    import torch

    rng = np.random.default_rng(0)
    rows = rng.choice(np.array([-127, 127, -1, 64], np.int8), (64, 1152))
    rows[0], rows[1] = -127, 127
    columns = np.concatenate([rows[:4], rng.integers(-127, 128, (28, 1152)).astype(np.int8)])
    for some in (rows, rows[:2]):
        try:
            found = torch._int_mm(torch.from_numpy(some), torch.from_numpy(columns).t()).numpy()
        except (AttributeError, RuntimeError):
            return False
        if not np.array_equal(found, some.astype(np.int64) @ columns.T.astype(np.int64)):
            return False
    return True
