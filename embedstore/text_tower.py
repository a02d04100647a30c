"""What compares words with images: the text tower of an encoder that was trained on pairs of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class TextTower(Protocol):
    """Texts into vectors of the images' space.

    The score of a text for an image is ``logit_scale * cosine + logit_bias`` (SigLIP, arXiv 2303.15343).
    """

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine, above 0."""
        ...

    @property
    def logit_bias(self) -> float:
        """Added to the scaled cosine."""
        ...

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, dim) float32 vectors, un-normalised; a row depends on its text alone."""
        ...
