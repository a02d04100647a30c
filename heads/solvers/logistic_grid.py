"""L2-regularised logistic regression for every strength, fold and target at once.

All problems share the two matrix products of an iteration. The method is L-BFGS whose first curvature is
that of the vectors' Gram matrix in its own eigenbasis, which takes away the ill-conditioning that makes plain
L-BFGS slow on embeddings (their spectrum decays over decades). Convergence is decided per problem.

The objective is scikit-learn's: ``C * sum(weight * log loss) + |w|**2 / 2``, the intercept not penalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from embedstore.compute_device import torch_device
from embedstore.errors import UsageError
from heads.base import Training
from heads.solvers.lbfgs import Minimum, minimise
from heads.solvers.logistic_problems import Preconditioner, Problems
from heads.stages import counted
from heads.torch_threads import one_thread

# Held-out, target and strength index of each problem that is solved with the others.
_Block = tuple[list[int], list[int], list[int]]
Normalisation = Literal["none", "standardise", "l2"]
NORMALISATIONS: tuple[Normalisation, ...] = ("none", "standardise", "l2")
NOTHING_HELD_OUT = -1
MAX_ITERATIONS = 300
# Products that a problem may take on top of its iterations: with few rows they cost next to nothing.
_NEWTON_PRODUCTS = 300
_SMALL_NEWTON_PRODUCTS = 20_000
# Cells of one (rows x columns) work array, of which there are six: more columns are solved block by block.
_BLOCK_CELLS = 1 << 21
_BLOCK_COLUMNS = 48
_GRAM_ROWS = 1 << 16
_SPREAD_ROWS = 1 << 10
# Up to this many cells double precision costs less than a second.
_SMALL_CELLS = 1 << 22


@dataclass(frozen=True)
class Solution:
    """Solved problems, in terms of the vectors as they were given (l2: of their unit vectors).

    Parameters
    ----------
    coef
        (strengths, held out, targets, columns, dim) float64.
    intercept
        (strengths, held out, targets, columns) float64.
    converged
        (strengths, held out, targets) bool.
    iterations
        (strengths, held out, targets) int64.
    held_out_scores
        (strengths, n, targets, columns) float32: each row scored by the problem that held its fold out;
        NaN for a row whose fold nobody held out.
    """

    coef: npt.NDArray[np.float64]
    intercept: npt.NDArray[np.float64]
    converged: npt.NDArray[np.bool_]
    iterations: npt.NDArray[np.int64]
    held_out_scores: npt.NDArray[np.float32]


def solve(
    training: Training,
    folds: npt.NDArray[np.int64],
    *,
    held_out: Sequence[int],
    strengths: Sequence[float],
    normalisation: Normalisation = "none",
    tolerance: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
    newton_products: int = _NEWTON_PRODUCTS,
    device: str = "cpu",
    working: WorkingCopy | None = None,
    scores: npt.NDArray[np.float32] | None = None,
) -> Solution:
    """Solve one problem per strength, held-out fold and target.

    Parameters
    ----------
    training
        The rows; a missing label (-1) or a weight of 0 leaves the row out of that target.
    folds
        (n,) int64: the fold of each row.
    held_out
        Folds to hold out, one after the other; `NOTHING_HELD_OUT` for all rows.
    strengths
        Values of C, positive; the larger, the weaker the regularisation.
    normalisation
        ``standardise`` takes mean and deviation from the rows that are not held out, by their weights;
        ``l2`` makes every vector a unit vector.
    tolerance
        Half the mean square by which scores may still be wrong (`heads.solvers.lbfgs.minimise`); by default 1e-18 in
        double precision (small problems), 1e-10 in single.
    max_iterations
        Problems that need more are returned as they are, ``converged`` False.
    newton_products
        As `heads.solvers.lbfgs.minimise`; small problems may take 20,000.
    device
        As `embedstore.compute_device.torch_device`.
    working
        `working_copy` of the same vectors, normalisation and device, where several calls share it.
    scores
        Where `Solution.held_out_scores` are written; by default a new array.

    Raises
    ------
    UsageError
        If a strength is not positive or the normalisation is unknown.
    """
    if normalisation not in NORMALISATIONS:
        raise UsageError(f"normalisation must be one of {', '.join(NORMALISATIONS)}; found {normalisation!r}")
    if len(strengths) == 0 or min(strengths) <= 0:
        raise UsageError(f"strengths must be one or more positive numbers; found {list(strengths)}")
    small = training.X.size <= _SMALL_CELLS
    if tolerance is None:
        tolerance = 1e-18 if small else 1e-10
    if working is None:
        working = working_copy(training.X, normalisation, device)
    with one_thread(only_if=small):
        grid = _Grid.create(
            working, training, folds, held_out, strengths, standardised=normalisation == "standardise"
        )
        results = _empty_solution(training, held_out, strengths, scores)
        for block in counted(
            "block of folds and strengths", _blocks(training, len(held_out), len(strengths))
        ):
            problems, preconditioner, start = grid.problems(block)
            minimum = minimise(
                problems,
                preconditioner,
                start,
                tolerance=tolerance,
                max_iterations=max_iterations,
                newton_products=_SMALL_NEWTON_PRODUCTS if small else newton_products,
            )
            grid.write(results, block, minimum, problems)
    return results


@dataclass(frozen=True)
class WorkingCopy:
    """Working copy of the vectors: shifted and scaled, with a last column of ones for the intercept."""

    rows: torch.Tensor  # (n, dim + 1)
    shift: npt.NDArray[np.float64]  # (dim,)
    scale: npt.NDArray[np.float64]  # (dim,)
    eigenvalues: torch.Tensor  # (k,) of the mean outer product of the rows
    eigenvectors: torch.Tensor  # (dim, k)


def working_copy(X: npt.NDArray[np.float32], normalisation: Normalisation, device: str) -> WorkingCopy:
    """Return what `solve` works on: (n, dim) vectors in double precision where they are few, else in single."""
    small = X.size <= _SMALL_CELLS
    with one_thread(only_if=small):
        return _working_copy(
            X, normalisation, torch.float64 if small else torch.float32, torch_device(device)
        )


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
    eigenvalues, eigenvectors = _eigenbasis(vectors[:: max(1, n // _GRAM_ROWS)])
    return WorkingCopy(rows, shift.cpu().numpy(), scale.cpu().numpy(), eigenvalues, eigenvectors)


def _eigenbasis(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues (k,) and eigenvectors (dim, k) of the vectors' mean outer product."""
    n, dim = vectors.shape
    with one_thread():
        if n >= dim:
            eigenvalues, eigenvectors = torch.linalg.eigh(vectors.T @ vectors / n)
            return eigenvalues.clamp_min(0), eigenvectors
        # Of few rows the products among the rows have the same eigenvalues, but for zeros.
        eigenvalues, turned = torch.linalg.eigh(vectors @ vectors.T / n)
        kept = eigenvalues > n * torch.finfo(vectors.dtype).eps * eigenvalues[-1]
        eigenvalues = eigenvalues[kept]
        return eigenvalues, vectors.T @ turned[:, kept] / (n * eigenvalues).sqrt()


