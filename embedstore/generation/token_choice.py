"""How the next token is chosen: the likeliest, or drawn by each study's own seed, whatever its company."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from embedstore.files import sha256_bytes


class DrawByStudy:
    """Makes the largest score a draw: softmax sampling by the Gumbel-max trick, a stream of numbers for each row.

    The largest of score / temperature + Gumbel noise is distributed as the softmax of score / temperature
    (Maddison, Tarlow and Minka 2014, "A* Sampling"). Called as transformers calls a logits processor.

    Parameters
    ----------
    temperature
        Above 0.
    seeds
        One for each row.
    """

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        self._temperature = temperature
        self._streams = [np.random.default_rng(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return (rows, vocabulary) scores with noise."""
        del input_ids
        noise = np.stack([stream.gumbel(size=scores.shape[1]) for stream in self._streams])
        return scores.float() / self._temperature + torch.from_numpy(noise.astype(np.float32)).to(
            scores.device
        )


class StopWhenAsked:
    """Ends all rows after the token at hand once somebody asked for it; called as a stopping criterion."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **other: object) -> torch.Tensor:
        """Return (rows,) bool."""
        del scores, other
        return torch.full((len(input_ids),), self._stopping(), dtype=torch.bool, device=input_ids.device)


def seed_of_study(seed: int, study_id: str) -> int:
    """Return the seed of a study: that of the run and the study's id, so that no order or batch changes it."""
    return int(sha256_bytes(f"{seed}\t{study_id}".encode())[:16], 16)
