"""Logistic problems that share their rows, and their curvature in the eigenbasis of these rows.

Nothing here or in `lbfgs` and `newton` knows of strengths, folds or targets: a problem is a group of
`columns` adjacent scores (one for a binary problem, one per class otherwise). Scores are the first axis of every
array, rows or dimensions the last: there are few scores, and sums over a last axis that short, and products with the
transpose of the rows, take twice the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

# Rows whose scores are computed at once: of many rows at once MKL's product takes half as much time again.
_SCORED_ROWS = 1 << 10
# Smallest curvature to divide by: that of a nearly vanished loss would overflow.
_LEAST_CURVATURE = 1e-12


@dataclass(frozen=True)
class Problems:
    """Weighted logistic losses with a quadratic penalty.

    Parameters
    ----------
    rows
        (n, dim + 1), the last column ones; or (groups, n, dim + 1) where groups of problems have rows of their own.
    weights
        (problems, n), summing to 1 in each problem; 0 leaves a row out.
    truth
        (problems, columns, n), 1 for the true class.
    penalty
        (problems * columns, dim + 1): factors of half the squared coefficients.
    columns
        1 for a sigmoid, else the number of classes of a softmax.
    sizes
        Adjacent problems of each group; empty where the rows are shared by all.
    """

    rows: Tensor
    weights: Tensor
    truth: Tensor
    penalty: Tensor
    columns: int
    sizes: tuple[int, ...] = ()

    def take(self, kept: Tensor) -> Problems:
        """Return only the problems of a (problems,) mask."""
        return replace(
            self,
            weights=self.weights[kept],
            truth=self.truth[kept],
            penalty=self.penalty[self.per_column(kept)],
            sizes=tuple(int(part.sum()) for part in torch.split(kept, list(self.sizes)))
            if self.sizes
            else (),
        )

    def thinned(self, step: int) -> Problems:
        """Return the problems of every so many rows, with weights that sum to 1 again; rows are shared by all."""
        weights = self.weights[:, ::step]
        total = weights.sum(1, keepdim=True)
        return replace(
            self,
            rows=self.rows[::step],
            weights=weights / torch.where(total > 0, total, 1),
            truth=self.truth[:, :, ::step],
        )

    def scores(self, coefficients: Tensor) -> Tensor:
        """Return the (problems * columns, n) scores of (problems * columns, dim + 1) coefficients."""
        if not self.sizes:
            return _scores(coefficients, self.rows)
        parts = zip(torch.split(coefficients, self._lengths), self.rows, strict=True)
        return torch.cat([part @ rows.T for part, rows in parts])

    def gradient(self, residuals: Tensor, coefficients: Tensor) -> Tensor:
        """Return the objective's (problems * columns, dim + 1) gradient, given the loss's derivative by score."""
        if self.sizes:
            parts = zip(torch.split(residuals, self._lengths), self.rows, strict=True)
            product = torch.cat([part @ rows for part, rows in parts])
        else:
            product = residuals @ self.rows
        return torch.addcmul(product, self.penalty, coefficients)

    @property
    def _lengths(self) -> list[int]:
        return [size * self.columns for size in self.sizes]

    def prior(self) -> tuple[Tensor, Tensor]:
        """Return the coefficients of the best constant, and the loss's curvature there (as `curvature`)."""
        share = (self.weights[:, None] * self.truth).sum(2).clamp(1e-6, 1 - 1e-6)
        logits = torch.logit(share) if self.columns == 1 else share.log() - share.log().mean(1, keepdim=True)
        start = torch.zeros_like(self.penalty)
        start[:, -1] = logits.flatten()
        if self.columns == 1:
            return start, (share * (1 - share))[:, :, None]
        return start, torch.diag_embed(share) - share[:, :, None] * share[:, None, :]

    def expected(self, scores: Tensor) -> Tensor:
        """Return the probabilities that scores state, (problems, columns, n)."""
        shaped = scores.view(-1, self.columns, scores.shape[1])
        return torch.sigmoid(shaped) if self.columns == 1 else torch.softmax(shaped, dim=1)

    def curvature(self, scores: Tensor) -> Tensor:
        """Return the mean of the loss's second derivatives by a row's scores, (problems, columns, columns)."""
        expected = self.expected(scores)
        weighted = expected * self.weights[:, None]
        if self.columns == 1:
            return (weighted * (1 - expected)).sum(2)[:, :, None]
        return torch.diag_embed(weighted.sum(2)) - weighted @ expected.mT

    def mean_curvature(self, scores: Tensor) -> Tensor:
        """Return the mean of the diagonal of `curvature`, (problems,)."""
        expected = self.expected(scores)
        bends = torch.addcmul(expected, expected, expected, value=-1).sum(1)
        return (bends * self.weights).sum(1) / self.columns

    def residuals(self, scores: Tensor) -> Tensor:
        """Return the loss's derivative by score, (problems * columns, n)."""
        expected = self.expected(scores)
        expected -= self.truth
        expected *= self.weights[:, None]
        return expected.view_as(scores)

    def per_problem(self, of_columns: Tensor) -> Tensor:
        """Sum (problems * columns,) over each problem's columns."""
        return of_columns.view(-1, self.columns).sum(1)

    def per_column(self, of_problems: Tensor) -> Tensor:
        """Repeat (problems,) for each problem's columns."""
        return of_problems.repeat_interleave(self.columns)

    def each(self, of_problems: Tensor) -> Tensor:
        """Repeat (problems,) for each problem's columns, as a column (problems * columns, 1)."""
        return self.per_column(of_problems)[:, None]

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Return each problem's (problems,) product of two arrays of (problems * columns, n or dim + 1)."""
        return self.per_problem((left * right).sum(1))


