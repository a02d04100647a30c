"""Logistic problems that share their rows, and their curvature in the eigenbasis of these rows.

Nothing here or in `heads.descent` and `heads.newton` knows of strengths, folds or targets: a problem is a group of
`columns` adjacent columns (one for a binary problem, one per class otherwise).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

# A loss that has all but vanished still bends: dividing by less would overflow.
_LEAST_CURVATURE = 1e-12


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
        """Return the coefficients of the best constant, and the loss's curvature there (as `curvature`)."""
        share = torch.einsum("np,npk->pk", self.weights, self.truth).clamp(1e-6, 1 - 1e-6)
        logits = torch.logit(share) if self.columns == 1 else share.log() - share.log().mean(1, keepdim=True)
        start = torch.zeros_like(self.penalty)
        start[-1] = logits.flatten()
        if self.columns == 1:
            return start, (share * (1 - share))[:, :, None]
        return start, torch.diag_embed(share) - share[:, :, None] * share[:, None, :]

    def expected(self, scores: Tensor) -> Tensor:
        """Return the probabilities that scores state, (n, problems, columns)."""
        shaped = scores.view(len(scores), -1, self.columns)
        return torch.sigmoid(shaped) if self.columns == 1 else torch.softmax(shaped, dim=2)

    def curvature(self, scores: Tensor) -> Tensor:
        """Return the mean of the loss's second derivatives by a row's scores, (problems, columns, columns)."""
        expected = self.expected(scores)
        weighted = expected * self.weights[:, :, None]
        if self.columns == 1:
            return (weighted * (1 - expected)).sum(0)[:, :, None]
        return torch.diag_embed(weighted.sum(0)) - torch.einsum("npk,npj->pkj", weighted, expected)

    def residuals(self, scores: Tensor) -> Tensor:
        """Return the loss's derivative by score, (n, problems * columns)."""
        expected = self.expected(scores)
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
    """The inverse curvature in the eigenbases of the rows' Gram matrix and of the classes.

    Parameters
    ----------
    eigenvectors
        (dim, k): all, or those along which fewer rows than dimensions vary.
    eigenvalues
        (k,) of the mean outer product of the rows; 0 along all other directions.
    ridge
        (problems,) curvature of the penalty.
    curvature
        (problems, columns, columns) mean curvature of the loss by score.
    """

    eigenvectors: Tensor
    eigenvalues: Tensor
    ridge: Tensor
    curvature: Tensor

    def take(self, kept: Tensor) -> Preconditioner:
        """Return only the problems of a mask."""
        return replace(self, ridge=self.ridge[kept], curvature=self.curvature[kept])

    def __call__(self, gradient: Tensor) -> Tensor:
        """Multiply a (dim + 1, problems * columns) gradient by the inverse curvature."""
        bends, classes, seen = self._classes
        dim, found = self.eigenvectors.shape
        by_class = torch.einsum("dpk,pkj->dpj", gradient.reshape(dim + 1, *bends.shape), classes)
        ridge = self.ridge[:, None]
        inverse = seen / (self.eigenvalues[:, None, None] * bends + ridge)
        rotated = (self.eigenvectors.T @ by_class[:-1].flatten(1)).view(found, *bends.shape)
        if found == dim:
            turned = self.eigenvectors @ (rotated * inverse).flatten(1)
        else:
            elsewhere = seen / ridge
            turned = self.eigenvectors @ (rotated * (inverse - elsewhere)).flatten(1)
            turned += (by_class[:-1] * elsewhere).flatten(1)
        both = torch.cat([turned, (by_class[-1] * seen / bends).view(1, -1)]).view_as(by_class)
        return torch.einsum("dpj,pkj->dpk", both, classes).flatten(1)

    @cached_property
    def _classes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues (problems, columns), eigenvectors, and 1 but for the direction that a softmax does not see.

        That is all classes alike: the smallest of its eigenvalues is zero, and what a gradient has there is rounding.
        """
        values, vectors = torch.linalg.eigh(self.curvature)
        seen = torch.ones_like(values)
        if values.shape[1] > 1:
            seen[:, 0] = 0
        return values.clamp_min(_LEAST_CURVATURE), vectors, seen
