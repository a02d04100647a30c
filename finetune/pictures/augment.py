"""Restrained variations of a picture that leave its anatomy as it is: a small turn, shift, scale, contrast and noise.

Every number is drawn from (seed, image, view), so that a training that is resumed shows the same pictures. Geometry and
noise are computed where the pictures lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import cos, radians, sin

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample

from embedstore.encoders.vision_tower import normalise
from embedstore.errors import UsageError
from embedstore.files import sha256_bytes

# What no radiograph bears without becoming another one.
_MOST = {"rotate_deg": 30.0, "shift": 0.2, "scale": 0.3, "contrast": 0.5, "noise": 0.2}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far training pictures are varied; each is drawn uniformly up to its bound, to both sides.

    Parameters
    ----------
    rotate_deg
        Turn, degrees.
    shift
        Shift in both directions, share of the side.
    scale
        Change of size, share.
    contrast
        Change of contrast around the picture's mean, share.
    noise
        Standard deviation of Gaussian noise, share of the full range; drawn from 0 to it.
    flip
        Mirror left and right half of the time. Off by default: it turns a left hand into a right one, moves the heart
        and swaps the sides of a label.
    """

    rotate_deg: float = 7.0
    shift: float = 0.03
    scale: float = 0.05
    contrast: float = 0.1
    noise: float = 0.01
    flip: bool = False

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            found = getattr(self, name)
            if not 0 <= found <= most:
                raise UsageError(
                    f"`{name}` must be from 0 to {most:g}, so that anatomy stays as it is; found {found!r}"
                )

    @property
    def changes_nothing(self) -> bool:
        """Whether every picture stays as it is."""
        return not any(getattr(self, entry.name) for entry in fields(self))


NONE = Augmentation(rotate_deg=0, shift=0, scale=0, contrast=0, noise=0)


@dataclass(frozen=True)
class Variation:
    """What is done to one picture; `variation` draws it."""

    turn_deg: float
    shift_x: float
    shift_y: float
    size: float
    contrast: float
    noise: float
    mirrored: bool
    noise_seed: int


def variation(bounds: Augmentation, image_id: str, *, view: int, seed: int) -> Variation:
    """Draw what is done to an image in one of its views.

    Examples
    --------
    >>> first = variation(Augmentation(), "image1", view=0, seed=0)
    >>> first == variation(Augmentation(), "image1", view=0, seed=0)
    True
    >>> first == variation(Augmentation(), "image1", view=1, seed=0)
    False
    """
    place = int(sha256_bytes(image_id.encode())[:16], 16)
    draws = np.random.default_rng([seed, view, place])
    turn, across, down, size, contrast = draws.uniform(-1, 1, 5)
    return Variation(
        turn_deg=float(turn * bounds.rotate_deg),
        # A grid goes from -1 to 1, so that a share of the side is twice as much there.
        shift_x=float(2 * across * bounds.shift),
        shift_y=float(2 * down * bounds.shift),
        size=float(1 + size * bounds.scale),
        contrast=float(1 + contrast * bounds.contrast),
        noise=float(draws.uniform(0, bounds.noise)) if bounds.noise else 0.0,
        mirrored=bool(bounds.flip and draws.uniform() < 0.5),
        noise_seed=int(draws.integers(2**62)),
    )


def varied(
    pixels: torch.Tensor, levels: torch.Tensor, variations: Sequence[Variation] | None
) -> torch.Tensor:
    """Bring pictures to the tower's input, each varied in its own way.

    Parameters
    ----------
    pixels
        (n, size, size) grey or (n, size, size, 3) RGB, uint8, on the device.
    levels
        `embedstore.encoders.vision_tower.normalised_levels` there, float32.
    variations
        One for each picture; None for pictures as they are, which then are the encoder's own bits.

    Returns
    -------
    (n, 3, size, size) float32 from -1 to 1. Outside a picture is black, as its padding is.
    """
    pictures = normalise(pixels, levels)
    if variations is None:
        return pictures
    placed = torch.tensor([_matrix(one) for one in variations], dtype=torch.float32, device=pictures.device)
    grid = affine_grid(placed, list(pictures.shape), align_corners=False)
    # From 0 to 1, so that what comes in from outside is black.
    shares = grid_sample(pictures / 2 + 0.5, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    contrast = torch.tensor([one.contrast for one in variations], device=shares.device)[:, None, None, None]
    mean = shares.mean(dim=(1, 2, 3), keepdim=True)
    shares = (shares - mean) * contrast + mean
    for number, one in enumerate(variations):
        if one.noise:
            draws = torch.Generator(shares.device).manual_seed(one.noise_seed)
            shares[number] += one.noise * torch.randn(shares.shape[2:], generator=draws, device=shares.device)
    return shares.clamp_(0, 1) * 2 - 1


def _matrix(one: Variation) -> list[list[float]]:
    """Return the affine map from places of the result to places of the picture."""
    c, s, size = cos(radians(one.turn_deg)), sin(radians(one.turn_deg)), one.size
    side = -1.0 if one.mirrored else 1.0
    return [[side * c / size, -s / size, one.shift_x], [side * s / size, c / size, one.shift_y]]