def _mean(vectors: torch.Tensor, *, power: int = 1) -> torch.Tensor:
    """Return the (dim,) float64 mean of a power of each column, some rows at a time: torch would widen them all."""
    total = torch.zeros(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    for some in torch.split(vectors, _SPREAD_ROWS):
        total += some.double().pow(power).sum(0)
    return total / len(vectors)


def _spreads(
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
        (held out, n): the rows that are held out.
    """
    dim = working.rows.shape[1] - 1
    shape = (len(held), weights.shape[1])
    total = torch.zeros((*shape, 1), dtype=torch.float64, device=working.rows.device)
    mean, square = total.repeat(1, 1, dim), total.repeat(1, 1, dim)
    for start in range(0, len(weights), _SPREAD_ROWS):
        some = slice(start, start + _SPREAD_ROWS)
        # In double precision: sums of a thousand numbers would hide what is constant.
        rows = working.rows[some, :dim].double()
        shares = _tensor((weights[some] * ~held[:, some, None]).swapaxes(1, 2), rows)
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


def _empty_solution(
    training: Training,
    held_out: Sequence[int],
    strengths: Sequence[float],
    scores: npt.NDArray[np.float32] | None,
) -> Solution:
    n, dim = training.X.shape
    shape = (len(strengths), len(held_out), training.y.shape[1])
    if scores is None:
        scores = np.empty((shape[0], n, shape[2], training.columns), np.float32)
    scores[:] = np.nan
    return Solution(
        coef=np.zeros((*shape, training.columns, dim)),
        intercept=np.zeros((*shape, training.columns)),
        converged=np.zeros(shape, np.bool_),
        iterations=np.zeros(shape, np.int64),
        held_out_scores=scores,
    )


def _blocks(training: Training, n_held_out: int, n_strengths: int) -> list[_Block]:
    """Split all problems into blocks: parallel lists of held-out, target and strength indices."""
    problems = [
        (held, target, strength)
        for target in range(training.y.shape[1])
        for held in range(n_held_out)
        for strength in range(n_strengths)
    ]
    step = max(_BLOCK_COLUMNS, _BLOCK_CELLS // len(training.X)) // training.columns
    starts = range(0, len(problems), max(step, 1))
    groups = [problems[start : start + max(step, 1)] for start in starts]
    return [tuple(list(index) for index in zip(*group, strict=True)) for group in groups]  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """All problems of a call, solved block by block."""

    working: WorkingCopy
    training: Training
    weights: npt.NDArray[np.float32]  # (n, targets), 0 for a missing label
    held: npt.NDArray[np.bool_]  # (held out, n) which rows are held out
    total: npt.NDArray[np.float64]  # (held out, targets) weight of the others
    strengths: npt.NDArray[np.float64]
    spreads: torch.Tensor  # as `_spreads`
    constant: torch.Tensor
    standardised: bool

    @classmethod
    def create(
        cls,
        working: WorkingCopy,
        training: Training,
        folds: npt.NDArray[np.int64],
        held_out: Sequence[int],
        strengths: Sequence[float],
        *,
        standardised: bool,
    ) -> _Grid:
        weights = training.sample_weight * (training.y >= 0)
        held = folds == np.asarray(held_out)[:, None]
        total = np.stack([weights.sum(0, dtype=np.float64, where=~rows[:, None]) for rows in held])
        spreads, constant = _spreads(working, weights, held)
        return cls(
            working=working,
            training=training,
            weights=weights,
            held=held,
            total=total,
            strengths=np.asarray(strengths, np.float64),
            spreads=spreads,
            constant=constant,
            standardised=standardised,
        )

    def problems(self, block: _Block) -> tuple[Problems, Preconditioner, torch.Tensor]:
        """Return the block's problems, their preconditioner, and the coefficients to start from."""
        held, target, strength = block
        rows, columns = self.working.rows, self.training.columns
        total = self.total[held, target]
        ridge = 1 / (self.strengths[strength] * total)
        penalty = _tensor(np.repeat(ridge, columns), rows)[:, None].repeat(1, rows.shape[1])
        penalty[:, -1] = 0
        if self.standardised:
            penalty[:, :-1] *= self.spreads[held, target].repeat_interleave(columns, dim=0)
        problems = Problems(
            rows=rows,
            weights=_tensor(self.weights.T[target] * ~self.held[held] / total[:, None], rows),
            truth=_tensor(_one_hot(self.training.y.T[target], self.training.n_classes), rows),
            penalty=penalty,
            columns=columns,
        )
        start, curvature = problems.prior()
        constant = self.constant[held, target]
        preconditioner = Preconditioner(
            eigenvectors=self.working.eigenvectors,
            eigenvalues=self.working.eigenvalues,
            ridge=_tensor(ridge, rows),
            curvature=curvature,
            free=~constant.repeat_interleave(columns, dim=0) if bool(constant.any()) else None,
        )
        return problems, preconditioner, start

    def write(self, results: Solution, block: _Block, minimum: Minimum, problems: Problems) -> None:
        """Write a block's solutions, in terms of the vectors as they were given."""
        held, target, strength = block
        columns = self.training.columns
        solved = minimum.coefficients.cpu().numpy().astype(np.float64).reshape(len(target), columns, -1)
        coef = solved[:, :, :-1] / self.working.scale
        where = (strength, held, target)
        results.coef[where] = coef
        intercept = solved[:, :, -1] - coef @ self.working.shift
        # A softmax does not see a common shift of its intercepts; without one the solution is unique.
        results.intercept[where] = intercept - (intercept.mean(1, keepdims=True) if columns > 1 else 0)
        results.converged[where] = minimum.converged.cpu().numpy()
        results.iterations[where] = minimum.iterations.cpu().numpy()
        if self.held.any():
            scores = problems.scores(minimum.coefficients).cpu().numpy().reshape(len(target), columns, -1)
            for problem, rows in enumerate(self.held[held]):
                results.held_out_scores[strength[problem], rows, target[problem]] = scores[problem][:, rows].T


def _one_hot(y: npt.NDArray[np.int64], n_classes: int) -> npt.NDArray[np.float32]:
    """Return (problems, columns, n); a missing label is a column of zeros, whose weight is zero too."""
    classes = np.arange(1, 2) if n_classes == 2 else np.arange(n_classes)
    return np.asarray(y[:, None] == classes[:, None], np.float32)


def _tensor(array: npt.NDArray[Any], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like)
