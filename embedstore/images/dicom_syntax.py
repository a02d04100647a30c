"""Which codec decodes which transfer syntax: chosen here, never by what happens to be installed.

GDCM is never used: it has an open vulnerability and pydicom would pick it up silently.
"""

from __future__ import annotations

from enum import Enum

from pydicom import uid

from embedstore.errors import ImageRefused, Reason


class Codec(Enum):
    """What is done to the bytes of a frame."""

    NATIVE = "native"  # not encapsulated: pydicom reads it
    UNCOMPRESSED = "encapsulated uncompressed"
    DEFLATED = "deflated"
    RLE = "rle"
    JPEG = "jpeg"
    JPEG_LS = "jpeg-ls"
    JPEG_2000 = "jpeg-2000"
    JPEG_XL = "jpeg-xl"
    RECOMPRESSED_JPEG = "jpeg in jpeg-xl"


# Of the standard since 2024 and later than pydicom 3.0.2 (PS3.6 table A-1).
_LATER_NAMES = {
    uid.UID("1.2.840.10008.1.2.1.98"): "Encapsulated Uncompressed Explicit VR Little Endian",
    uid.UID("1.2.840.10008.1.2.4.110"): "JPEG XL Lossless",
    uid.UID("1.2.840.10008.1.2.4.111"): "JPEG XL JPEG Recompression",
    uid.UID("1.2.840.10008.1.2.4.112"): "JPEG XL",
    uid.UID("1.2.840.10008.1.2.8.1"): "Deflated Image Frame Compression",
}
EncapsulatedUncompressed, JPEGXLLossless, JPEGXLRecompression, JPEGXL, DeflatedImageFrame = _LATER_NAMES

CODECS: dict[uid.UID, Codec] = {
    uid.ImplicitVRLittleEndian: Codec.NATIVE,
    uid.ExplicitVRLittleEndian: Codec.NATIVE,
    uid.ExplicitVRBigEndian: Codec.NATIVE,
    uid.DeflatedExplicitVRLittleEndian: Codec.NATIVE,
    EncapsulatedUncompressed: Codec.UNCOMPRESSED,
    DeflatedImageFrame: Codec.DEFLATED,
    uid.RLELossless: Codec.RLE,
    uid.JPEGBaseline8Bit: Codec.JPEG,
    uid.JPEGExtended12Bit: Codec.JPEG,
    uid.JPEGLossless: Codec.JPEG,
    uid.JPEGLosslessSV1: Codec.JPEG,
    uid.JPEGLSLossless: Codec.JPEG_LS,
    uid.JPEGLSNearLossless: Codec.JPEG_LS,
    uid.JPEG2000Lossless: Codec.JPEG_2000,
    uid.JPEG2000: Codec.JPEG_2000,
    uid.HTJ2KLossless: Codec.JPEG_2000,
    uid.HTJ2KLosslessRPCL: Codec.JPEG_2000,
    uid.HTJ2K: Codec.JPEG_2000,
    JPEGXLLossless: Codec.JPEG_XL,
    JPEGXLRecompression: Codec.RECOMPRESSED_JPEG,
    JPEGXL: Codec.JPEG_XL,
}


def codec_for(syntax: uid.UID) -> Codec:
    """Return the codec of a transfer syntax.

    Raises
    ------
    ImageRefused
        With ``unsupported`` if there is none.
    """
    codec = CODECS.get(syntax)
    if codec is None:
        raise ImageRefused(Reason.UNSUPPORTED, f"no codec for the transfer syntax {syntax_name(syntax)}")
    return codec


def syntax_name(syntax: uid.UID) -> str:
    """Return name and UID of a transfer syntax, for people."""
    name = _LATER_NAMES.get(syntax, syntax.name)
    # An unregistered UID is what the file says, so it is cut to the 64 characters a UID may have.
    return f"{name} ({syntax})" if name != syntax else repr(str(syntax)[:64])
