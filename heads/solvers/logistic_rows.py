"""The vectors as the logistic solver works on them: shifted, scaled, and with the eigenbasis of their Gram matrix.

Of few rows with many dimensions the coordinates are those of the space that the rows span (`RowSpace`): the solution
lies in it, the second derivative is nearly diagonal there, and a product costs rows x rows in place of rows x
dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from embedstore.compute_device import torch_device
from heads.torch_threads import one_thread

Normalisation = Literal["none", "standardise", "l2"]
Precision = Literal["by size", "single"]
NORMALISATIONS: tuple[Normalisation, ...] = ("none", "standardise", "l2")
# Rows, spread over all, of which the eigenbasis is: more take longer and precondition no better.
_GRAM_ROWS = 1 << 14
_SPREAD_ROWS = 1 << 10
# Up to this rank the whole eigenbasis takes some milliseconds; above, that of so many directions.
_EXACT_RANK = 256
_LEADING_RANK = 128
# Rows, and spaces of them, up to which `RowSpace` is used.
_ROW_SPACE = 512
_GROUPS = 8
# Up to this many cells double precision costs less than a second.
SMALL_CELLS = 1 << 22


@dataclass(frozen=True)
class Basis:
    """Eigenbasis of the mean outer product of rows."""

    eigenvalues: torch.Tensor  # (k,)
    eigenvectors: torch.Tensor  # (dim, k)
    elsewhere: torch.Tensor  # () mean eigenvalue along all other directions


@dataclass(frozen=True)
class WorkingCopy:
    """Working copy of the vectors: shifted and scaled, with a last column of ones for the intercept."""

    rows: torch.Tensor  # (n, dim + 1)
    shift: npt.NDArray[np.float64]  # (dim,)
    scale: npt.NDArray[np.float64]  # (dim,)
    basis: Basis | None  # None where the rows are few: `row_space` takes its place

    def take(self, kept: npt.NDArray[np.int64]) -> WorkingCopy:
        """Return some rows; the eigenbasis stays that of all, close to theirs."""
        return replace(self, rows=self.rows[torch.from_numpy(kept).to(self.rows.device)])


def working_copy(
    X: npt.NDArray[np.float32], normalisation: Normalisation, device: str, *, precision: Precision = "by size"
) -> WorkingCopy:
    """Return what `heads.solvers.logistic_grid.solve` works on.

    Parameters
    ----------
    X
        (n, dim) vectors.
    normalisation
        As `solve`.
    device
        As `embedstore.compute_device.torch_device`.
    precision
        ``single``, or by size: double where the vectors are few, else single. Rows few enough for `RowSpace` are
        always in double precision.
    """
    small = is_small(X)
    double = (small and precision == "by size") or is_few(X)
    dtype = torch.float64 if double else torch.float32
    with one_thread(only_if=small):
        return _working_copy(X, normalisation, dtype, torch_device(device))


def _working_copy(
    X: npt.NDArray[np.float32], normalisation: Normalisation, dtype: torch.dtype, device: torch.device
) -> WorkingCopy:
    n, dim = X.shape
    # Filled by NumPy, as the vectors may be read-only, which torch does not support.
    working = np.empty((n, dim + 1), np.float64 if dtype == torch.float64 else np.float32)
    working[:, :dim], working[:, dim] = X, 1
    rows = torch.from_numpy(working).to(device)
    vectors = rows[:, :dim]
    if normalisation == "l2":
        vectors /= torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp_min(torch.finfo(dtype).tiny)
    # The intercept is free, so a shift changes no solution; it keeps single precision from cancelling.
    shift = _mean(vectors)
    vectors -= shift.to(dtype)
    scale = torch.ones(dim, dtype=torch.float64, device=device)
    if normalisation == "standardise":
        scale = _mean(vectors, power=2).sqrt()
        # Rounding leaves a constant column a spread of its last digit; dividing by that would make noise.
        scale[scale <= 10 * torch.finfo(dtype).eps * shift.abs()] = 1
        vectors /= scale.to(dtype)
    basis = None if is_few(X) else eigenbasis(vectors[:: max(1, n // _GRAM_ROWS)])
    return WorkingCopy(rows, shift.cpu().numpy(), scale.cpu().numpy(), basis)


def is_small(X: npt.NDArray[Any]) -> bool:
    """Return whether the vectors are so few that steps are short, and double precision costs next to nothing."""
    return X.size <= SMALL_CELLS


def is_few(X: npt.NDArray[Any]) -> bool:
    """Return whether the coordinates of `RowSpace` are cheaper than those of the vectors."""
    n, dim = X.shape
    return bool(2 * n <= dim and n <= _ROW_SPACE)


def eigenbasis(vectors: torch.Tensor) -> Basis:
    """Return the eigenbasis of (n, dim) vectors' mean outer product, or its leading part."""
    n, dim = vectors.shape
    with one_thread():
        if min(n, dim) > _EXACT_RANK and vectors.numel() <= SMALL_CELLS:
            return _leading_eigenbasis(vectors)
        none = torch.zeros((), dtype=vectors.dtype, device=vectors.device)
        if n >= dim:
            eigenvalues, eigenvectors = torch.linalg.eigh(vectors.T @ vectors / n)
            return Basis(eigenvalues.clamp_min(0), eigenvectors, none)
        # Of few rows the products among the rows have the same eigenvalues, but for zeros.
        wide = vectors.double()
        eigenvalues, turned = torch.linalg.eigh(wide @ wide.T / n)
        kept = eigenvalues > n * torch.finfo(torch.float64).eps * eigenvalues[-1]
        eigenvalues = eigenvalues[kept]
        basis = wide.T @ turned[:, kept] / (n * eigenvalues).sqrt()
        return Basis(eigenvalues.to(vectors.dtype), basis.to(vectors.dtype), none)


