"""Decoded image -> encoder input, frozen as a specification that is part of the identity."""

from __future__ import annotations

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
# Pixels are square where height and width differ by at most 1 %: spacings are written with few digits.
_SQUARE_WITHIN = 0.01
# Beyond this an aspect ratio is a typing error rather than a detector.
MAX_ASPECT = 100.0

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
    square_pixels
        ``pad`` shows pixels that are not square as high and as wide as they are. False is what stores have that
        were begun before there was the choice. A squash forgets the shape of an image, and with it that of its
        pixels: ``eval`` and ``hf`` show the same either way.
    """

    preset: str = "pad"
    size_px: int = 448
    mri_range: str = "percentile-1-99"
    hf_resample: str = "bicubic"
    square_pixels: bool = True

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"`preprocess` must be one of {', '.join(PRESETS)}; found {self.preset!r}")
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
        if self.square_pixels:
            document |= {"rules": 3, "pixel_aspect": _ASPECT_RULES[self.preset]}
        else:
            # The identity of stores that were begun without the choice, byte for byte.
            document |= {"rules": 2}
            del document["square_pixels"]
        return document | {
            "recipes": _recipes(self),
            "eight_bit_pictures": "as stored",
            "alpha": "over black",
            "padding": "black, outside every range",
            "resize": _RESIZE_RULES[self.preset].format(hf_resample=self.hf_resample),
            "passes": _HF_PASSES[pillow_may_resize_columns_first()] if self.preset == "hf" else "rows first",
        }


def preprocess(pixels: ByteImage, spec: PreprocessSpec, pixel_aspect: float = 1.0) -> ByteImage:
    """Bring a rendered image to the square that the encoder takes.

    Parameters
    ----------
    pixels
        (h, w) grey or (h, w, 3) RGB uint8, at least one pixel.
    spec
        The preset and the size.
    pixel_aspect
        Height of a pixel divided by its width; see `aspect_to_mend`.

    Returns
    -------
    (size, size) or (size, size, 3) uint8, C-contiguous. ``pad`` and ``hf`` equal Pillow bit for bit.
    """
    if spec.preset == "pad":
        return pad_to_square(pixels, spec.size_px, aspect_to_mend(spec, pixel_aspect))
    if spec.preset == "hf":
        return squash_antialiased(pixels, spec.size_px, spec.hf_resample)
    return squash_bilinear(pixels, spec.size_px)


def aspect_to_mend(spec: PreprocessSpec, pixel_aspect: float) -> float:
    """Return the aspect ratio that makes a difference, or 1: within 1 %, beyond 1:100, or not asked for."""
    widest = max(pixel_aspect, 1 / pixel_aspect)
    mends = spec.preset == "pad" and spec.square_pixels
    # The margin takes in ratios of decimals: 0.202 / 0.2 is 1.0100000000000002.
    return pixel_aspect if mends and 1 + _SQUARE_WITHIN + 1e-9 < widest <= MAX_ASPECT else 1.0


def padded_shape(height: int, width: int, pixel_aspect: float) -> tuple[int, int]:
    """Return rows and columns, in stored pixels, of the square of anatomy that holds an image.

    Examples
    --------
    Pixels twice as high as wide: 150 rows are as long as 300 columns.

    >>> padded_shape(150, 260, 2.0)
    (150, 300)
    """
    return max(height, round(width / pixel_aspect)), max(width, round(height * pixel_aspect))


def pad_to_square(pixels: ByteImage, size_px: int, pixel_aspect: float = 1.0) -> ByteImage:
    """Zero-pad to a square, the smaller half before the image, and resize with antialiased bilinear.

    Pixels that are not square are padded to what is square outside the picture (`padded_shape`), so that one
    resampling, by another factor on each axis, makes them square: a step of its own would blur first.

    Pillow resizes rows first and columns second and rounds in between. Rows of padding stay zero in the
    first pass, so they are added after it; columns of padding are added in stripes of rows. The result is
    that of padding first, without the square of a 60,000 x 1 image.
    """
    height, width = pixels.shape[:2]
    rows, columns = padded_shape(height, width, pixel_aspect)
    if height == width == rows == columns:
        return _resize(pixels, (size_px, size_px), Image.Resampling.BILINEAR)
    rest = pixels.shape[2:]
    if columns == width:
        narrow = _resize(pixels, (size_px, height), Image.Resampling.BILINEAR)
    else:
        before = (columns - width) // 2
        rows_at_once = max(1, _STRIPE_PIXELS // columns)
        narrow = np.empty((height, size_px, *rest), np.uint8)
        for start in range(0, height, rows_at_once):
            piece = pixels[start : start + rows_at_once]
            stripe = np.zeros((len(piece), columns, *rest), np.uint8)
            stripe[:, before : before + width] = piece
            resized = _resize(stripe, (size_px, len(piece)), Image.Resampling.BILINEAR)
            narrow[start : start + len(piece)] = resized
    if rows != height:
        above = (rows - height) // 2
        square = np.zeros((rows, size_px, *rest), np.uint8)
        square[above : above + height] = narrow
        narrow = square
    return _resize(narrow, (size_px, size_px), Image.Resampling.BILINEAR)


def squash_antialiased(pixels: ByteImage, size_px: int, resample: str) -> ByteImage:
    """Resize both sides to `size_px` with an antialiased filter of Pillow's, whatever the aspect ratio."""
    return _resize(pixels, (size_px, size_px), HF_RESAMPLINGS[resample])


