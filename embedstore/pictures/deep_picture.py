"""Pictures of more than 8 bits a sample, which Pillow would cut to their upper 8 bits, scale or not open.

16-bit colour and grey with alpha in PNG; 12-, 16-, 32- and 64-bit samples, signed and floating ones in TIFF, in
either byte order, WhiteIsZero included; PGM and PPM with a maxval above 255. Values arrive as the file stores
them, so that one picture has one digest in all of these.
"""

from __future__ import annotations

import io
import re

import numpy as np

from embedstore.codecs.deep_samples import png_samples, tiff_samples
from embedstore.errors import ImageRefused, Reason
from embedstore.images.stored_image import grey_if_equal
from embedstore.pictures.complete import check_tiff
from embedstore.pictures.tiff_directory import TiffPage, all_tags, tiff_pages
from embedstore.values.window import StoredArray

_PILLOW_BITS = (1, 2, 4, 8)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_ASSOCIATED, _UNASSOCIATED = 1, 2
_DEEP_PNG = {2: 3, 4: 2, 6: 4}  # colour type -> samples; 16-bit grey alone is read by Pillow as it is
_PNM_HEADER = re.compile(rb"P([2356])" + 3 * rb"(?:\s|#[^\r\n]*[\r\n])+(\d{1,9})")


def deep_pixels(content: bytes, format_name: str, *, page: int, max_pixels: int) -> StoredArray | None:
    """Return the pixels of a deep TIFF or PNM picture, upright; None for a picture that Pillow reads truly.

    Parameters
    ----------
    content
        The whole file.
    format_name
        From `embedstore.images.file_kind.picture_format`.
    page
        Page of a TIFF, from 0.
    max_pixels
        Checked before anything is decoded.

    Raises
    ------
    ImageRefused
        With ``too-large`` or ``no-pixels`` for its size, ``unsupported`` for colour that is neither grey nor
        unsigned RGB, ``unreadable`` for truncated values.
    """
    if format_name == "TIFF":
        return _deep_tiff(content, page, max_pixels)
    if format_name == "PPM":
        return _deep_pnm(content, max_pixels)
    return None


def deep_png(content: bytes) -> StoredArray | None:
    """Return the pixels of a 16-bit PNG in colour or with alpha, as stored; None for any other PNG."""
    bits, colour_type = content[24], content[25]
    if bits != 16 or colour_type not in _DEEP_PNG:
        return None
    pixels = png_samples(content).astype(np.uint16, copy=False)
    return merged(pixels, alpha=pixels.shape[2] in (2, 4))


