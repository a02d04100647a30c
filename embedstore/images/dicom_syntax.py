"""Which codec decodes which transfer syntax: chosen here, never by what happens to be installed.

GDCM is never used: it has an open vulnerability and pydicom would pick it up silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from pydicom import uid

from embedstore.errors import ImageRefused, Reason

INSTALL_GPL = 'pip install "embedstore[dicom-gpl]"'


@dataclass(frozen=True)
class Codec:
    """A decoding plugin of pydicom and the kind of codestream that it reads.

    Parameters
    ----------
    plugin
        The name that pydicom knows it by; empty for uncompressed pixels, which pydicom reads itself.
    kind
        ``native``, ``jpeg``, ``jpeg-ls``, ``jpeg-2000`` or ``rle``.
    """

    plugin: str
    kind: str


_NATIVE = Codec("", "native")
_JPEG = Codec("pillow", "jpeg")
_JPEG_GPL = Codec("pylibjpeg", "jpeg")
_JPEG_LS = Codec("pyjpegls", "jpeg-ls")
_JPEG_2000 = Codec("pylibjpeg", "jpeg-2000")

CODECS: dict[uid.UID, Codec] = {
    uid.ImplicitVRLittleEndian: _NATIVE,
    uid.ExplicitVRLittleEndian: _NATIVE,
    uid.ExplicitVRBigEndian: _NATIVE,
    uid.DeflatedExplicitVRLittleEndian: _NATIVE,
    uid.RLELossless: Codec("pydicom", "rle"),
    uid.JPEGBaseline8Bit: _JPEG,
    uid.JPEGExtended12Bit: _JPEG_GPL,
    uid.JPEGLossless: _JPEG_GPL,
    uid.JPEGLosslessSV1: _JPEG_GPL,
    uid.JPEGLSLossless: _JPEG_LS,
    uid.JPEGLSNearLossless: _JPEG_LS,
    uid.JPEG2000Lossless: _JPEG_2000,
    uid.JPEG2000: _JPEG_2000,
    uid.HTJ2KLossless: _JPEG_2000,
    uid.HTJ2KLosslessRPCL: _JPEG_2000,
    uid.HTJ2K: _JPEG_2000,
}


def codec_for(syntax: uid.UID, *, bits_stored: int) -> Codec:
    """Return the codec of a transfer syntax.

    Parameters
    ----------
    syntax
        Transfer syntax.
    bits_stored
        BitsStored of the header: extended JPEG of 8 bits is read like baseline, of 12 bits by the GPL codec.

    Raises
    ------
    ImageRefused
        With ``unsupported`` if there is none, or the one there is needs an optional library that is absent.
    """
    codec = CODECS.get(syntax)
    if syntax == uid.JPEGExtended12Bit and bits_stored == 8:
        return _JPEG
    if codec is None:
        raise ImageRefused(Reason.UNSUPPORTED, f"no codec for the transfer syntax {_name(syntax)}")
    if codec is _JPEG_GPL and not has_gpl_codec():
        raise ImageRefused(Reason.UNSUPPORTED, f"{_name(syntax)} needs a GPL-licensed codec: {INSTALL_GPL}")
    return codec


def has_gpl_codec() -> bool:
    """Return whether the optional pylibjpeg-libjpeg is installed."""
    return find_spec("libjpeg") is not None


def _name(syntax: uid.UID) -> str:
    # An unregistered UID is what the file says, so it is cut to the 64 characters a UID may have.
    return f"{syntax.name} ({syntax})" if syntax.name != syntax else repr(str(syntax)[:64])
