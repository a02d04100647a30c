"""Batched L-BFGS for convex problems that share their rows; convergence is decided by the Newton decrement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.solvers.logistic_problems import Preconditioner, Problems
from heads.solvers.newton import newton_step

_MEMORY = 10
_TRIALS = 8
# Share of the first slope that may be left after a line search; tight, as a trial costs no matrix product.
_SLOPE_LEFT = 0.3
# Steps that do not halve the distance after which a problem has stalled.
_STALLED_AFTER = 15
_NEWTON_STALLED_AFTER = 3
# A problem that stalls this near its minimum (as `minimise` measures) has exhausted its precision.
_STALLED_BELOW = {torch.float32: 1e-6, torch.float64: 1e-13}
_NEWTON_STEPS = 40
_NEWTON_PRODUCTS = 200


@dataclass(frozen=True)
class Minimum:
    """(problems * columns, dim + 1) coefficients; by problem, whether it converged and after how many iterations."""

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
    newton_products: int,
) -> Minimum:
    """Minimise every problem from `start` until its distance to the minimum is below `tolerance`.

    The distance is that of the objective to its minimum, divided by the loss's mean curvature: half the mean
    square of the error of the scores. The distance of the objective alone says nothing where classes are
    separable: there the loss nearly vanishes long before the coefficients are found.

    Quasi-Newton steps lead near the minimum. The Newton decrement then decides convergence, because a quasi-Newton
    model can be wrong by orders of magnitude. A problem that has not converged continues with Newton steps, and ends
    unconverged once these have taken `newton_products` products with the rows.
    """
    count = len(problems.weights)
    answer = Minimum(
        start.clone(),
        torch.zeros(count, dtype=torch.bool, device=start.device),
        torch.full((count,), max_iterations, device=start.device),
    )
    state = _State.create(problems, preconditioner, start)
    for iteration in range(max_iterations):
        direction = state.direction(tolerance, newton_products)
        finished, converged = state.finished(tolerance, newton_products)
        if bool(finished.any()):
            of_columns = state.problems.per_column(finished)
            places = state.members[finished]
            answer.coefficients[_columns(places, problems.columns)] = state.coefficients[of_columns]
            answer.converged[places] = converged[finished]
            answer.iterations[places] = iteration
            if bool(finished.all()):
                return answer
            direction = direction[~of_columns]
            state = state.take(~finished)
        state.step(direction)
    answer.coefficients[_columns(state.members, problems.columns)] = state.coefficients
    return answer


@dataclass(kw_only=True)
class _State:
    """State of the problems that are not finished."""

    problems: Problems
    history: _History
    members: Tensor  # (problems,) index of each problem
    coefficients: Tensor
    scores: Tensor
    gradient: Tensor
    distance: Tensor  # (problems,) of the objective to its minimum, by the last direction
    curvature: Tensor  # (problems,)
    best: Tensor
    stalled: Tensor
    newton: Tensor  # (problems,) Newton steps so far
    spent: Tensor  # (problems,) products that they took
    exact: Tensor  # (problems,) bool: whether the distance is the Newton decrement's

    @classmethod
    def create(cls, problems: Problems, preconditioner: Preconditioner, start: Tensor) -> _State:
        scores = problems.scores(start)
        none = torch.zeros_like(problems.weights[:, 0])
        return cls(
            problems=problems,
            history=_History(problems, preconditioner),
            members=torch.arange(len(none), device=start.device),
            coefficients=start,
            scores=scores,
            gradient=problems.gradient(problems.residuals(scores), start),
            distance=none + torch.inf,
            curvature=none,
            best=none + torch.inf,
            stalled=none,
            newton=none.clone(),
            spent=none.clone(),  # written to in place
            exact=none > 0,
        )

    def direction(self, tolerance: float, newton_products: int) -> Tensor:
        """Return (problems * columns, dim + 1) steps: a Newton step once a problem has come near its minimum."""
        problems = self.problems
        direction = -self.history.multiply(self.gradient)
        self.distance = -problems.dot(self.gradient, direction) / 2
        self.curvature = problems.mean_curvature(self.scores)
        near = (self.distance < tolerance * self.curvature) | (self.stalled > _STALLED_AFTER)
        asked = near | (self.newton > 0)
        self.exact = torch.zeros_like(asked)
        if bool(asked.any()):
            columns = problems.per_column(asked)
            left = newton_products - int(self.spent[asked].min())
            direction[columns], self.distance[asked], self.exact[asked], used = newton_step(
                problems.take(asked),
                self.history.preconditioner.take(asked),
                self.scores[columns],
                self.gradient[columns],
                products=max(1, min(left, _NEWTON_PRODUCTS)),
            )
            self.spent[asked] += used
            # A quasi-Newton model's distance does not compare with the Newton decrement's.
            self.best = torch.where(asked & (self.newton == 0), torch.inf, self.best)
            self.newton = self.newton + asked
        self.stalled = torch.where(self.distance < self.best / 2, 0, self.stalled + 1)
        self.best = torch.minimum(self.best, self.distance)
        return direction

    def finished(self, tolerance: float, newton_products: int) -> tuple[Tensor, Tensor]:
        """Return which problems end here, and which of them are solved."""
        solved = self.exact & (self.distance < tolerance * self.curvature)
        exhausted = (self.newton > 0) & (self.stalled > _NEWTON_STALLED_AFTER)
        solved |= exhausted & (self.distance < _STALLED_BELOW[self.scores.dtype] * self.curvature)
        # Rounding can spoil the last digits of a step; a direction that is not finite must not be followed.
        lost = ~torch.isfinite(self.distance)
        given_up = (self.newton > _NEWTON_STEPS) | (self.spent >= newton_products)
        return solved | exhausted | lost | given_up, solved

    def take(self, kept: Tensor) -> _State:
        """Return only some problems."""
        problems, columns = self.problems.take(kept), self.problems.per_column(kept)
        return _State(
            problems=problems,
            history=self.history.take(problems, kept, columns),
            members=self.members[kept],
            coefficients=self.coefficients[columns],
            scores=self.scores[columns],
            gradient=self.gradient[columns],
            distance=self.distance[kept],
            curvature=self.curvature[kept],
            best=self.best[kept],
            stalled=self.stalled[kept],
            newton=self.newton[kept],
            spent=self.spent[kept],
            exact=self.exact[kept],
        )

    def step(self, direction: Tensor) -> None:
        """Move along the direction to where its slope has nearly vanished."""
        problems = self.problems
        slope = problems.dot(self.gradient, direction)
        along = problems.scores(direction)
        length, residuals = _line_search(
            problems, self.coefficients, direction, scores=self.scores, along=along, slope=slope
        )
        step = direction * problems.each(length)
        self.scores.addcmul_(along, problems.each(length))
        self.coefficients = self.coefficients + step
        changed = problems.gradient(residuals, self.coefficients)
        self.history.remember(step, changed - self.gradient)
        self.gradient = changed


def _columns(problems: Tensor, columns: int) -> Tensor:
    return (problems[:, None] * columns + torch.arange(columns, device=problems.device)).flatten()


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

    The objective is convex, so its slope increases along the direction and a sign change brackets the minimum. All
    work is element-wise: the products with the rows are known.
    """
    bend = problems.dot(problems.penalty, direction.square())
    tilt = problems.dot(problems.penalty * direction, coefficients)
    length, low, high = torch.ones_like(slope), torch.zeros_like(slope), torch.full_like(slope, torch.inf)
    low_slope, high_slope = slope.clone(), torch.full_like(slope, torch.inf)
    for trial in range(_TRIALS):
        residuals = problems.residuals(torch.addcmul(scores, along, problems.each(length)))
        found = problems.dot(residuals, along) + tilt + length * bend
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
        self.preconditioner = preconditioner
        self._steps: list[Tensor] = []
        self._changes: list[Tensor] = []
        self._inverse_products: list[Tensor] = []
        self._scaling: Tensor | None = None

    def take(self, problems: Problems, kept: Tensor, kept_columns: Tensor) -> _History:
        fewer = _History(problems, self.preconditioner.take(kept))
        fewer._steps = [step[kept_columns] for step in self._steps]
        fewer._changes = [change[kept_columns] for change in self._changes]
        fewer._inverse_products = [product[kept] for product in self._inverse_products]
        fewer._scaling = None if self._scaling is None else self._scaling[kept]
        return fewer

    def remember(self, step: Tensor, change: Tensor) -> None:
        product = self._problems.dot(step, change)
        curved = self._problems.dot(change, self.preconditioner(change))
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
            share = inverse * self._problems.dot(step, remainder)
            remainder -= change * self._problems.each(share)
            shares.append(share)
        product = self.preconditioner(remainder)
        if self._scaling is not None:
            product *= self._problems.each(self._scaling)
        for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
            product += step * self._problems.each(share - inverse * self._problems.dot(change, product))
        return product
