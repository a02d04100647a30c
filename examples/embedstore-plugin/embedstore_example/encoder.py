"""An encoder without learned weights: how much of each orientation there is in each sixteenth of the picture."""

from __future__ import annotations

import math

import torch
from torch import nn

from embedstore.encoders import torch_module
from embedstore.encoders.base import Encoder
from embedstore.errors import UsageError
from embedstore.images.preprocess import PreprocessSpec

SIZE_PX = 64
KERNEL_PX = 9
CELLS = 4


class OrientedEnergy(nn.Module):
    """(n, 3, size, size) pictures from 0 to 1 -> (n, 16 * orientations) mean absolute response of Gabor filters."""

    filters: torch.Tensor

    def __init__(self, orientations: int) -> None:
        super().__init__()
        # A buffer, so that the digest in the identity covers the filters.
        self.register_buffer("filters", gabor_filters(orientations))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the vectors; a grey picture has three equal channels."""
        grey = pictures.mean(dim=1, keepdim=True)
        energy = nn.functional.conv2d(grey, self.filters, stride=2).abs()
        return nn.functional.adaptive_avg_pool2d(energy, CELLS).flatten(1)


def gabor_filters(orientations: int) -> torch.Tensor:
    """Return (orientations, 1, 9, 9) float32 filters of a wave of 5 px at angles from 0 to 180 degrees."""
    place = torch.arange(KERNEL_PX, dtype=torch.float64) - KERNEL_PX // 2
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    envelope = torch.exp(-(rows**2 + columns**2) / (2 * 2.0**2))
    waves = []
    for index in range(orientations):
        angle = math.pi * index / orientations
        waves.append(
            envelope * torch.sin(2 * math.pi * (columns * math.cos(angle) + rows * math.sin(angle)) / 5)
        )
    # Rounded, so that every machine has the same bits and thus the same identity.
    return (torch.stack(waves)[:, None] * 64).round().div(64).float()


def oriented_energy(
    preset: str | None = None, device: str = "auto", dtype: str = "auto", *, orientations: int = 8
) -> Encoder:
    """Build the encoder; what the entry point names.

    Parameters
    ----------
    preset, device, dtype
        What every encoder takes: ``--preprocess``, ``--device``, ``--dtype``.
    orientations
        Number of filters: ``--encoder-option orientations=4``.

    Raises
    ------
    UsageError
        If `orientations` is no whole number from 1.
    """
    if not isinstance(orientations, int) or orientations < 1:
        raise UsageError(f"orientations must be a whole number from 1; found {orientations!r}")
    return torch_module(
        OrientedEnergy(orientations).eval(),
        PreprocessSpec(preset or "pad", size_px=SIZE_PX),
        CELLS * CELLS * orientations,
        name="oriented-energy",
        device=device,
        dtype=dtype,
        options={"orientations": orientations},
    )
