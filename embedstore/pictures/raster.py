"""PNG, JPEG and other pictures through Pillow, as grey or RGB pixels the right way up."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, PpmImagePlugin
from PIL.ImageFile import ImageFile

from embedstore.errors import ImageRefused, Reason
from embedstore.images.hostile import refusing
from embedstore.images.stored_image import RASTER, StoredImage, grey_if_equal
from embedstore.pictures.complete import check_complete
from embedstore.pictures.deep_picture import check_area, deep_pixels, deep_png, upright
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


def read_raster(content: bytes, format_name: str, *, frame: int, max_pixels: int) -> StoredImage:
    """Decode one picture.

    Grey stays grey, and every sample keeps the bits that the file gives it; RGB with equal channels becomes
    grey; transparent parts are laid over black; WhiteIsZero becomes its negative; palette, CMYK and other
    colour spaces of 8 bits become RGB.

    Parameters
    ----------
    content
        The whole file.
    format_name
        From `embedstore.images.file_kind.picture_format`.
    frame
        Page or frame, from 0.
    max_pixels
        Checked against the header before anything is decoded.

    Raises
    ------
    ImageRefused
        ``too-large``, ``no-pixels`` (no area, no such frame), ``unreadable`` (malformed or truncated) or
        ``unsupported`` (a deep picture in another colour space than grey and RGB).
    """
    with refusing(f"the {format_name} file cannot be decoded"):
        deep = deep_pixels(content, format_name, page=frame, max_pixels=max_pixels)
    if deep is not None:
        return StoredImage(deep, RASTER, bits=8 * deep.dtype.itemsize)
    with refusing(f"the {format_name} file cannot be decoded"), _opened(content, format_name) as picture:
        _seek(picture, frame)
        check_area(*picture.size, max_pixels)
        picture.load()
        if format_name == "PNG" and _PNG_END not in content:
            raise ImageRefused(Reason.UNREADABLE, "the PNG file is truncated: its end marker is missing")
        check_complete(content, format_name, picture)
        orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
        deep = deep_png(content) if format_name == "PNG" and frame == 0 else None
        if deep is not None:
            pixels = upright(deep, orientation)
        else:
            turned = picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture
            turned.info = picture.info
            pixels = _stored_pixels(turned)
    return StoredImage(pixels, RASTER, bits=8 * pixels.dtype.itemsize)


def _stored_pixels(picture: Image.Image) -> StoredArray:
    if picture.mode in _DEEP_MODES:
        pixels: StoredArray = np.asarray(picture).astype(_DEEP_MODES[picture.mode])
        if isinstance(clear := picture.info.get("transparency"), int):
            pixels[pixels == clear] = 0
        return pixels
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
