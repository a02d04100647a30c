"""The presets of `embedstore.images.preprocess` on a torch device, bit for bit where it has float64.

Pillow resizes 8-bit images with integer weights of 22 bits and rounds after each axis. The same weights in
two matrix products are exact in float64, so CPU and GPU agree with Pillow and with each other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from embedstore.errors import UsageError
from embedstore.images.preprocess import (
    PreprocessSpec,
    aspect_to_mend,
    bilinear_taps,
    padded_shape,
    resizes_columns_first,
)

# Pillow, src/libImaging/Resample.c: PRECISION_BITS = 32 - 8 - 2.
_WEIGHT_BITS = 22


def preprocess_tensor(pixels: torch.Tensor, spec: PreprocessSpec, pixel_aspect: float = 1.0) -> torch.Tensor:
    """Bring rendered images of one size to the square that the encoder takes.

    Parameters
    ----------
    pixels
        (n, h, w) grey or (n, h, w, 3) RGB uint8 on any device.
    spec
        The preset and the size.
    pixel_aspect
        Height of a pixel divided by its width, the same for all images.

    Returns
    -------
    (n, size, size) or (n, size, size, 3) uint8 on the same device. Equal to `preprocess`; within one grey
    level on devices without float64 (MPS).

    Raises
    ------
    UsageError
        If `pixels` has another type or number of axes.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim not in {3, 4}:
        raise UsageError(
            f"pixels must be (n, h, w) or (n, h, w, 3) uint8; found {tuple(pixels.shape)} {pixels.dtype}"
        )
    planes = pixels[..., None] if pixels.ndim == 3 else pixels
    planes = planes.permute(0, 3, 1, 2)
    if spec.preset == "pad":
        resized = _pad(planes, spec.size_px, aspect_to_mend(spec, pixel_aspect))
    elif spec.preset == "hf":
        resized = _hf(planes, spec.size_px, spec.hf_resample)
    else:
        resized = _eval(planes, spec.size_px)
    resized = resized.permute(0, 2, 3, 1)
    return resized[..., 0].contiguous() if pixels.ndim == 3 else resized.contiguous()


def _pad(planes: torch.Tensor, size_px: int, pixel_aspect: float) -> torch.Tensor:
    # Padding is zero, so its columns of the weights are left out instead of being multiplied.
    height, width = planes.shape[-2:]
    rows, columns = padded_shape(height, width, pixel_aspect)
    top, left = (rows - height) // 2, (columns - width) // 2
    across = resampling_weights(columns, size_px, _triangle, support=1.0)
    down = resampling_weights(rows, size_px, _triangle, support=1.0)
    narrow = _rows_resized(_exact(planes), across[:, left : left + width])
    return _columns_resized(narrow, down[:, top : top + height]).to(torch.uint8)


def _hf(planes: torch.Tensor, size_px: int, resample: str) -> torch.Tensor:
    height, width = planes.shape[-2:]
    kernel, support = (_cubic, 2.0) if resample == "bicubic" else (_triangle, 1.0)
    down, across = (resampling_weights(n, size_px, kernel, support=support) for n in (height, width))
    if resizes_columns_first(height, width, size_px):
        return _rows_resized(_columns_resized(_exact(planes), down), across).to(torch.uint8)
    return _columns_resized(_rows_resized(_exact(planes), across), down).to(torch.uint8)


def _eval(planes: torch.Tensor, size_px: int) -> torch.Tensor:
    top, bottom, down = _taps(planes, planes.shape[-2], size_px)
    left, right, across = _taps(planes, planes.shape[-1], size_px)
    values = planes.to(torch.float32)
    lerped = values[..., left] + (values[..., right] - values[..., left]) * across
    upper, lower = lerped[..., top, :], lerped[..., bottom, :]
    return (upper + (lower - upper) * down[:, None]).clamp(0, 255).to(torch.uint8)


def _taps(planes: torch.Tensor, length: int, size_px: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    first, second, weight = (torch.from_numpy(array) for array in bilinear_taps(length, size_px))
    return first.to(planes.device), second.to(planes.device), weight.to(planes.device)


def _exact(planes: torch.Tensor) -> torch.Tensor:
    return planes.to(torch.float32 if planes.device.type == "mps" else torch.float64)


def _rows_resized(planes: torch.Tensor, weights: npt.NDArray[np.float64]) -> torch.Tensor:
    return _rounded(planes @ torch.from_numpy(weights.T.copy()).to(planes))


def _columns_resized(planes: torch.Tensor, weights: npt.NDArray[np.float64]) -> torch.Tensor:
    return _rounded(torch.from_numpy(weights.copy()).to(planes) @ planes)


def _rounded(weighted: torch.Tensor) -> torch.Tensor:
    half = float(1 << (_WEIGHT_BITS - 1))
    return torch.floor((weighted + half) / float(1 << _WEIGHT_BITS)).clamp(0, 255)


def resampling_weights(
    length: int,
    size_px: int,
    kernel: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    *,
    support: float,
) -> npt.NDArray[np.float64]:
    """Return Pillow's integer weights (size_px, length) as float64; each row sums to about 2 ** 22."""
    scale = length / size_px
    stretch = max(scale, 1.0)
    center = (np.arange(size_px) + 0.5) * scale
    # C truncates towards zero; below zero both end at 0.
    first = np.maximum(np.trunc(center - support * stretch + 0.5), 0)[:, None]
    stop = np.minimum(np.trunc(center + support * stretch + 0.5), length)[:, None]
    place = np.arange(length)[None]
    weights = kernel((place - center[:, None] + 0.5) / stretch) * ((place >= first) & (place < stop))
    weights /= weights.sum(axis=1, keepdims=True)
    integers: npt.NDArray[np.float64] = np.trunc(
        weights * (1 << _WEIGHT_BITS) + np.where(weights < 0, -0.5, 0.5)
    )
    return integers


def _triangle(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # Keys' cubic with a = -0.5, as Pillow's; other libraries take -0.75.
    x, a = np.abs(x), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
