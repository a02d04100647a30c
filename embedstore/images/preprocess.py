"""Decoded image -> encoder input, frozen as a specification that is part of the identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedstore.errors import UsageError

PRESETS = ("pad", "eval", "hf")
HF_RESAMPLINGS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
MRI_RANGES = ("percentile-1-99", "min-max")
CT_WINDOWS_HU = ((-1024.0, 1024.0), (-135.0, 215.0), (0.0, 80.0))  # red, green, blue; MedGemma's own
# The padded square of a long thin image is never held whole beyond this many pixels.
_STRIPE_PIXELS = 1 << 24

ByteImage = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PreprocessSpec:
    """How any decoded image becomes a square uint8 picture.

    Parameters
    ----------
    preset
        ``pad``: zero-pad to a square, antialiased bilinear; ``eval``: squash, bilinear without
        antialiasing, truncate; ``hf``: squash, antialiased, as the installed Pillow does it
        (`resizes_columns_first`).
    size_px
        Side of the square.
    mri_range
        Which values of an MR series become 0 and 255: ``percentile-1-99`` or ``min-max`` of the series.
    hf_resample
        Filter of ``hf``: ``bicubic`` or ``bilinear``, as the image processor of a checkpoint says.
    """

    preset: str = "pad"
    size_px: int = 448
    mri_range: str = "percentile-1-99"
    hf_resample: str = "bicubic"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"preprocess must be one of {', '.join(PRESETS)}; found {self.preset!r}")
        if self.size_px < 1:
            raise UsageError(f"size_px must be at least 1; found {self.size_px}")
        if self.mri_range not in MRI_RANGES:
            raise UsageError(f"mri_range must be one of {', '.join(MRI_RANGES)}; found {self.mri_range!r}")
        if self.hf_resample not in HF_RESAMPLINGS:
            known = ", ".join(HF_RESAMPLINGS)
            raise UsageError(f"hf_resample must be one of {known}; found {self.hf_resample!r}")

    def to_json(self) -> dict[str, Any]:
        """Return the specification as plain JSON values, with the rules behind it spelled out.

        Whatever changes a pixel stands here, because vectors of two specifications never mix: the recipe of
        each modality with its parameters, and the version of the rules that the names stand for.
        """
        document = asdict(self)
        if self.preset != "hf" or self.hf_resample == "bicubic":
            del document["hf_resample"]  # the identity of stores from before there was a choice
        return document | {
            "rules": 2,
            "recipes": {
                # Keys are DICOM modality codes; "" is everything else.
                "": {
                    "name": "radiograph",
                    "range": "min-max of the image",
                    "voi": "first, lookup table before window",
                },
                "CT": {
                    "name": "ct-windows",
                    "windows_hu": [list(window) for window in CT_WINDOWS_HU],
                },
                "MR": {"name": "mr-series", "range": self.mri_range, "scope": "series"},
            },
            "eight_bit_pictures": "as stored",
            "alpha": "over black",
            "padding": "black, outside every range",
            "resize": _RESIZE_RULES[self.preset].format(hf_resample=self.hf_resample),
            "passes": _HF_PASSES[pillow_may_resize_columns_first()] if self.preset == "hf" else "rows first",
        }


def preprocess(pixels: ByteImage, spec: PreprocessSpec) -> ByteImage:
    """Bring a rendered image to the square that the encoder takes.

    Parameters
    ----------
    pixels
        (h, w) grey or (h, w, 3) RGB uint8, at least one pixel.
    spec
        The preset and the size.

    Returns
    -------
    (size, size) or (size, size, 3) uint8, C-contiguous. ``pad`` and ``hf`` equal Pillow bit for bit.
    """
    if spec.preset == "hf":
        return squash_antialiased(pixels, spec.size_px, spec.hf_resample)
    return _PRESET_FUNCTIONS[spec.preset](pixels, spec.size_px)


def pad_to_square(pixels: ByteImage, size_px: int) -> ByteImage:
    """Zero-pad to a square, the smaller half before the image, and resize with antialiased bilinear.

    Pillow resizes rows first and columns second and rounds in between. Rows of padding stay zero in the
    first pass, so they are added after it; columns of padding are added in stripes of rows. The result is
    that of padding first, without the square of a 60,000 x 1 image.
    """
    height, width = pixels.shape[:2]
    side = max(height, width)
    rest = pixels.shape[2:]
    if height == width:
        return _resize(pixels, (size_px, size_px), Image.Resampling.BILINEAR)
    if height < width:
        narrow = _resize(pixels, (size_px, height), Image.Resampling.BILINEAR)
        before = (side - height) // 2
        square = np.zeros((side, size_px, *rest), np.uint8)
        square[before : before + height] = narrow
        return _resize(square, (size_px, size_px), Image.Resampling.BILINEAR)
    before = (side - width) // 2
    rows_at_once = max(1, _STRIPE_PIXELS // side)
    narrow = np.empty((height, size_px, *rest), np.uint8)
    for start in range(0, height, rows_at_once):
        piece = pixels[start : start + rows_at_once]
        stripe = np.zeros((len(piece), side, *rest), np.uint8)
        stripe[:, before : before + width] = piece
        narrow[start : start + len(piece)] = _resize(stripe, (size_px, len(piece)), Image.Resampling.BILINEAR)
    return _resize(narrow, (size_px, size_px), Image.Resampling.BILINEAR)


def squash_antialiased(pixels: ByteImage, size_px: int, resample: str) -> ByteImage:
    """Resize both sides to `size_px` with an antialiased filter of Pillow's, whatever the aspect ratio."""
    return _resize(pixels, (size_px, size_px), HF_RESAMPLINGS[resample])


