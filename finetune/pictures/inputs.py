"""What the trained part of a tower is fed with: pictures, varied as the epoch asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from embedstore.encoders.vision_tower import normalised_levels
from finetune.pictures.augment import Augmentation, Variation, variation, varied
from finetune.pictures.picture_source import PictureSource

Numbers = npt.NDArray[np.int64]
# Of pictures as they are.
PLAIN = None


class TowerInputs(Protocol):
    """Gives the inputs of images by number."""

    @property
    def is_residual(self) -> bool:
        """Whether they are what the frozen blocks made of the pictures, and not the pictures."""
        ...

    def batches(self, batches: Sequence[Numbers], *, view: int | None) -> Iterator[torch.Tensor]:
        """Yield the inputs of each batch on the device; a number stands in one batch only.

        Parameters
        ----------
        batches
            Numbers of images.
        view
            Which varied copy of them; None for images as they are.
        """
        ...


@dataclass(frozen=True)
class PictureInputs:
    """Pictures for the whole tower.

    Parameters
    ----------
    source
        The pictures.
    image_ids
        Of each number.
    device
        Where they are varied and normalised.
    augmentation, seed
        How.
    """

    source: PictureSource
    image_ids: Sequence[str]
    device: torch.device
    augmentation: Augmentation
    seed: int

    is_residual = False

    def batches(self, batches: Sequence[Numbers], *, view: int | None) -> Iterator[torch.Tensor]:
        """Yield (n, 3, size, size) float32 pictures of each batch."""
        levels = torch.from_numpy(normalised_levels()).to(self.device)
        for numbers, pixels in zip(batches, self.source.batches(batches), strict=True):
            plain = view is None or self.augmentation.changes_nothing
            drawn = None if plain else [self._variation(int(number), view) for number in numbers]
            yield varied(torch.from_numpy(pixels).to(self.device), levels, drawn)

    def _variation(self, number: int, view: int | None) -> Variation:
        return variation(self.augmentation, self.image_ids[number], view=view or 0, seed=self.seed)
