"""The Newton step of logistic problems, by conjugate gradients, all problems side by side.

A quasi-Newton step can be short far from the minimum: where classes can be parted and regularisation is weak, the
loss bends by orders of magnitude less than the model made of past steps says. Half the product of gradient and
*Newton* step tells the distance there too (the Newton decrement; Boyd & Vandenberghe 2004, 9.5), and the step leads on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from heads.problems import Preconditioner, Problems

# Share of the first residual's square that may be left: the step is then some tenths from Newton's.
_RESIDUAL_LEFT = 0.01


def newton_step(
    problems: Problems, preconditioner: Preconditioner, scores: Tensor, gradient: Tensor, *, products: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solve for the step that the loss's own curvature calls for.

    Parameters
    ----------
    problems
        The problems.
    preconditioner
        Of these problems; its curvature is replaced by the present one.
    scores
        (n, problems * columns) at the present coefficients.
    gradient
        (dim + 1, problems * columns) there.
    products
        Products with the second derivative at most.

    Returns
    -------
    tuple
        (dim + 1, problems * columns) step; (problems,) half its product with the falling gradient: how far above
        its minimum the objective stands, to second order; (problems,) whether the products sufficed (if not,
        the step still leads down, and the distance is larger than said); and (problems,) products taken.
    """
    present = replace(preconditioner, curvature=problems.curvature(scores))
    bend = _bend(problems, scores)
    step = torch.zeros_like(gradient)
    residual = -gradient
    direction = present(residual)
    square = _dot(problems, residual, direction)
    enough = _RESIDUAL_LEFT * square
    taken = torch.zeros_like(square)
    for _ in range(products):
        bent = bend(direction)
        along = _dot(problems, direction, bent)
        active = (square > enough) & (along > 0)
        if not bool(active.any()):
            break
        taken += active
        length = problems.per_column(torch.where(active, square / along, 0))
        step += direction * length
        residual -= bent * length
        turned = present(residual)
        left = _dot(problems, residual, turned)
        direction = turned + direction * problems.per_column(torch.where(active, left / square, 0))
        square = torch.where(active, left, square)
    return step, -_dot(problems, step, gradient) / 2, square <= enough, taken


def _bend(problems: Problems, scores: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function that multiplies (dim + 1, columns) by the objective's second derivative."""
    expected = problems.expected(scores)
    weights = problems.weights[:, :, None]

    def bend(direction: Tensor) -> Tensor:
        along = (problems.rows @ direction).view_as(expected)
        if problems.columns == 1:
            bent = weights * expected * (1 - expected) * along
        else:
            bent = weights * expected * (along - (expected * along).sum(2, keepdim=True))
        return problems.rows.T @ bent.view_as(scores) + problems.penalty * direction

    return bend


def _dot(problems: Problems, left: Tensor, right: Tensor) -> Tensor:
    return problems.per_problem((left * right).sum(0))
