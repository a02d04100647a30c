"""L2-regularised logistic regression for every strength, fold and target at once.

All problems share the two matrix products of an iteration. The method is L-BFGS whose first curvature is that of
the vectors' Gram matrix in its own eigenbasis, which takes away the ill-conditioning that makes plain L-BFGS slow on
embeddings. Convergence is decided per problem. The objective is ``C * sum(weight * log loss) + |w|**2 / 2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from embedstore.errors import UsageError
from heads.base import Training
from heads.solvers.lbfgs import Minimum, minimise
from heads.solvers.logistic_problems import Preconditioner, Problems, contrasts
from heads.solvers.logistic_rows import (
    NORMALISATIONS,
    Basis,
    Normalisation,
    RowSpace,
    WorkingCopy,
    as_tensor,
    eigenbasis,
    is_small,
    row_space,
    spreads,
    working_copy,
)
from heads.solvers.logistic_solution import Solution, by_group, empty_solution, one_hot
from heads.stages import counted
from heads.torch_threads import one_thread

# Held-out, target and strength index of each problem that is solved with the others.
Block = tuple[list[int], list[int], list[int]]
NOTHING_HELD_OUT = -1
MAX_ITERATIONS = 300
# Products that a problem may take on top of its iterations: with few rows they cost next to nothing.
_NEWTON_PRODUCTS = 300
_SMALL_NEWTON_PRODUCTS = 20_000
# Cells of one (rows x columns) work array, of which there are six: more columns are solved block by block.
_BLOCK_CELLS = 1 << 21
_BLOCK_COLUMNS = 60


def solve(
    training: Training,
    folds: npt.NDArray[np.int64],
    *,
    held_out: Sequence[int],
    strengths: Sequence[float],
    strength_of_target: Sequence[int] | None = None,
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
        (n,) int64: the fold of each row; or (n, targets), where targets are parted into folds in different ways.
    held_out
        Folds to hold out, one after the other; `NOTHING_HELD_OUT` for all rows.
    strengths
        Values of C, positive; the larger, the weaker the regularisation.
    strength_of_target
        The one strength of each target that is solved, as its place in `strengths`; all by default.
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
    small = is_small(training.X)
    if tolerance is None:
        tolerance = 1e-18 if small else 1e-10
    if working is None:
        working = working_copy(training.X, normalisation, device)
    with one_thread(only_if=small):
        grid = Grid.create(
            working,
            training,
            folds,
            held_out=held_out,
            strengths=strengths,
            standardised=normalisation == "standardise",
            scores=scores,
        )
        every = [
            (held, target, strength)
            for target in range(training.y.shape[1])
            for held in range(len(held_out))
            for strength in range(len(strengths))
            if strength_of_target is None or strength_of_target[target] == strength
        ]
        for block in counted("block of folds and strengths", blocks(training, every)):
            grid.solve(
                block,
                tolerance=tolerance,
                max_iterations=max_iterations,
                newton_products=_SMALL_NEWTON_PRODUCTS if small else newton_products,
            )
    return grid.solution


def _columns(training: Training) -> int:
    """Return how many scores a problem has while it is solved (`heads.solvers.logistic_problems`)."""
    return max(1, training.columns - 1)


def blocks(training: Training, problems: Sequence[tuple[int, int, int]]) -> list[Block]:
    """Split problems (held-out, target and strength index) into blocks that are solved at once."""
    step = max(1, max(_BLOCK_COLUMNS, _BLOCK_CELLS // len(training.X)) // training.columns)
    groups = [problems[start : start + step] for start in range(0, len(problems), step)]
    return [tuple(list(index) for index in zip(*group, strict=True)) for group in groups]  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The problems of every strength, held-out fold and target, solved block by block.

    Parameters
    ----------
    working
        The rows.
    training
        The rows' labels and weights.
    weights
        (n, targets), 0 for a missing label.
    held
        (held out, targets or 1, n): which rows are held out.
    total
        (held out, targets): weight of the others.
    strengths
        Values of C.
    variance, constant
        As `heads.solvers.logistic_rows.spreads`.
    standardised
        Whether the vectors are standardised.
    coordinates
        Of few rows their own space; else the eigenbasis of the rows, and the coordinates are the working copy's.
    solution
        What has been solved so far.
    """

    working: WorkingCopy
    training: Training
    weights: npt.NDArray[np.float32]
    held: npt.NDArray[np.bool_]
    total: npt.NDArray[np.float64]
    strengths: npt.NDArray[np.float64]
    variance: torch.Tensor
    constant: torch.Tensor
    standardised: bool
    coordinates: RowSpace | Basis
    solution: Solution

    @classmethod
    def create(
        cls,
        working: WorkingCopy,
        training: Training,
        folds: npt.NDArray[np.int64],
        *,
        held_out: Sequence[int],
        strengths: Sequence[float],
        standardised: bool,
        scores: npt.NDArray[np.float32] | None = None,
    ) -> Grid:
        """Prepare the problems; the parameters are those of `solve`."""
        weights = training.sample_weight * (training.y >= 0)
        held = np.atleast_2d(folds.T) == np.asarray(held_out)[:, None, None]
        total = np.stack([weights.sum(0, dtype=np.float64, where=~rows.T) for rows in held])
        # With every label and one weight all targets see the same rows, and their columns spread alike.
        alike = held.shape[1] == 1 and bool((weights == weights[:, :1]).all())
        variance, constant = spreads(working, weights[:, :1] if alike else weights, held)
        variance, constant = (
            of_target.expand(-1, weights.shape[1], -1) for of_target in (variance, constant)
        )
        coordinates: RowSpace | Basis | None = working.basis
        if coordinates is None:
            space = row_space(working, variance if standardised else None, constant[:, :, :-1])
            coordinates = eigenbasis(working.rows[:, :-1]) if space is None else space
        return cls(
            working=working,
            training=training,
            weights=weights,
            held=held,
            total=total,
            strengths=np.asarray(strengths, np.float64),
            variance=variance,
            constant=constant,
            standardised=standardised,
            coordinates=coordinates,
            solution=empty_solution(training, held_out, strengths, scores),
        )

    def solve(
        self,
        block: Block,
        *,
        tolerance: float,
        max_iterations: int = MAX_ITERATIONS,
        newton_products: int,
        start: tuple[Solution, Sequence[int]] | None = None,
    ) -> None:
        """Solve a block of problems.

        Parameters
        ----------
        block
            Held-out, target and strength index of each problem.
        tolerance, max_iterations, newton_products
            As `heads.solvers.lbfgs.minimise`.
        start
            Solution, of this or another grid of the same vectors, folds and targets, and the index of the strength
            there from which each problem starts; by default the best constant.
        """
        group = np.zeros(len(block[0]), np.int64)
        if self._space is not None:
            group = self._space.group_of[block[0], block[1]]
            order = np.argsort(group, kind="stable")
            group = group[order]
            block = tuple([index[place] for place in order] for index in block)  # type: ignore[assignment]
            if start is not None:
                start = start[0], [start[1][place] for place in order]
        problems, preconditioner, begin = self._problems(block, group)
        if start is not None:
            begin = self._started(start[0], (block[0], block[1], list(start[1])), group)
            # Where classes are nearly parted the loss bends far less than at the best constant.
            preconditioner = replace(preconditioner, curvature=problems.curvature(problems.scores(begin)))
        minimum = minimise(
            problems,
            preconditioner,
            begin,
            tolerance=tolerance,
            max_iterations=max_iterations,
            newton_products=newton_products,
        )
        self._write(block, group, minimum, problems)

    def _started(self, solution: Solution, block: Block, group: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return (problems * columns, dim + 1) coefficients of solved problems."""
        held, target, strength = block
        where = (strength, held, target)
        coef = solution.coef[where]
        intercept = solution.intercept[where] + coef @ self.working.shift
        coef = coef * self.working.scale
        if self._space is not None:
            coef = by_group(coef, group, self._space.into)
        both = np.concatenate([coef, intercept[:, :, None]], axis=2)
        if self.training.columns > 1:
            both = contrasts(self.training.columns).numpy().T @ both
        return as_tensor(both.reshape(-1, both.shape[2]), self.working.rows)

    def _problems(
        self, block: Block, group: npt.NDArray[np.int64]
    ) -> tuple[Problems, Preconditioner, torch.Tensor]:
        """Return the block's problems, their preconditioner, and the coefficients to start from."""
        held, target, strength = block
        rows, columns, space = self.working.rows, _columns(self.training), self._space
        total = self.total[held, target]
        ridge = 1 / (self.strengths[strength] * total)
        width = rows.shape[1] if space is None else space.rows.shape[2]
        penalty = as_tensor(np.repeat(ridge, columns), rows)[:, None].repeat(1, width)
        penalty[:, -1] = 0
        if self.standardised and space is None:
            penalty[:, :-1] *= self.variance[held, target].repeat_interleave(columns, dim=0)
        problems = Problems(
            rows=rows if space is None else space.rows,
            weights=as_tensor(self.weights.T[target] * ~self._held(held, target), rows)
            / as_tensor(total[:, None], rows),
            truth=torch.from_numpy(one_hot(self.training.y.T[target], self.training.n_classes)).to(
                rows.device
            ),
            penalty=penalty,
            sizes=() if space is None else tuple(np.bincount(group, minlength=len(space.rows)).tolist()),
        )
        start, curvature = problems.prior()
        return problems, self._preconditioner(block, group, as_tensor(ridge, rows), curvature), start

    def _preconditioner(
        self, block: Block, group: npt.NDArray[np.int64], ridge: torch.Tensor, curvature: torch.Tensor
    ) -> Preconditioner:
        if isinstance(self.coordinates, RowSpace):
            # Columns without a part are no part of the space.
            return Preconditioner(None, self.coordinates.eigenvalues[group][:, None], ridge, curvature)
        held, target, _ = block
        constant = self.constant[held, target]
        columns = _columns(self.training)
        return Preconditioner(
            eigenvectors=self.coordinates.eigenvectors,
            eigenvalues=self.coordinates.eigenvalues,
            ridge=ridge,
            curvature=curvature,
            free=~constant.repeat_interleave(columns, dim=0) if bool(constant.any()) else None,
            elsewhere=self.coordinates.elsewhere,
        )

    def _write(
        self, block: Block, group: npt.NDArray[np.int64], minimum: Minimum, problems: Problems
    ) -> None:
        """Write a block's solutions, in terms of the vectors as they were given."""
        held, target, strength = block
        columns = self.training.columns
        solved = minimum.coefficients.cpu().numpy().astype(np.float64)
        solved = solved.reshape(len(target), _columns(self.training), -1)
        if columns > 1:
            solved = contrasts(columns).numpy() @ solved
        coef = solved[:, :, :-1]
        if self._space is not None:
            coef = by_group(coef, group, self._space.out_of)
        coef = coef / self.working.scale
        where = (strength, held, target)
        self.solution.coef[where] = coef
        intercept = solved[:, :, -1] - coef @ self.working.shift
        # A softmax does not see a common shift of its intercepts; without one the solution is unique.
        self.solution.intercept[where] = intercept - (intercept.mean(1, keepdims=True) if columns > 1 else 0)
        self.solution.converged[where] = minimum.converged.cpu().numpy()
        self.solution.iterations[where] = minimum.iterations.cpu().numpy()
        if self.held.any():
            scores = problems.scores(minimum.coefficients)
            scores = scores.view(len(target), -1, scores.shape[1])
            answers = self.solution.held_out_scores
            for problem, rows in enumerate(self._held(held, target)):
                own = scores[problem][:, torch.from_numpy(rows).to(scores.device)]
                answers[strength[problem], rows, target[problem]] = (
                    problems.of_classes(own)[0].cpu().numpy().T
                )

    def _held(self, held: list[int], target: list[int]) -> npt.NDArray[np.bool_]:
        """Return (problems, n): the rows that each problem does not see."""
        return self.held[held, np.minimum(target, self.held.shape[1] - 1)]

    @property
    def _space(self) -> RowSpace | None:
        return self.coordinates if isinstance(self.coordinates, RowSpace) else None
