"""The Newton step of logistic problems, by conjugate gradients, all problems side by side.

A quasi-Newton step can be short far from the minimum: where classes are separable and regularisation is weak, the
curvature of the loss is smaller by orders of magnitude than the model of past steps says. The Newton decrement, half
the product of gradient and *Newton* step (Boyd & Vandenberghe 2004, 9.5), measures the distance there too, and the
step makes progress.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from heads.solvers.logistic_problems import Preconditioner, Problems

# Rows, spread over all, by which the loss's second derivative is known well enough for such a step.
_BENT_ROWS = 1 << 15
# Share of the first residual's square that may be left: the step is then a third from the exact Newton step. A
# hundredth took a tenth more products in all, and found the same.
_RESIDUAL_LEFT = 0.1


def newton_step(
    problems: Problems, preconditioner: Preconditioner, scores: Tensor, gradient: Tensor, *, products: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the Newton step (inexact, by conjugate gradients).

    Parameters
    ----------
    problems
        The problems.
    preconditioner
        Of these problems; its curvature is replaced by the present one.
    scores
        (problems * columns, n) at the present coefficients.
    gradient
        (problems * columns, dim + 1) there.
    products
        Products with the second derivative at most.

    Returns
    -------
    tuple
        (problems * columns, dim + 1) step; (problems,) half its product with the negative gradient: the distance of
        the objective to its minimum, to second order; (problems,) whether the products sufficed (if not, the step
        still descends, and the distance is underestimated); and (problems,) products taken.
    """
    present = replace(preconditioner, curvature=problems.curvature(scores))
    bend = _bend(problems, scores)
    step = torch.zeros_like(gradient)
    residual = -gradient
    direction = present(residual)
    square = problems.dot(residual, direction)
    enough = _RESIDUAL_LEFT * square
    taken = torch.zeros_like(square)
    for _ in range(products):
        bent = bend(direction)
        along = problems.dot(direction, bent)
        active = (square > enough) & (along > 0)
        if not bool(active.any()):
            break
        taken += active
        length = problems.each(torch.where(active, square / along, 0))
        step += direction * length
        residual -= bent * length
        turned = present(residual)
        left = problems.dot(residual, turned)
        direction = turned + direction * problems.each(torch.where(active, left / square, 0))
        square = torch.where(active, left, square)
    return step, -problems.dot(step, gradient) / 2, square <= enough, taken


def _bend(problems: Problems, scores: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function that multiplies (problems * columns, dim + 1) by the objective's second derivative.

    Of many rows it is that of some, spread over all: a step that may be a third from the exact one needs no more.
    """
    spread = 1 if problems.sizes else scores.shape[1] // _BENT_ROWS
    if spread > 1:
        problems, scores = problems.thinned(spread), scores[:, ::spread]
    expected = problems.expected(scores)
    weighted = expected * problems.weights[:, None]

    def bend(direction: Tensor) -> Tensor:
        along = problems.of_classes(problems.scores(direction))
        bent = along * weighted
        if len(expected[0]) == 1:
            bent -= bent * expected
        else:
            bent -= weighted * (expected * along).sum(1, keepdim=True)
        return problems.gradient(problems.of_columns(bent), direction)

    return bend
