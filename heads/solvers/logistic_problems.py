"""Logistic problems that share their rows, and their curvature in the eigenbasis of these rows.

Nothing here or in `lbfgs` and `newton` knows of strengths, folds or targets: a problem is a group of
`columns` adjacent scores: one for a binary problem, else one less than there are classes. What all classes have in
common changes no probability and is zero at the minimum, so that scores live in the space beside it (`contrasts`): of
three classes a third of every product is saved. Scores are the first axis of every
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
# Rows whose probabilities are held at once.
_HELD_ROWS = 1 << 13
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
        (problems, classes, n) uint8, 1 for the true class; of a binary problem only the second class.
    penalty
        (problems * columns, dim + 1): factors of half the squared coefficients, the same for a problem's columns.
    sizes
        Adjacent problems of each group; empty where the rows are shared by all.
    """

    rows: Tensor
    weights: Tensor
    truth: Tensor
    penalty: Tensor
    sizes: tuple[int, ...] = ()

    @property
    def columns(self) -> int:
        """1 for a sigmoid, else one less than the classes of a softmax."""
        return max(1, self.truth.shape[1] - 1)

    @cached_property
    def _contrasts(self) -> Tensor | None:
        classes = self.truth.shape[1]
        return None if classes == 1 else contrasts(classes).to(self.weights)

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
        shares = [
            (self.weights[:, None, some] * self.truth[:, :, some]).sum(2) for some in _pieces(self.weights)
        ]
        share = torch.stack(shares).sum(0).clamp(1e-6, 1 - 1e-6)
        start, beside = torch.zeros_like(self.penalty), self._contrasts
        if beside is None:
            start[:, -1] = torch.logit(share).flatten()
            return start, (share * (1 - share))[:, :, None]
        start[:, -1] = (share.log() @ beside).flatten()
        curvature = torch.diag_embed(share) - share[:, :, None] * share[:, None, :]
        return start, beside.T @ curvature @ beside

    def expected(self, scores: Tensor) -> Tensor:
        """Return the probabilities that scores state, (problems, classes, n)."""
        of_classes = self.of_classes(scores)
        return torch.sigmoid(of_classes) if self._contrasts is None else torch.softmax(of_classes, dim=1)

    def of_classes(self, scores: Tensor) -> Tensor:
        """Return (problems, classes, n) of (problems * columns, n)."""
        shaped = scores.view(-1, self.columns, scores.shape[1])
        return shaped if self._contrasts is None else self._contrasts @ shaped

    def of_columns(self, of_classes: Tensor) -> Tensor:
        """Return (problems * columns, n) of (problems, classes, n)."""
        return (of_classes if self._contrasts is None else self._contrasts.T @ of_classes).flatten(0, 1)

    def curvature(self, scores: Tensor) -> Tensor:
        """Return the mean of the loss's second derivatives by a row's scores, (problems, columns, columns)."""
        parts, beside = [], self._contrasts
        for some in _pieces(scores):
            expected = self.expected(scores[:, some])
            weighted = expected * self.weights[:, None, some]
            if beside is None:
                parts.append((weighted * (1 - expected)).sum(2)[:, :, None])
            else:
                bends = torch.diag_embed(weighted.sum(2)) - weighted @ expected.mT
                parts.append(beside.T @ bends @ beside)
        return torch.stack(parts).sum(0)

    def mean_curvature(self, scores: Tensor) -> Tensor:
        """Return the mean of the loss's second derivatives by a row's score of each class, (problems,)."""
        total = torch.zeros_like(self.weights[:, 0])
        for some in _pieces(scores):
            expected = self.expected(scores[:, some])
            bends = torch.addcmul(expected, expected, expected, value=-1).sum(1)
            total += (bends * self.weights[:, some]).sum(1)
        return total / self.truth.shape[1]

    def residuals(self, scores: Tensor) -> Tensor:
        """Return the loss's derivative by score, (problems * columns, n)."""
        residuals = torch.empty_like(scores)
        for some in _pieces(scores):
            expected = self.expected(scores[:, some])
            expected -= self.truth[:, :, some]
            expected *= self.weights[:, None, some]
            residuals[:, some] = self.of_columns(expected)
        return residuals

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


def _pieces(scores: Tensor) -> list[slice]:
    """Return the rows, some at a time, so that what is made of their scores need not be held for all."""
    n = scores.shape[1]
    step = n if scores.is_cuda else _HELD_ROWS
    return [slice(start, start + step) for start in range(0, n, max(step, 1))]


def contrasts(classes: int) -> Tensor:
    """Return an orthonormal basis of what classes do not have in common, (classes, classes - 1) float64.

    Column k says how class k + 1 differs from the mean of those before it (Helmert).
    """
    after = torch.arange(1, classes, dtype=torch.float64)
    basis = torch.triu(torch.ones(classes, classes - 1, dtype=torch.float64))
    basis[1:] -= torch.diag(after)
    return basis / (after * (after + 1)).sqrt()


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
        bends, classes = self._classes
        if self.free is not None:
            gradient = gradient * self.free
        by_class = classes.mT @ gradient.view(*bends.shape, gradient.shape[1])
        ridge = self.ridge[:, None, None]
        bends = bends[:, :, None]
        inverse = 1 / (self.eigenvalues * bends + ridge)
        both = torch.empty_like(by_class)
        if self.eigenvectors is None:
            both[:, :, :-1] = by_class[:, :, :-1] * inverse
        else:
            rotated = by_class[:, :, :-1] @ self.eigenvectors
            dim, found = self.eigenvectors.shape
            if found == dim:
                both[:, :, :-1] = (rotated * inverse) @ self.eigenvectors.T
            else:
                elsewhere = 1 / (self.elsewhere * bends + ridge)
                both[:, :, :-1] = (rotated * (inverse - elsewhere)) @ self.eigenvectors.T
                both[:, :, :-1] += by_class[:, :, :-1] * elsewhere
        both[:, :, -1:] = by_class[:, :, -1:] / bends
        step = (classes @ both).view_as(gradient)
        return step if self.free is None else step * self.free

    @cached_property
    def _classes(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (problems, columns) and eigenvectors."""
        values, vectors = torch.linalg.eigh(self.curvature)
        return values.clamp_min(_LEAST_CURVATURE), vectors
