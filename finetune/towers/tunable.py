"""The encoder's tower with a classification head, cut in two: frozen blocks below, and what is trained above."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from embedstore.errors import UsageError


class ClassificationHead(nn.Module):
    """ReLU layers on standardised vectors, as published for MURA: 1152-512-128-1 (arXiv 2511.05600).

    The standardisation is fixed: that of the base's vectors of the training images. Work A does not state one; without
    it one learning rate would mean something else for every encoder.

    Parameters
    ----------
    dim
        Length of a vector.
    widths
        Of the hidden layers.
    outputs
        Numbers that are said of an image.
    dropout
        Share of each hidden layer's outputs that is dropped in training.
    """

    mean: torch.Tensor
    factor: torch.Tensor

    def __init__(self, dim: int, widths: Sequence[int], outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("factor", torch.ones(dim))
        sizes = [dim, *widths]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))

    @property
    def linear_layers(self) -> list[nn.Linear]:
        """The linear layers, from the vector to the outputs."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def standardise_by(self, vectors: torch.Tensor) -> None:
        """Take mean and spread of (n, dim) vectors; a number that never varies keeps its scale."""
        spread = vectors.double().std(dim=0, correction=0)
        self.mean.copy_(vectors.double().mean(dim=0))
        self.factor.copy_(torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), torch.ones_like(spread)))

    def in_standardised_terms(self, vectors: torch.Tensor) -> None:
        """Say the same of vectors that are standardised by (n, dim) others, where they were taken as they are.

        Its first layer is written anew, so that a learning rate means what it does for any other head.
        """
        first = self.linear_layers[0]
        self.standardise_by(vectors)
        with torch.no_grad():
            first.bias.add_(first.weight @ self.mean)
            first.weight.div_(self.factor)

    @property
    def takes_vectors_as_they_are(self) -> bool:
        """Whether nothing is standardised."""
        return bool((self.mean == 0).all() and (self.factor == 1).all())

    def start_at(self, prevalence: torch.Tensor) -> None:
        """Let an untrained head say (outputs,) log odds, whatever the vector."""
        last = self.linear_layers[-1]
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(prevalence)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (n, outputs) logits of (n, dim) vectors."""
        logits: torch.Tensor = self.layers((vectors.float() - self.mean) * self.factor)
        return logits


class TunableTower(nn.Module):
    """A SigLIP image tower, its pooling and a classification head.

    Parameters
    ----------
    tower
        transformers' ``SiglipVisionModel``, float32.
    pooling
        ``map`` or ``mean``.
    head
        The classification head.
    frozen_blocks
        Blocks at the bottom that are not trained, nor anything below them; 0 for none, and then the embeddings may be.
    recompute
        Whether activations of the blocks above are computed again in the backward pass.
    """

    def __init__(
        self,
        tower: nn.Module,
        pooling: str,
        head: ClassificationHead,
        *,
        frozen_blocks: int,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.pooling = pooling
        self.head = head
        self.frozen_blocks = frozen_blocks
        self.recompute = recompute

    def below(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the residual stream (n, tokens, dim) before the first trained block.

        No gradient is kept, unless the embeddings are trained.
        """
        embeddings: nn.Module = self.tower.embeddings  # type: ignore[assignment]
        learns = any(weight.requires_grad for weight in embeddings.parameters())
        with nullcontext() if learns else torch.no_grad():
            residual: torch.Tensor = embeddings(pictures)
            for block in self._blocks[: self.frozen_blocks]:
                residual = block(residual, None)
        return residual

    def above(self, residual: torch.Tensor) -> torch.Tensor:
        """Return the pooled vector (n, dim), float32, of what `below` returned."""
        for block in self._blocks[self.frozen_blocks :]:
            if self.recompute and torch.is_grad_enabled():
                # The re-entrant way leaves a block behind frozen ones without gradients, with a warning only.
                residual = checkpoint(block, residual, None, use_reentrant=False)
            else:
                residual = block(residual, None)
        tokens: torch.Tensor = self.tower.post_layernorm(residual)  # type: ignore[operator]
        pooled = self.tower.head(tokens) if self.pooling == "map" else tokens.float().mean(dim=1)  # type: ignore[operator]
        vectors: torch.Tensor = pooled.float()
        return vectors

    def forward(self, inputs: torch.Tensor, *, is_residual: bool = False) -> torch.Tensor:
        """Return (n, outputs) logits of pictures, or of what `below` made of them."""
        logits: torch.Tensor = self.head(self.above(inputs if is_residual else self.below(inputs)))
        return logits

    def vectors(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, dim) float32 that the encoder gives."""
        return self.above(self.below(pictures))

    def train(self, mode: bool = True) -> TunableTower:
        """Set the mode; what is frozen stays as it answers."""
        super().train(mode)
        for block in self._blocks[: self.frozen_blocks]:
            block.eval()
        return self

    @property
    def blocks(self) -> int:
        """Blocks of the tower."""
        return len(self._blocks)

    @property
    def _blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.tower.encoder.layers  # type: ignore[union-attr, assignment]
        return blocks


def require_blocks(blocks: int | None, available: int) -> int:
    """Return how many blocks from the top are meant; None means all.

    Raises
    ------
    UsageError
        If the tower has fewer.
    """
    if blocks is not None and blocks > available:
        raise UsageError(f"`blocks` must be at most the {available} of the encoder; found {blocks}")
    return available if blocks is None else blocks


def outputs_of(n_targets: int, n_classes: int) -> int:
    """Return how many numbers a head says: one for each target of two classes, else one for each class of each."""
    return n_targets if n_classes == 2 else n_targets * n_classes
