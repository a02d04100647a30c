"""One image in every transfer syntax: words and a header -> a DICOM file."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder

from tests.image_files import jpeg_lossless

UIDS = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg-ls": uid.JPEGLSLossless,
    "jpeg-ls near": uid.JPEGLSNearLossless,
    "jpeg lossless": uid.JPEGLosslessSV1,
    "jpeg lossless 14": uid.JPEGLossless,
    "jpeg baseline": uid.JPEGBaseline8Bit,
    "jpeg extended": uid.JPEGExtended12Bit,
    "jpeg 2000": uid.JPEG2000Lossless,
    "htj2k": uid.HTJ2KLossless,
    # Of the standard since 2024; pydicom 3.0.2 does not know them.
    "jpeg xl": uid.UID("1.2.840.10008.1.2.4.110"),
    "deflated frame": uid.UID("1.2.840.10008.1.2.8.1"),
    "encapsulated": uid.UID("1.2.840.10008.1.2.1.98"),
}
NATIVE = ("implicit", "explicit", "big endian", "deflated")
_STAND_INS = {22: uid.JPEGLSLossless, 24: uid.HTJ2K}


def dicom_file(header: Dataset, words: np.ndarray, syntax: str, *, value_bits: int | None = None) -> bytes:
    """Write frames as a DICOM file.

    Parameters
    ----------
    header
        All but the pixels.
    words
        (frames, h, w[, 3]) unsigned words of BitsAllocated.
    syntax
        A key of `UIDS`.
    value_bits
        Lowest bits of a word that a codestream keeps, or None for the whole word.
    """
    written = Dataset(header)
    if syntax in NATIVE:
        order = ">" if syntax == "big endian" else "<"
        planar = header.get("PlanarConfiguration") == 1
        content = (np.moveaxis(words, -1, 1) if planar else words).astype(words.dtype.newbyteorder(order))
        written.PixelData = content.tobytes() + b"\0" * (content.nbytes % 2)
        written["PixelData"].VR = "OW" if header.BitsAllocated > 8 or syntax == "implicit" else "OB"
    else:
        bits = value_bits or header.BitsAllocated
        signed = header.PixelRepresentation == 1
        written.PixelData = encapsulate([_encoded(frame, syntax, bits, signed=signed) for frame in words])
        written["PixelData"].VR = "OB"
        written["PixelData"].is_undefined_length = True
    syntax_uid = UIDS[syntax]
    length = len(syntax_uid) + len(syntax_uid) % 2
    stand_in = syntax_uid if syntax_uid.is_transfer_syntax else _STAND_INS[length]
    written.file_meta = FileMetaDataset()
    written.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    written.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    written.file_meta.TransferSyntaxUID = stand_in
    buffer = io.BytesIO()
    written.save_as(
        buffer,
        enforce_file_format=True,
        implicit_vr=syntax == "implicit",
        little_endian=syntax != "big endian",
    )
    # pydicom writes no syntax that it does not know, so one of the same length stood in.
    names = (name.encode().ljust(length, b"\0") for name in (stand_in, syntax_uid))
    return buffer.getvalue().replace(*names, 1)


def _encoded(words: np.ndarray, syntax: str, bits: int, *, signed: bool) -> bytes:
    kept = words if syntax in _WHOLE_WORDS else words & words.dtype.type((1 << bits) - 1)
    if signed and syntax in _SIGNED:
        wide = kept.astype(np.int64)
        kept = np.where(wide >> (bits - 1), wide - (1 << bits), wide).astype(f"<i{words.dtype.itemsize}")
    return _ENCODERS[syntax](kept, bits)


def _deflated(frame: np.ndarray, bits: int) -> bytes:
    del bits
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return deflater.compress(frame.tobytes()) + deflater.flush()


def _rle(frame: np.ndarray, bits: int) -> bytes:
    del bits
    # The encoder of pydicom wants to be told what it sees in the array.
    return RLELosslessEncoder.encode(
        frame, rows=frame.shape[0], columns=frame.shape[1], number_of_frames=1, bits_allocated=8 * frame.dtype.itemsize,
        bits_stored=8 * frame.dtype.itemsize, pixel_representation=0, samples_per_pixel=1 if frame.ndim == 2 else 3,
        photometric_interpretation="MONOCHROME2" if frame.ndim == 2 else "RGB", planar_configuration=0,
    )  # fmt: skip


_WHOLE_WORDS = ("rle", "deflated frame", "encapsulated")
_SIGNED = ("jpeg 2000", "htj2k")  # these streams say themselves that samples have a sign
_ENCODERS: dict[str, Callable[[np.ndarray, int], bytes]] = {
    "rle": _rle,
    "deflated frame": _deflated,
    "encapsulated": lambda frame, bits: frame.tobytes(),
    "jpeg-ls": lambda frame, bits: imagecodecs.jpegls_encode(frame),
    "jpeg-ls near": lambda frame, bits: imagecodecs.jpegls_encode(frame, level=2),
    "jpeg lossless": lambda frame, bits: jpeg_lossless(frame, bits)
    if frame.ndim == 2
    else imagecodecs.jpeg8_encode(frame, lossless=True, predictor=1, colorspace="rgb", outcolorspace="rgb"),
    "jpeg lossless 14": lambda frame, bits: imagecodecs.jpeg8_encode(
        frame, lossless=True, predictor=5, bitspersample=bits,
        **({"colorspace": "rgb", "outcolorspace": "rgb"} if frame.ndim == 3 else {}),
    ),
    "jpeg baseline": lambda frame, bits: imagecodecs.jpeg8_encode(
        frame, level=95, **({"outcolorspace": "ycbcr", "subsampling": "422"} if frame.ndim == 3 else {})
    ),
    "jpeg extended": lambda frame, bits: imagecodecs.jpeg8_encode(frame, level=95, bitspersample=12),
    "jpeg 2000": lambda frame, bits: imagecodecs.jpeg2k_encode(
        frame, reversible=True, codecformat="j2k", bitspersample=bits, mct=False
    ),
    "htj2k": lambda frame, bits: imagecodecs.htj2k_encode(frame, reversible=True, rgb=False),
    "jpeg xl": lambda frame, bits: imagecodecs.jpegxl_encode(
        frame, lossless=True, bitspersample=bits, usecontainer=False
    ),
}  # fmt: skip