def _leading_eigenbasis(vectors: torch.Tensor) -> Basis:
    """Return the largest eigenvalues only, by a randomised range (Halko et al. 2011, arXiv 0909.4061).

    Where the vectors are few, the whole eigenbasis takes longer than all the descents that it would help.
    """
    n, dim = vectors.shape
    generator = torch.Generator(vectors.device).manual_seed(0)
    drawn = torch.randn((dim, _LEADING_RANK), generator=generator, dtype=vectors.dtype, device=vectors.device)
    turned, _ = torch.linalg.qr(vectors @ drawn)
    basis, _ = torch.linalg.qr(vectors.T @ turned)
    along = vectors @ basis
    eigenvalues, rotation = torch.linalg.eigh(along.T @ along / n)
    left = vectors.square().sum() / n - eigenvalues.sum()
    elsewhere = left.clamp_min(0) / (min(n, dim) - _LEADING_RANK)
    return Basis(eigenvalues.clamp_min(0), basis @ rotation, elsewhere)


@dataclass(frozen=True)
class RowSpace:
    """Rows in coordinates of the space that they span, one group of problems beside the other.

    Problems of one group scale the columns alike, so that their penalty is the square of these coordinates.

    Parameters
    ----------
    rows
        (groups, n, k + 1), the last column ones.
    eigenvalues
        (groups, k) of their mean outer product, which is diagonal.
    into, out_of
        (groups, dim, k) and (groups, k, dim): coefficients of the working copy times `into` are those of the
        coordinates, and back.
    group_of
        (held out, targets) int64.
    """

    rows: torch.Tensor
    eigenvalues: torch.Tensor
    into: npt.NDArray[np.float64]
    out_of: npt.NDArray[np.float64]
    group_of: npt.NDArray[np.int64]


