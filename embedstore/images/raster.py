"""PNG, JPEG and other pictures through Pillow, as grey or RGB pixels the right way up."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, PpmImagePlugin
from PIL.ImageFile import ImageFile

from embedstore.errors import ImageRefused, Reason
from embedstore.images.complete import check_complete
from embedstore.images.hostile import refusing
from embedstore.images.stored_image import RASTER, StoredImage, grey_if_equal
from embedstore.values.window import StoredArray

_EXIF_ORIENTATION = 0x0112
# EXIF 2.3, 4.6.4: how the stored picture must be turned to stand upright; 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_END = b"IEND\xaeB`\x82"
_DEEP_MODES = {"I;16": "<u2", "I;16L": "<u2", "I;16B": "<u2", "I": "<i4", "F": "<f4"}


def raster_format(head: bytes) -> str | None:
    """Return the name of the picture format that `head` begins, or None; at least 16 bytes are needed."""
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else None
    if head[:1] == b"P":
        return "PPM" if head[1:2] in b"123456" and head[2:3].isspace() else None
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def read_raster(content: bytes, format_name: str, *, frame: int, max_pixels: int) -> StoredImage:
    """Decode one picture.

    Grey stays grey, 16-bit grey stays 16-bit; RGB with equal channels becomes grey; transparent parts are
    laid over black; palette, CMYK and other colour spaces become RGB. Pillow reads 16-bit colour as its
    upper 8 bits.

    Parameters
    ----------
    content
        The whole file.
    format_name
        From `raster_format`.
    frame
        Page or frame, from 0.
    max_pixels
        Checked against the header before anything is decoded.

    Raises
    ------
    ImageRefused
        ``too-large``, ``no-pixels`` (no area, no such frame) or ``unreadable`` (malformed or truncated).
    """
    with refusing(f"the {format_name} file cannot be decoded"), _opened(content, format_name) as picture:
        _seek(picture, frame)
        width, height = picture.size
        if width < 1 or height < 1:
            raise ImageRefused(Reason.NO_PIXELS, f"the image has no area: {width} x {height} pixels")
        if width * height > max_pixels:
            raise ImageRefused(
                Reason.TOO_LARGE,
                f"an image may have at most {max_pixels:,} pixels; its header says {width} x {height}",
            )
        picture.load()
        if format_name == "PNG" and _PNG_END not in content:
            raise ImageRefused(Reason.UNREADABLE, "the PNG file is truncated: its end marker is missing")
        check_complete(content, format_name, picture)
        orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
        upright = picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture
        upright.info = picture.info
        pixels = _stored_pixels(upright)
    return StoredImage(pixels, RASTER, bits=8 * pixels.dtype.itemsize)


def _stored_pixels(picture: Image.Image) -> StoredArray:
    if picture.mode in _DEEP_MODES:
        return np.asarray(picture).astype(_DEEP_MODES[picture.mode])
    transparent = "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info
    if picture.mode in {"L", "1"} and not transparent:
        return np.array(picture if picture.mode == "L" else picture.convert("L"))
    if picture.mode in {"L", "1", "LA", "La"}:
        return _over_black(np.asarray(picture.convert("LA")))[..., 0]
    if transparent:
        return grey_if_equal(_over_black(np.asarray(picture.convert("RGBA"))))
    return grey_if_equal(np.array(picture.convert("RGB")))


def _over_black(pixels: np.typing.NDArray[np.uint8]) -> np.typing.NDArray[np.uint8]:
    # What lies under full transparency is arbitrary; black is the background of every medical viewer.
    colour, alpha = pixels[..., :-1].astype(np.uint16), pixels[..., -1:].astype(np.uint16)
    return ((colour * alpha + 127) // 255).astype(np.uint8)


def _seek(picture: ImageFile, frame: int) -> None:
    if frame == 0:
        return
    try:
        picture.seek(frame)
    except EOFError as error:
        raise ImageRefused(
            Reason.NO_PIXELS, f"frame {frame} was asked for; the file ends before it"
        ) from error


def _opened(content: bytes, format_name: str) -> ImageFile:
    # The plugin's own class and not Image.open: that tries every format it knows, of which some start
    # other programs (EPS), and warns instead of refusing below twice its size limit.
    return _PLUGINS[format_name](io.BytesIO(content))


def _tiff(file: io.BytesIO) -> ImageFile:
    from PIL.TiffImagePlugin import TiffImageFile  # costs more to import than a PNG costs to decode

    return TiffImageFile(file)


def _webp(file: io.BytesIO) -> ImageFile:
    from PIL.WebPImagePlugin import WebPImageFile  # as above

    return WebPImageFile(file)


_PLUGINS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "TIFF": _tiff,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WEBP": _webp,
    "PPM": PpmImagePlugin.PpmImageFile,
}
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
}
