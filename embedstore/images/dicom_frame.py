"""One encapsulated frame of a DICOM file -> its stored values as the codestream has them, colour as RGB.

Bits above BitsStored are still there: they are no matter of the codec.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space

from embedstore.codecs.deflated import decode_rle, inflate_frame
from embedstore.codecs.frame_size import Samples, truncated
from embedstore.codecs.jpeg import decode_jpeg
from embedstore.codecs.jpeg2000 import decode_jpeg2000, jpeg2000_size
from embedstore.codecs.jpeg_stream import LOSSLESS, JpegStream, read_jpeg
from embedstore.codecs.jpegls import decode_jpegls
from embedstore.codecs.jpegxl import decode_jpegxl, jpegxl_size, recompressed_jpeg
from embedstore.errors import ImageRefused, Reason
from embedstore.images.dicom_syntax import Codec

_YBR = ("YBR_FULL", "YBR_FULL_422")


def decode_frame(content: bytes, codec: Codec, options: dict[str, Any]) -> tuple[Samples, int | None]:
    """Decode one frame, its size checked against the header before.

    Parameters
    ----------
    content
        The bytes of all fragments of the frame.
    codec
        Of the transfer syntax; not `Codec.NATIVE`.
    options
        The Image Pixel module as `pydicom.pixels` wants it.

    Returns
    -------
    words
        (rows, columns) of the sign that PixelRepresentation says, or (rows, columns, 3) RGB.
    precision
        Bits of a sample in the codestream; None where whole words of BitsAllocated are coded.

    Raises
    ------
    ImageRefused
        ``unreadable`` for a frame of another size than the header's or one that lacks samples,
        ``unsupported`` for a colour space without a conversion.
    """
    shape = {
        "rows": options["rows"],
        "columns": options["columns"],
        "components": options["samples_per_pixel"],
    }
    signed = options.get("pixel_representation") == 1
    photometric = str(options.get("photometric_interpretation"))
    if codec is Codec.RECOMPRESSED_JPEG:
        jpegxl_size(content).require(**shape)
        content, codec = recompressed_jpeg(content), Codec.JPEG
    precision: int | None = None
    match codec:
        case Codec.UNCOMPRESSED | Codec.DEFLATED:
            return _native(content, codec, options), None
        case Codec.RLE:
            pixels = _run_length_encoded(content, options)
        case Codec.JPEG | Codec.JPEG_LS:
            stream = read_jpeg(content)
            stream.size.require(**shape)
            pixels = decode_jpeg(content, stream) if codec is Codec.JPEG else decode_jpegls(content, stream)
            precision = stream.size.precision
            photometric = _colour_space(stream, photometric)
        case Codec.JPEG_2000:
            size = jpeg2000_size(content)
            size.require(**shape)
            pixels, precision = decode_jpeg2000(content), size.precision
            photometric = "RGB" if photometric in {"YBR_RCT", "YBR_ICT"} else photometric
        case _:
            size = jpegxl_size(content)
            size.require(**shape)
            pixels, precision = decode_jpegxl(content), size.precision
            photometric = "RGB"  # libjxl returns RGB whatever the stream has inside, XYB included
    if pixels.ndim == 3:
        return _coloured(pixels, photometric), precision
    return _of_sign(pixels, precision, signed=signed), precision


def _native(content: bytes, codec: Codec, options: dict[str, Any]) -> Samples:
    """Read a frame whose bytes are those of native pixels (PS3.5 A.4.11, A.4.13): padded to whole bytes each."""
    samples = 2 if options["photometric_interpretation"] == "YBR_FULL_422" else options["samples_per_pixel"]
    length = (options["rows"] * options["columns"] * samples * options["bits_allocated"] + 7) // 8
    if codec is Codec.DEFLATED:
        content = inflate_frame(content, length)
    elif not length <= len(content) <= length + length % 2:
        raise truncated("uncompressed", f"a frame must have {length:,} bytes; found {len(content):,}")
    decoder = get_decoder(uid.ExplicitVRLittleEndian)
    alone = options | {"number_of_frames": 1, "extended_offsets": None}
    pixels, found = decoder.as_array(content[:length] + b"\0" * (length % 2), index=0, **alone)
    return _coloured(pixels, str(found["photometric_interpretation"])) if pixels.ndim == 3 else pixels


def _run_length_encoded(content: bytes, options: dict[str, Any]) -> Samples:
    rows, columns, samples = options["rows"], options["columns"], options["samples_per_pixel"]
    bits = options["bits_allocated"]
    # PackBits grows by one byte in 128 at worst; a longer frame is made to inflate.
    if len(content) > 2 * rows * columns * samples * bits // 8 + 1024:
        raise ImageRefused(Reason.UNREADABLE, "the RLE frame is longer than its pixels")
    try:
        dtype = np.dtype(f"<u{bits // 8}")
        return decode_rle(content, rows=rows, columns=columns, samples=samples, dtype=dtype)
    except RuntimeError:  # more padding behind a segment than the standard asks for: pydicom cuts it off
        alone = options | {"number_of_frames": 1, "extended_offsets": None, "correct_unused_bits": False}
        decoder = get_decoder(uid.RLELossless)
        pixels, _ = decoder.as_array(
            encapsulate([content]), index=0, raw=True, decoding_plugin="pydicom", **alone
        )
        return pixels


def _colour_space(stream: JpegStream, photometric: str) -> str:
    """Return what the components are: the stream's own word, where it has one, before the header's."""
    if stream.size.components != 3 or photometric not in {*_YBR, "RGB"}:
        return photometric
    if stream.has_rgb_ids or stream.adobe_transform == 1:
        return "RGB"
    # JFIF is YCbCr by definition, but lossless JPEG has no transform, and encoders write JFIF nonetheless.
    return "YBR_FULL" if stream.jfif and stream.process != LOSSLESS else photometric


def _of_sign(pixels: Samples, precision: int | None, *, signed: bool) -> Samples:
    """Return samples of `precision` bits as the signed or unsigned numbers that they stand for.

    JPEG, JPEG-LS and JPEG XL know no sign, and JPEG 2000 has its own, which may differ from the header's.
    """
    if (pixels.dtype.kind == "i") == signed:
        return pixels
    unsigned = pixels.view(f"u{pixels.dtype.itemsize}")
    spare = 8 * unsigned.dtype.itemsize - (precision or 8 * unsigned.dtype.itemsize)
    words = unsigned << spare if spare else unsigned
    if signed:
        return words.view(f"i{words.dtype.itemsize}") >> spare
    return words >> spare


def _coloured(pixels: Samples, photometric: str) -> Samples:
    if photometric == "RGB":
        return pixels
    if photometric not in _YBR or pixels.dtype != np.uint8:
        raise ImageRefused(
            Reason.UNSUPPORTED, f"{photometric[:16]} of {pixels.dtype} has no conversion to RGB"
        )
    return convert_color_space(pixels, "YBR_FULL", "RGB")
