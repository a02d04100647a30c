"""Batched L-BFGS for convex problems that share their rows.

Kept apart from `heads.solver` because it knows nothing of strengths, folds or targets: a problem is a group
of `columns` adjacent columns (one for a binary problem, one per class otherwise).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_MEMORY = 10
_TRIALS = 8
# Share of the first slope that may be left after a line search; tight, as a trial costs no matrix product.
_SLOPE_LEFT = 0.3
# Once a problem this near its minimum has not halved its distance for this long, precision is exhausted.
_STALLED_AFTER = 15
_STALLED_BELOW = {torch.float32: 1e-6, torch.float64: 1e-13}


@dataclass(frozen=True)
class Problems:
    """Weighted logistic losses with a quadratic penalty.

    Parameters
    ----------
    rows
        (n, dim + 1), the last column ones.
    weights
        (n, problems), summing to 1 in each problem; 0 leaves a row out.
    truth
        (n, problems, columns), 1 for the true class.
    penalty
        (dim + 1, problems * columns): factors of half the squared coefficients.
    columns
        1 for a sigmoid, else the number of classes of a softmax.
    """

    rows: Tensor
    weights: Tensor
    truth: Tensor
    penalty: Tensor
    columns: int

    def take(self, kept: Tensor) -> Problems:
        """Return only the problems of a (problems,) mask."""
        return replace(
            self,
            weights=self.weights[:, kept],
            truth=self.truth[:, kept],
            penalty=self.penalty[:, kept.repeat_interleave(self.columns)],
        )

    def prior(self) -> tuple[Tensor, Tensor]:
        """Return the coefficients of the best constant, and the loss's curvature there, by column."""
        share = torch.einsum("np,npk->pk", self.weights, self.truth).clamp(1e-6, 1 - 1e-6)
        logits = torch.logit(share) if self.columns == 1 else share.log() - share.log().mean(1, keepdim=True)
        start = torch.zeros_like(self.penalty)
        start[-1] = logits.flatten()
        return start, (share * (1 - share)).flatten()

    def residuals(self, scores: Tensor) -> Tensor:
        """Return the loss's derivative by score, (n, problems * columns)."""
        shaped = scores.view(len(scores), -1, self.columns)
        expected = torch.sigmoid(shaped) if self.columns == 1 else torch.softmax(shaped, dim=2)
        expected -= self.truth
        expected *= self.weights[:, :, None]
        return expected.view_as(scores)

    def per_problem(self, columns: Tensor) -> Tensor:
        """Sum (..., problems * columns) over each problem's columns."""
        return columns.view(*columns.shape[:-1], -1, self.columns).sum(-1)

    def per_column(self, problems: Tensor) -> Tensor:
        """Repeat (..., problems) for each problem's columns."""
        return problems.repeat_interleave(self.columns, dim=-1)


@dataclass(frozen=True)
class Preconditioner:
    """The inverse curvature in the eigenbasis of the rows' Gram matrix.

    Parameters
    ----------
    eigenvectors
        (dim, dim).
    inverse
        (dim, columns) inverse curvature along each eigenvector.
    intercept
        (columns,) inverse curvature of the intercept.
    """

    eigenvectors: Tensor
    inverse: Tensor
    intercept: Tensor

    def take(self, kept: Tensor) -> Preconditioner:
        """Return only some columns."""
        return replace(self, inverse=self.inverse[:, kept], intercept=self.intercept[kept])

    def __call__(self, gradient: Tensor) -> Tensor:
        """Multiply a (dim + 1, columns) gradient by the inverse curvature."""
        rotated = self.eigenvectors.T @ gradient[:-1]
        rotated *= self.inverse
        return torch.cat([self.eigenvectors @ rotated, (gradient[-1] * self.intercept)[None]])


@dataclass(frozen=True)
class Minimum:
    """Where the descent ended: (dim + 1, columns) coefficients, and by problem whether and how fast."""

    coefficients: Tensor
    converged: Tensor
    iterations: Tensor


def minimise(
    problems: Problems,
    preconditioner: Preconditioner,
    start: Tensor,
    *,
    tolerance: float,
    max_iterations: int,
) -> Minimum:
    """Minimise every problem from `start` until its estimated distance to the minimum is below `tolerance`.

    The distance is half the product of gradient and quasi-Newton step, as in Newton's decrement.
    """
    answer = Minimum(
        start.clone(),
        torch.zeros(problems.weights.shape[1], dtype=torch.bool, device=start.device),
        torch.full((problems.weights.shape[1],), max_iterations, device=start.device),
    )
    alive = torch.arange(problems.weights.shape[1], device=start.device)
    coefficients = start
    scores = problems.rows @ coefficients
    gradient = _gradient(problems, problems.residuals(scores), coefficients)
    history = _History(problems, preconditioner)
    best = torch.full_like(problems.weights[0], torch.inf)
    stalled = torch.zeros_like(best)
    for iteration in range(max_iterations):
        direction = -history.multiply(gradient)
        slope = problems.per_problem((gradient * direction).sum(0))
        distance = -slope / 2
        stalled = torch.where(distance < best / 2, 0, stalled + 1)
        best = torch.minimum(best, distance)
        done = (distance < tolerance) | (
            (stalled > _STALLED_AFTER) & (distance < _STALLED_BELOW[start.dtype])
        )
        if bool(done.any()):
            finished = alive[done]
            of_columns = problems.per_column(done)
            answer.coefficients[:, _columns(finished, problems.columns)] = coefficients[:, of_columns]
            answer.converged[finished] = True
            answer.iterations[finished] = iteration
            if bool(done.all()):
                return answer
            kept, kept_columns = ~done, ~of_columns
            alive, best, stalled, slope = alive[kept], best[kept], stalled[kept], slope[kept]
            problems = problems.take(kept)
            history = history.take(problems, kept, kept_columns)
            coefficients, gradient = coefficients[:, kept_columns], gradient[:, kept_columns]
            direction, scores = direction[:, kept_columns], scores[:, kept_columns]
        along = problems.rows @ direction
        length, residuals = _line_search(
            problems, coefficients, direction, scores=scores, along=along, slope=slope
        )
        step = direction * problems.per_column(length)
        scores += along.mul_(problems.per_column(length))
        coefficients = coefficients + step
        changed = _gradient(problems, residuals, coefficients)
        history.remember(step, changed - gradient)
        gradient = changed
    answer.coefficients[:, _columns(alive, problems.columns)] = coefficients
    return answer