def merged(pixels: StoredArray, *, alpha: bool, premultiplied: bool = False) -> StoredArray:
    """Lay (h, w, c) unsigned samples over black and return (h, w) grey or (h, w, 3) RGB.

    Parameters
    ----------
    pixels
        Grey or RGB, and an alpha sample where `alpha` is true.
    alpha
        Whether the last sample is one.
    premultiplied
        Whether the colours are multiplied by it already.
    """
    colour = pixels
    if alpha:
        # What lies under full transparency is arbitrary; black is the background of every medical viewer.
        colour, opacity = pixels[..., :-1], pixels[..., -1:]
        full = np.iinfo(pixels.dtype).max
        if not premultiplied and (opacity != full).any():
            products = colour.astype(np.uint64) * opacity
            colour = ((products + full // 2) // full).astype(pixels.dtype)
    return grey_if_equal(colour) if colour.shape[2] == 3 else np.ascontiguousarray(colour[..., 0])


def upright(pixels: StoredArray, orientation: int) -> StoredArray:
    """Turn pixels as their orientation tag says (EXIF 2.3, 4.6.4)."""
    turned = {
        2: lambda: pixels[:, ::-1],
        3: lambda: pixels[::-1, ::-1],
        4: lambda: pixels[::-1],
        5: lambda: pixels.swapaxes(0, 1),
        6: lambda: np.rot90(pixels, -1),
        7: lambda: pixels[::-1, ::-1].swapaxes(0, 1),
        8: lambda: np.rot90(pixels, 1),
    }.get(orientation, lambda: pixels)()
    return np.ascontiguousarray(turned)


def check_area(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture without area or beyond the limit, by what its header says."""
    if width < 1 or height < 1:
        raise ImageRefused(Reason.NO_PIXELS, f"the image has no area: {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageRefused(
            Reason.TOO_LARGE,
            f"an image may have at most {max_pixels:,} pixels; its header says {width} x {height}",
        )


def _deep_tiff(content: bytes, number: int, max_pixels: int) -> StoredArray | None:
    page = next((page for index, page in enumerate(tiff_pages(io.BytesIO(content))) if index == number), None)
    if page is None or (page.bits in _PILLOW_BITS and page.sample_format == 1):
        return None
    check_area(page.width, page.height, max_pixels)
    alpha = _alpha_of(page)
    check_tiff(content, all_tags(content, page))
    decoded: StoredArray = tiff_samples(content, number)
    if page.separate_planes and decoded.ndim == 3:
        decoded = np.moveaxis(decoded, 0, -1)
    pixels = decoded.reshape(page.height, page.width, page.samples)
    kept = 1 if page.photometric != _RGB else 3
    pixels = pixels[..., : kept + (alpha is not None)]
    if page.photometric == _WHITE_IS_ZERO:
        pixels[..., 0] = _negative(pixels[..., 0], page)
    if pixels.dtype == np.float16:
        pixels = pixels.astype(np.float32)
    return upright(
        merged(pixels, alpha=alpha is not None, premultiplied=alpha == _ASSOCIATED), page.orientation
    )


def _alpha_of(page: TiffPage) -> int | None:
    """Return which kind of alpha the page has, or None; refuse samples that have no meaning as grey or RGB."""
    grey = page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    unsigned = page.sample_format == 1
    extra = page.samples - (1 if grey else 3)
    if (
        not (grey or (page.photometric == _RGB and unsigned))
        or not 0 <= extra <= 1
        or (extra and not unsigned)
    ):
        raise ImageRefused(
            Reason.UNSUPPORTED,
            f"a TIFF of {page.bits}-bit samples must be grey or unsigned RGB; found PhotometricInterpretation"
            f" {page.photometric} with {page.samples} samples of format {page.sample_format}",
        )
    if not extra:
        return None
    kind = page.extra[0] if page.extra else (0 if grey else _UNASSOCIATED)
    return kind if kind in (_ASSOCIATED, _UNASSOCIATED) else None


def _negative(values: StoredArray, page: TiffPage) -> StoredArray:
    """Return WhiteIsZero values as BlackIsZero ones."""
    if page.sample_format == 3:
        negative = -values
    elif page.sample_format == 2:
        negative = ~values
    else:
        negative = values.dtype.type((1 << page.bits) - 1) - values
    return np.asarray(negative)


def _deep_pnm(content: bytes, max_pixels: int) -> StoredArray | None:
    header = _PNM_HEADER.match(content)
    if header is None:
        return None
    kind, width, height, maxval = (int(group) for group in header.groups())
    if not 255 < maxval < 1 << 16:
        return None  # 8 bits, or malformed
    check_area(width, height, max_pixels)
    samples = 3 if kind in (3, 6) else 1
    count = width * height * samples
    if kind in (2, 3):
        tokens = re.sub(rb"#[^\r\n]*", b" ", content[header.end() :]).split(maxsplit=count)[:count]
        values = np.array([int(token) for token in tokens], np.int64)
    else:
        values = np.frombuffer(content[header.end() + 1 :][: 2 * count], ">u2").astype(np.int64)
    if len(values) < count:
        raise ImageRefused(
            Reason.UNREADABLE, f"the pixels are truncated: {len(values):,} of {count:,} are there"
        )
    if values.min() < 0 or values.max() > maxval:
        raise ImageRefused(
            Reason.UNREADABLE, f"values must be 0 to {maxval}; found {values.min()} to {values.max()}"
        )
    return merged(values.astype(np.uint16).reshape(height, width, samples), alpha=False)
