"""A scan in whole numbers: a byte a number, a quarter of single precision to read, and a bound for every row.

A unit vector is kept as ``mean + weight * scale * codes``, codes from -127 to 127, with the length of what is left,
computed and not estimated. The mean of the store is subtracted and each dimension divided by the root of its deviation
because outputs of encoders have a common direction and outlying dimensions, which would cost the others their digits.
A query is cut into two planes of codes; what is left of it has a length too. By Cauchy and Schwarz a cosine is off by
at most the one length, and the other times the length of the codes.

The product is torch's: whole numbers below 2**31, exact in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.similarity.scan import BlockScores, Floats, Rows

_LARGEST = 127
_SECOND_PLANE = 2 * _LARGEST  # steps of the second plane in one of the first
_SAMPLE = 4096
_ROWS = 8192
# 127 * 127 * dim stays below 2**31.
LARGEST_DIM = 2**31 // _LARGEST**2


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

    def scores_of(self, queries: Floats) -> _Int8Scores:
        """Prepare (m, dim) queries of length 1 or 0."""
        import torch

        weighted = queries * self.weight
        largest = np.abs(weighted).max(axis=1, keepdims=True, initial=0.0)
        step = np.where(largest > 0, largest, 1.0) / _LARGEST
        first = np.rint(weighted / step)
        second = np.rint((weighted / step - first) * _SECOND_PLANE)
        left = np.linalg.norm(weighted - step * (first + second / _SECOND_PLANE), axis=1)
        planes = torch.from_numpy(np.concatenate([first, second]).astype(np.int8))
        return _Int8Scores(
            self, planes, queries @ self.mean, step[:, 0], left, np.linalg.norm(weighted, axis=1)
        )


@dataclass(frozen=True, eq=False)
class _Int8Scores:
    """Both planes of some queries.

    Parameters
    ----------
    scan
        What is scanned.
    planes
        (2 m, dim) int8 tensor.
    base, step, left, length
        (m,) float64: cosine of the mean, value of a code, length of what the planes leave, length of the query.
    """

    scan: Int8Scan
    planes: Any
    base: Floats
    step: Floats
    left: Floats
    length: Floats

    def of_rows(self, rows: Rows | slice) -> BlockScores:
        import torch

        scan, count = self.scan, len(self.base)
        codes = scan.codes[rows if isinstance(rows, slice) else torch.from_numpy(rows)]
        products = torch._int_mm(codes, self.planes.t())
        values = products[:, :count].to(torch.float32)
        values.add_(products[:, count:], alpha=1 / _SECOND_PLANE)
        values.mul_(torch.from_numpy(scan.scale[rows])[:, None])
        longest = float(scan.length[rows].max(initial=0))
        # Four roundings to single precision, each of at most the lengths' product.
        rounding = 2.0**-21 * longest * self.length
        bound = float(scan.left[rows].max(initial=0)) + longest * self.left + rounding
        return BlockScores(values.numpy(), self.base, self.step, bound)


def int8_scan(vectors: npt.NDArray[np.floating]) -> Int8Scan:
    """Code (n, dim) float16 or float32 vectors; a vector without length stays zero."""
    import torch

    n, dim = vectors.shape
    sample = _units(torch.tensor(vectors[:: max(1, n // _SAMPLE)], dtype=torch.float32)).double()
    mean = sample.mean(0).float()
    spread = sample.std(0, correction=0).sqrt()
    weight = torch.clamp(spread, min=1e-3 * float(spread.max())).float() if spread.any() else torch.ones(dim)
    codes = torch.empty((n, dim), dtype=torch.int8)
    scale, left, length = (torch.empty(n) for _ in range(3))
    for start in range(0, n, _ROWS):
        rows = slice(start, start + _ROWS)
        away = _units(torch.tensor(vectors[rows], dtype=torch.float32)).sub_(mean)
        whitened = away / weight
        largest = whitened.abs().amax(1)
        scale[rows] = torch.where(largest > 0, largest, 1.0) / _LARGEST
        rounded = whitened.div_(scale[rows, None]).round_().clamp_(-_LARGEST, _LARGEST)
        codes[rows] = rounded.to(torch.int8)
        rounded.mul_(scale[rows, None])
        length[rows] = torch.linalg.vector_norm(rounded, dim=1)
        left[rows] = torch.linalg.vector_norm(away.sub_(rounded.mul_(weight)), dim=1)
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
    try:
        found = torch._int_mm(torch.from_numpy(rows), torch.from_numpy(columns).t())
    except (AttributeError, RuntimeError):
        return False
    return np.array_equal(found.numpy(), rows.astype(np.int64) @ columns.T.astype(np.int64))