def squash_bilinear(pixels: ByteImage, size_px: int) -> ByteImage:
    """Resize as ``tf.image.resize(bilinear, antialias=False)``, in its order of float32 steps; truncate."""
    height, width = pixels.shape[:2]
    top, bottom, down = bilinear_taps(height, size_px)
    left, right, across = bilinear_taps(width, size_px)
    # Only the rows that are read are touched: a quarter of a large radiograph, at most.
    rows, place = np.unique(np.concatenate([top, bottom]), return_inverse=True)
    near = pixels[rows]
    across = across.reshape(-1, *[1] * (pixels.ndim - 2))
    left_values = near[:, left].astype(np.float32)
    lerped = left_values + (near[:, right].astype(np.float32) - left_values) * across
    upper, lower = lerped[place[:size_px]], lerped[place[size_px:]]
    down = down.reshape(-1, *[1] * (pixels.ndim - 1))
    # Float rounding may leave a value a hair outside 0 ... 255, where a cast to uint8 would wrap around.
    squashed: ByteImage = np.clip(upper + (lower - upper) * down, 0, 255).astype(np.uint8)
    return squashed


def bilinear_taps(
    length: int, size_px: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the two inputs that each of `size_px` outputs lies between, and the weight of the second.

    Half-pixel centres, as in TensorFlow and ``torch.nn.functional.interpolate(align_corners=False)``.
    """
    scale = np.float32(length) / np.float32(size_px)
    centre = (np.arange(size_px, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    floor = np.floor(centre)
    first = np.maximum(floor, 0).astype(np.int64)
    second = np.minimum(np.ceil(centre), length - 1).astype(np.int64)
    return first, second, centre - floor


def resizes_columns_first(height: int, width: int, size_px: int) -> bool:
    """Return whether Pillow shrinks the columns of an image before it resizes the rows.

    Pillow rounds between its two passes, so their order shows in bicubic pixels by up to a few grey levels.
    Up to 12.1 rows always came first. Later releases begin with the columns if the height shrinks by more
    than twice what the width does; the rule was found by trying sizes, and a test holds it against Pillow.
    """
    shrinks_more = height - size_px > 2 * max(width - size_px, 0)
    return shrinks_more and pillow_may_resize_columns_first()


@cache
def pillow_may_resize_columns_first() -> bool:
    """Return which of the two orders the installed Pillow has, by resizing a few pixels both ways."""
    probe = (np.arange(36).reshape(12, 3) * 97 % 256).astype(np.uint8)
    rows_first = _resize(_resize(probe, (4, 12), Image.Resampling.BICUBIC), (4, 4), Image.Resampling.BICUBIC)
    return not np.array_equal(_resize(probe, (4, 4), Image.Resampling.BICUBIC), rows_first)


def _resize(pixels: ByteImage, size: tuple[int, int], resampling: Image.Resampling) -> ByteImage:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize(size, resampling))


_PRESET_FUNCTIONS: dict[str, Callable[[ByteImage, int], ByteImage]] = {
    "pad": pad_to_square,
    "eval": squash_bilinear,
}
_HF_PASSES = {
    False: "rows first",
    True: "columns first where the height shrinks by more than twice the width",
}
_RESIZE_RULES = {
    "pad": "zero-pad, smaller half first; Pillow bilinear",
    "eval": "squash; bilinear without antialiasing, half-pixel centres, float32; truncate",
    "hf": "squash; Pillow {hf_resample}",
}
