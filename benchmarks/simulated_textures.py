"""Small grey pictures whose class lies in brightness, in texture or nowhere, and a tiny tower with random weights.

What such a tower makes of a picture is a random projection of its patches: brightness survives that, the direction and
the fineness of stripes hardly. So some tasks' classes are there in its vectors, those of others only in the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image

Kind = Literal["brightness", "pattern", "direction", "fineness", "spot"]
SIZE_PX = 56
_PATCH_PX = 14
_NOISE = 20.0
_CLOUDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Texture:
    """A kind of task.

    Parameters
    ----------
    kind
        What tells the classes apart: overall brightness, a faint fixed pattern, the direction or the fineness of
        stripes, or whether a spot somewhere is bright or dark.
    strength
        How clearly, in multiples of what is easy for a reader.
    wrong_share
        Share of labels that are turned at random; 0.5 has labels of nothing.
    """

    kind: Kind
    strength: float = 1.0
    wrong_share: float = 0.0

    def draw(
        self, n: int, generator: np.random.Generator
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return (n, 56, 56) pictures and (n,) labels 0 or 1."""
        truth = generator.integers(0, 2, n)
        pictures = np.stack([self._picture(int(label), generator) for label in truth])
        turned = generator.random(n) < self.wrong_share
        return pictures, np.where(turned, 1 - truth, truth)

    def _picture(self, label: int, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
        clouds = np.kron(generator.normal(0, 1, (7, 7)), np.ones((8, 8))) * _CLOUDS
        noise = generator.normal(0, _NOISE, (SIZE_PX, SIZE_PX))
        levels = 128 + clouds + noise + self.strength * self._signal(label, generator)
        return np.clip(np.round(levels), 0, 255).astype(np.uint8)

    def _signal(self, label: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        sign = 2 * label - 1
        rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX]
        if self.kind == "brightness":
            return np.full((SIZE_PX, SIZE_PX), 20.0 * sign)
        if self.kind == "pattern":
            return 20.0 * sign * np.sin(rows / 9.0) * np.cos(columns / 7.0)
        if self.kind == "spot":
            row, column = generator.uniform(10, SIZE_PX - 10, 2)
            radius = generator.uniform(4, 6)
            return 60.0 * sign * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * radius**2))
        if self.kind == "direction":
            angle = sign * np.pi / 4 + generator.normal(0, 0.25)
            waves = generator.uniform(0.08, 0.14)
        else:
            angle = generator.uniform(0, np.pi)
            waves = 0.16 if label else 0.11
        along = columns * np.cos(angle) + rows * np.sin(angle)
        return 25.0 * np.sin(2 * np.pi * waves * along + generator.uniform(0, 2 * np.pi))


def write_pictures(folder: Path, texture: Texture, *, learned: int, fresh: int, seed: int) -> Path:
    """Write pictures of so many training and so many fresh patients, one each, and return their table."""
    generator = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    pictures, labels = texture.draw(learned + fresh, generator)
    lines = ["path,patient_id,split,finding"]
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        Image.fromarray(picture).save(folder / "images" / f"{number}.png")
        split = "train" if number < learned else "valid"
        lines.append(f"images/{number}.png,patient{number},{split},{'yes' if label else 'no'}")
    table = folder / "pictures.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def write_tiny_tower(folder: Path, *, seed: int = 0) -> Path:
    """Write a SigLIP image tower of 3 blocks and width 48 with random weights, and return its folder."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(seed)
    config = transformers.SiglipVisionConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE_PX,
        patch_size=_PATCH_PX,
    )
    transformers.SiglipVisionModel(config).save_pretrained(folder)
    return folder
