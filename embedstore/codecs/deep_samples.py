"""PNG and TIFF of more than 8 bits a sample -> the samples as stored."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]


def png_samples(content: bytes) -> Samples:
    """Return (h, w) or (h, w, c) uint8 or uint16; a transparent colour becomes an alpha sample."""
    return np.asarray(imagecodecs.png_decode(content))


def tiff_samples(content: bytes, page: int) -> Samples:
    """Return the samples of one page, from 0, in the file's own type and this machine's byte order.

    Samples of a pixel come last where they lie together, first where they lie in planes.
    """
    return np.asarray(imagecodecs.tiff_decode(content, index=page))