def _columns(problems: Tensor, columns: int) -> Tensor:
    return (problems[:, None] * columns + torch.arange(columns, device=problems.device)).flatten()


def _gradient(problems: Problems, residuals: Tensor, coefficients: Tensor) -> Tensor:
    return problems.rows.T @ residuals + problems.penalty * coefficients


def _line_search(
    problems: Problems,
    coefficients: Tensor,
    direction: Tensor,
    *,
    scores: Tensor,
    along: Tensor,
    slope: Tensor,
) -> tuple[Tensor, Tensor]:
    """Find where the slope along each direction has nearly vanished; also the residuals there.

    The objective is convex, so its slope rises along the way and a sign change brackets the minimum. Only
    element-wise work: the products with the rows are known.
    """
    bend = problems.per_problem((problems.penalty * direction.square()).sum(0))
    tilt = problems.per_problem((problems.penalty * direction * coefficients).sum(0))
    length, low, high = torch.ones_like(slope), torch.zeros_like(slope), torch.full_like(slope, torch.inf)
    low_slope, high_slope = slope.clone(), torch.full_like(slope, torch.inf)
    for trial in range(_TRIALS):
        residuals = problems.residuals(torch.addcmul(scores, along, problems.per_column(length)))
        found = problems.per_problem(torch.einsum("nc,nc->c", residuals, along)) + tilt + length * bend
        rough = found.abs() > _SLOPE_LEFT * slope.abs()
        if trial == _TRIALS - 1 or not bool(rough.any()):
            break
        below = found < 0
        low, low_slope = torch.where(below, length, low), torch.where(below, found, low_slope)
        high, high_slope = torch.where(below, high, length), torch.where(below, high_slope, found)
        # Between the ends by the secant, kept off them; beyond the low end by the secant from the start.
        inside = low + (high - low) * (-low_slope / (high_slope - low_slope)).clamp(0.1, 0.9)
        beyond = length * (slope / (slope - found)).clamp(1.5, 4.0)
        proposed = torch.where(torch.isinf(high), beyond, inside)
        length = torch.where(rough, proposed, length)
    return length, residuals


class _History:
    """The last steps and gradient changes, and the inverse curvature they imply."""

    def __init__(self, problems: Problems, preconditioner: Preconditioner) -> None:
        self._problems = problems
        self._preconditioner = preconditioner
        self._steps: list[Tensor] = []
        self._changes: list[Tensor] = []
        self._inverse_products: list[Tensor] = []
        self._scaling: Tensor | None = None

    def take(self, problems: Problems, kept: Tensor, kept_columns: Tensor) -> _History:
        fewer = _History(problems, self._preconditioner.take(kept_columns))
        fewer._steps = [step[:, kept_columns] for step in self._steps]
        fewer._changes = [change[:, kept_columns] for change in self._changes]
        fewer._inverse_products = [product[kept] for product in self._inverse_products]
        fewer._scaling = None if self._scaling is None else self._scaling[kept]
        return fewer

    def remember(self, step: Tensor, change: Tensor) -> None:
        product = self._dot(step, change)
        curved = self._dot(change, self._preconditioner(change))
        # Rounding can make a tiny step look concave; such a pair is left out (a zero has no effect).
        usable = (product > 0) & (curved > 0)
        self._inverse_products.append(torch.where(usable, 1 / product, 0))
        scaling = torch.where(usable, product / curved, 1 if self._scaling is None else self._scaling)
        self._scaling = scaling
        self._steps.append(step)
        self._changes.append(change)
        for remembered in (self._steps, self._changes, self._inverse_products):
            del remembered[:-_MEMORY]

    def multiply(self, gradient: Tensor) -> Tensor:
        """Apply the inverse curvature by the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4)."""
        pairs = list(zip(self._steps, self._changes, self._inverse_products, strict=True))
        remainder = gradient.clone()
        shares = []
        for step, change, inverse in reversed(pairs):
            share = inverse * self._dot(step, remainder)
            remainder -= change * self._problems.per_column(share)
            shares.append(share)
        product = self._preconditioner(remainder)
        if self._scaling is not None:
            product *= self._problems.per_column(self._scaling)
        for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
            product += step * self._problems.per_column(share - inverse * self._dot(change, product))
        return product

    def _dot(self, left: Tensor, right: Tensor) -> Tensor:
        return self._problems.per_problem((left * right).sum(0))