def row_space(working: WorkingCopy, penalty: torch.Tensor | None, constant: torch.Tensor) -> RowSpace | None:
    """Return the space of few rows; None where so many spaces would take more than the vectors.

    Parameters
    ----------
    working
        The rows.
    penalty
        (held out, targets, dim) factors of the squared coefficients; None where all are 1.
    constant
        (held out, targets, dim) bool: columns without a part.
    """
    vectors = working.rows[:, :-1].double()
    # What is constant in all rows is zero here, and has no part anyhow.
    deviations = torch.where(constant & (vectors != 0).any(dim=0), 0.0, 1.0)
    if penalty is not None:
        deviations = deviations / penalty.double().sqrt()
    kinds, group_of = torch.unique(deviations.flatten(0, 1), dim=0, return_inverse=True)
    if len(kinds) > _GROUPS:
        return None
    scaled = vectors * kinds[:, None]
    with one_thread():
        eigenvalues, turned = torch.linalg.eigh(scaled @ scaled.mT)
    # Of the spectrum no more than its last digits is left out.
    kept = eigenvalues > len(vectors) * torch.finfo(torch.float64).eps * eigenvalues[:, -1:]
    lengths = torch.where(kept, eigenvalues, 0).sqrt()
    inverse = torch.where(kept, 1 / torch.where(kept, lengths, 1), 0)
    axes = (turned * inverse[:, None]).mT @ scaled  # (groups, k, dim), rows of length 1
    rows = torch.cat([turned * lengths[:, None], torch.ones_like(turned[:, :, :1])], dim=2)
    spread = torch.where(kinds > 0, 1 / torch.where(kinds > 0, kinds, 1), 0)
    return RowSpace(
        rows=rows.to(working.rows),
        eigenvalues=(lengths.square() / len(vectors)).to(working.rows),
        into=(axes * spread[:, None]).mT.cpu().numpy(),
        out_of=(axes * kinds[:, None]).cpu().numpy(),
        group_of=group_of.view(constant.shape[:2]).cpu().numpy(),
    )


def _mean(vectors: torch.Tensor, *, power: int = 1) -> torch.Tensor:
    """Return the (dim,) float64 mean of a power of each column, some rows at a time: torch would widen them all."""
    total = torch.zeros(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    for some in torch.split(vectors, _SPREAD_ROWS):
        total += some.double().pow(power).sum(0)
    return total / len(vectors)


def spreads(
    working: WorkingCopy, weights: npt.NDArray[np.float32], held: npt.NDArray[np.bool_]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the variance of each column under each problem's weights, and whether a coefficient must stay zero.

    Of shapes (held out, targets, dim) and, with the intercept, (held out, targets, dim + 1). A column that is constant
    in the rows of a problem does what the intercept does, which costs nothing: its coefficient is zero. Were it left
    to the descent, little but rounding would hold it, and rows held out, where it varies, would have any score.

    The working copy is standardised once, with all rows. A problem that holds rows out must be penalised as
    if its own rows had been standardised, which is this factor on each squared coefficient; then nothing of
    the held-out rows is left in its solution.

    Parameters
    ----------
    working
        The rows.
    weights
        (n, targets), 0 for a missing label.
    held
        (held out, targets or 1, n): the rows that are held out.
    """
    dim = working.rows.shape[1] - 1
    shape = (len(held), weights.shape[1])
    total = torch.zeros((*shape, 1), dtype=torch.float64, device=working.rows.device)
    mean, square = total.repeat(1, 1, dim), total.repeat(1, 1, dim)
    for start in range(0, len(weights), _SPREAD_ROWS):
        some = slice(start, start + _SPREAD_ROWS)
        # In double precision: sums of a thousand numbers would hide what is constant.
        rows = working.rows[some, :dim].double()
        shares = as_tensor(weights[some].T * ~held[:, :, some], rows)
        total += shares.sum(2, keepdim=True)
        mean += shares @ rows
        square += shares @ rows.square()
    mean, square = mean / total, square / total
    variance = square - mean.square()
    # The rounding error, also of the working copy itself, is proportional to the square.
    constant = variance <= 10 * torch.finfo(working.rows.dtype).eps * square
    return torch.where(constant, 1, variance).to(working.rows.dtype), torch.cat(
        [constant, torch.zeros_like(constant[..., :1])], dim=-1
    )


def as_tensor(array: npt.NDArray[Any], like: torch.Tensor) -> torch.Tensor:
    """Return an array as a tensor of the other's type, on its device."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(like)