def squash_bilinear(
    pixels: ByteImage, size_px: int, edges_px: tuple[float, float, float, float] | None = None
) -> ByteImage:
    """Resize as ``tf.image.resize(bilinear, antialias=False)``, in its order of float32 steps; truncate.

    The whole picture, or what lies between `edges_px`: left, top, right and bottom, 0 at the outer edge of a pixel.
    """
    height, width = pixels.shape[:2]
    first_column, first_row, last_column, last_row = edges_px or (0.0, 0.0, float(width), float(height))
    top, bottom, down = bilinear_taps(height, size_px, first_row, last_row - first_row)
    left, right, across = bilinear_taps(width, size_px, first_column, last_column - first_column)
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
    length: int, size_px: int, start_px: float = 0.0, extent_px: float | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the two inputs that each of `size_px` outputs lies between, and the weight of the second.

    Half-pixel centres, as in TensorFlow and ``torch.nn.functional.interpolate(align_corners=False)``. The outputs are
    spread over all `length` inputs, or over `extent_px` of them from the edge `start_px` on.
    """
    scale = np.float32(length if extent_px is None else extent_px) / np.float32(size_px)
    centre = (np.arange(size_px, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    if start_px:
        centre += np.float32(start_px)
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


def _recipes(spec: PreprocessSpec) -> dict[str, Any]:
    """Return the rule of each DICOM modality code; "" is everything else."""
    radiograph = {
        "name": "radiograph",
        "range": "min-max of the image",
        "voi": "first, lookup table before window",
    }
    ct = {"name": "ct-windows", "windows_hu": [list(window) for window in CT_WINDOWS_HU]}
    mr = {"name": "mr-series", "range": spec.mri_range, "scope": "series"}
    if spec.square_pixels:  # rules 3
        radiograph["left_out"] = "a VOI that leaves one level; the modality LUT of XA and XRF"
        ct["other_units"] = "radiograph"
        mr["scope"] = "series and kind of value"
    return {"": radiograph, "CT": ct, "MR": mr}


_HF_PASSES = {
    False: "rows first",
    True: "columns first where the height shrinks by more than twice the width",
}
_ASPECT_RULES = {
    "pad": "square from 1 % on: padded to a square of anatomy, resampled once",
    "eval": "forgotten by the squash",
    "hf": "forgotten by the squash",
}
_RESIZE_RULES = {
    "pad": "zero-pad, smaller half first; Pillow bilinear",
    "eval": "squash; bilinear without antialiasing, half-pixel centres, float32; truncate",
    "hf": "squash; Pillow {hf_resample}",
}