def _scores(coefficients: Tensor, rows: Tensor) -> Tensor:
    """Return the (columns, n) scores of (n, dim + 1) rows."""
    if rows.is_cuda or len(rows) <= 2 * _SCORED_ROWS:
        return coefficients @ rows.T
    scores = coefficients.new_empty((len(coefficients), len(rows)))
    for start in range(0, len(rows), _SCORED_ROWS):
        some = slice(start, start + _SCORED_ROWS)
        scores[:, some] = coefficients @ rows[some].T
    return scores


@dataclass(frozen=True)
class Preconditioner:
    """The inverse curvature in the eigenbases of the rows' Gram matrix and of the classes.

    Parameters
    ----------
    eigenvectors
        (dim, k): all, those along which fewer rows than dimensions vary, or those of the largest eigenvalues; None
        where the coordinates are the eigenbasis.
    eigenvalues
        (k,) of the mean outer product of the rows, or (problems, 1, k).
    ridge
        (problems,) curvature of the penalty.
    curvature
        (problems, columns, columns) mean curvature of the loss by score.
    free
        (problems * columns, dim + 1) bool, False where a coefficient stays as it is; None if all may change.
    elsewhere
        Eigenvalue along all other directions.
    """

    eigenvectors: Tensor | None
    eigenvalues: Tensor
    ridge: Tensor
    curvature: Tensor
    free: Tensor | None = None
    elsewhere: Tensor | float = 0.0

    def take(self, kept: Tensor) -> Preconditioner:
        """Return only the problems of a mask."""
        of_columns = kept.repeat_interleave(self.curvature.shape[1])
        free = None if self.free is None else self.free[of_columns]
        eigenvalues = self.eigenvalues if self.eigenvalues.ndim == 1 else self.eigenvalues[kept]
        return replace(
            self, eigenvalues=eigenvalues, ridge=self.ridge[kept], curvature=self.curvature[kept], free=free
        )

    def __call__(self, gradient: Tensor) -> Tensor:
        """Multiply a (problems * columns, dim + 1) gradient by the inverse curvature."""
        bends, classes, seen = self._classes
        if self.free is not None:
            gradient = gradient * self.free
        by_class = classes.mT @ gradient.view(*bends.shape, gradient.shape[1])
        ridge = self.ridge[:, None, None]
        bends, seen = bends[:, :, None], seen[:, :, None]
        inverse = seen / (self.eigenvalues * bends + ridge)
        both = torch.empty_like(by_class)
        if self.eigenvectors is None:
            both[:, :, :-1] = by_class[:, :, :-1] * inverse
        else:
            rotated = by_class[:, :, :-1] @ self.eigenvectors
            dim, found = self.eigenvectors.shape
            if found == dim:
                both[:, :, :-1] = (rotated * inverse) @ self.eigenvectors.T
            else:
                elsewhere = seen / (self.elsewhere * bends + ridge)
                both[:, :, :-1] = (rotated * (inverse - elsewhere)) @ self.eigenvectors.T
                both[:, :, :-1] += by_class[:, :, :-1] * elsewhere
        both[:, :, -1:] = by_class[:, :, -1:] * seen / bends
        step = (classes @ both).view_as(gradient)
        return step if self.free is None else step * self.free

    @cached_property
    def _classes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues (problems, columns), eigenvectors, and a mask that is 0 for the null direction of a softmax.

        A common shift of all classes changes no probability: its eigenvalue is zero, and a gradient along it is
        rounding.
        """
        values, vectors = torch.linalg.eigh(self.curvature)
        seen = torch.ones_like(values)
        if values.shape[1] > 1:
            seen[:, 0] = 0
        return values.clamp_min(_LEAST_CURVATURE), vectors, seen
