"""Writers of small image files in their true formats, and the real ones that ship with pydicom."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom.data
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import compress
from pydicom.uid import UID

from embedstore.decoding.decode import DecodeJob, DecodeLimits, EncoderInput, decode
from embedstore.errors import ImageRefused, Reason
from embedstore.images.dicom_syntax import DeflatedImageFrame, EncapsulatedUncompressed, JPEGXLLossless
from embedstore.images.preprocess import PreprocessSpec

PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"
LIMITS = DecodeLimits()
_STAND_INS = {(len(syntax) + 1) // 2: syntax for syntax in (uid.JPEGLSLossless, uid.HTJ2K)}

LOSSLESS_SYNTAXES = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big-endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg-ls": uid.JPEGLSLossless,
    "jpeg-2000": uid.JPEG2000Lossless,
    "jpeg-lossless": uid.JPEGLosslessSV1,
    "jpeg-lossless-14": uid.JPEGLossless,
    "htj2k": uid.HTJ2KLossless,
    "htj2k-rpcl": uid.HTJ2KLosslessRPCL,
    "jpeg-xl": JPEGXLLossless,
    "deflated-frame": DeflatedImageFrame,
    "uncompressed": EncapsulatedUncompressed,
}


def pydicom_file(name: str) -> Path:
    """Return a file inside the installed pydicom; never one that it would fetch."""
    path = PYDICOM_FILES / name
    if not path.exists():
        pytest.skip(f"this pydicom does not ship {name}")
    return path


def picture_bytes(pixels: np.ndarray | Image.Image, format_name: str = "PNG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def dataset(
    pixels: np.ndarray, *, bits_stored: int | None = None, frames: int = 0, **elements: Any
) -> Dataset:
    """Return a data set around (h, w), (h, w, 3) or, with `frames`, (frames, h, w) pixels."""
    ds = Dataset()
    classes = {"CT": uid.CTImageStorage, "MR": uid.MRImageStorage}
    ds.SOPClassUID = classes.get(elements.get("Modality", ""), uid.SecondaryCaptureImageStorage)
    ds.SOPInstanceUID = "1.2.3"
    ds.PatientName = "Secret^Name"
    ds.Modality = "DX"
    if frames:
        ds.NumberOfFrames = frames
    shape = pixels.shape[1:] if frames else pixels.shape
    ds.Rows, ds.Columns = shape[:2]
    ds.SamplesPerPixel = 3 if len(shape) == 3 else 1
    ds.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    if len(shape) == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = bits_stored or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    content = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = content + b"\0" * (len(content) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
    return ds


def dicom_bytes(ds: Dataset, syntax: uid.UID = uid.ExplicitVRLittleEndian) -> bytes:
    """Write a native data set in any syntax that there is an encoder for."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    if syntax == uid.RLELossless:
        compress(ds, syntax)
    elif syntax in _ENCODERS:
        encapsulated(ds, [_ENCODERS[syntax](frame, ds.BitsStored) for frame in _frames(ds)])
    elif syntax == uid.ExplicitVRBigEndian and ds.BitsAllocated > 8:
        ds.PixelData = np.frombuffer(ds.PixelData, f"<u{ds.BitsAllocated // 8}").byteswap().tobytes()
    return _written(ds, syntax)


def _written(ds: Dataset, syntax: UID) -> bytes:
    # pydicom 3.0.2 writes no syntax that it does not know, so one of the same length stands in.
    stands_in = syntax if syntax.is_transfer_syntax else _STAND_INS[(len(syntax) + 1) // 2]
    ds.file_meta.TransferSyntaxUID = stands_in
    buffer = io.BytesIO()
    ds.save_as(
        buffer,
        enforce_file_format=True,
        implicit_vr=syntax == uid.ImplicitVRLittleEndian,
        little_endian=syntax != uid.ExplicitVRBigEndian,
    )
    written = stands_in.encode().ljust(2 * ((len(stands_in) + 1) // 2), b"\0")
    return buffer.getvalue().replace(written, syntax.encode().ljust(len(written), b"\0"), 1)


def encapsulated(ds: Dataset, frames: list[bytes]) -> Dataset:
    """Put encoded frames into a data set, in place."""
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return ds


def encoded_bytes(pixels: np.ndarray, syntax: UID, frame: bytes, **elements: Any) -> bytes:
    """Write one frame that was encoded elsewhere; `pixels` say what the header says."""
    return encapsulated_bytes(dataset(pixels, **elements), syntax, [frame])


def encapsulated_bytes(ds: Dataset, syntax: UID, frames: list[bytes]) -> bytes:
    """Write a data set with frames that were encoded elsewhere."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return _written(encapsulated(ds, frames), syntax)


def _frames(ds: Dataset) -> np.ndarray:
    kind = "i" if ds.PixelRepresentation else "u"
    values = np.frombuffer(ds.PixelData, f"<{kind}{ds.BitsAllocated // 8}")
    shape = (int(ds.get("NumberOfFrames", 1)), ds.Rows, ds.Columns, ds.SamplesPerPixel)
    frames = values[: np.prod(shape)].reshape(shape)
    return frames[..., 0] if ds.SamplesPerPixel == 1 else frames


def _words(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Return two's complement words of `bits` bits, as codecs without a sign are given them."""
    unsigned = pixels.view(pixels.dtype.str.replace("i", "u"))
    return unsigned & unsigned.dtype.type((1 << bits) - 1)


def _deflated(frame: np.ndarray, bits: int) -> bytes:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return deflater.compress(frame.tobytes()) + deflater.flush()


_ENCODERS: dict[UID, Callable[[np.ndarray, int], bytes]] = {
    EncapsulatedUncompressed: lambda frame, bits: frame.tobytes(),
    DeflatedImageFrame: _deflated,
    uid.JPEGLosslessSV1: lambda frame, bits: jpeg_lossless(frame, bits, predictor=1),
    uid.JPEGLossless: lambda frame, bits: jpeg_lossless(frame, bits, predictor=6),
    uid.JPEGLSLossless: lambda frame, bits: imagecodecs.jpegls_encode(_words(frame, bits)),
    uid.JPEG2000Lossless: lambda frame, bits: imagecodecs.jpeg2k_encode(
        frame, reversible=True, codecformat="j2k", bitspersample=bits
    ),
    uid.HTJ2KLossless: lambda frame, bits: imagecodecs.htj2k_encode(frame, reversible=True),
    uid.HTJ2KLosslessRPCL: lambda frame, bits: imagecodecs.htj2k_encode(
        frame, reversible=True, tlm=True, tilepart=1
    ),
    JPEGXLLossless: lambda frame, bits: imagecodecs.jpegxl_encode(
        _words(frame, bits), lossless=True, bitspersample=bits, usecontainer=False
    ),
}  # fmt: skip


def jpeg_lossless(
    pixels: np.ndarray,
    precision: int,
    *,
    predictor: int = 1,
    point_transform: int = 0,
    restart_rows: int = 0,
    modulo: int = 65536,
) -> bytes:
    """Encode pixels as JPEG lossless with the equations of ITU-T T.81 annex H; slow, and no library's.

    Parameters
    ----------
    pixels
        (rows, columns) or (rows, columns, components), coded together.
    precision
        Bits of a sample; words are cut to them.
    predictor
        Selection value of table H.1.
    point_transform
        Low bits that are dropped.
    restart_rows
        Rows between two restart markers, or 0 for none.
    modulo
        65,536 as in the standard, or 256 as some makers of 8-bit images have it.
    """
    values = (pixels.astype(np.int64) & ((1 << precision) - 1)) >> point_transform
    values = values[..., None] if values.ndim == 2 else values
    rows, columns, components = values.shape
    differences = np.empty_like(values)
    for row in range(rows):
        first = row % restart_rows == 0 if restart_rows else row == 0
        left = np.roll(values[row], 1, axis=0)
        up = values[row - 1] if row else left
        corner = np.roll(up, 1, axis=0)
        predicted = left if first else {
            1: left, 2: up, 3: corner, 4: left + up - corner, 5: left + ((up - corner) >> 1),
            6: up + ((left - corner) >> 1), 7: (left + up) >> 1,
        }[predictor].copy()  # fmt: skip
        predicted[0] = 1 << (precision - point_transform - 1) if first else up[0]
        differences[row] = (values[row] - predicted + modulo // 2) % modulo - modulo // 2
    rows_of_bits = ["".join(_lossless_symbol(d) for d in row.ravel().tolist()) for row in differences]
    step = restart_rows or rows
    intervals = ["".join(rows_of_bits[start : start + step]) for start in range(0, rows, step)]
    entropy = b""
    for number, bits in enumerate(intervals):
        padded = bits + "1" * (-len(bits) % 8)
        entropy += int(padded, 2).to_bytes(len(padded) // 8, "big").replace(b"\xff", b"\xff\0")
        if number < len(intervals) - 1:
            entropy += bytes([0xFF, 0xD0 + number % 8])
    described = b"".join(bytes([number + 1, 0x11, 0]) for number in range(components))
    chosen = b"".join(bytes([number + 1, 0]) for number in range(components))
    header = struct.pack(">HBHHB", 8 + 3 * components, precision, rows, columns, components)
    return b"".join([
        b"\xff\xd8",
        b"\xff\xc3" + header + described,
        b"\xff\xc4" + struct.pack(">HB16B", 19 + 17, 0, *([0] * 4 + [17] + [0] * 11)) + bytes(range(17)),
        b"\xff\xdd" + struct.pack(">HH", 4, restart_rows * columns) if restart_rows else b"",
        b"\xff\xda" + struct.pack(">HB", 6 + 2 * components, components) + chosen
        + bytes([predictor, 0, point_transform]),
        entropy,
        b"\xff\xd9",
    ])  # fmt: skip


def _lossless_symbol(difference: int) -> str:
    """Return the bits of one difference (annex H.1.2.2): 17 categories, all with codes of five bits."""
    category = abs(difference).bit_length()
    if category in {0, 16}:
        return f"{category:05b}"
    extra = difference if difference > 0 else difference + (1 << category) - 1
    return f"{category:05b}{extra:0{category}b}"


def png_with_size(width: int, height: int) -> bytes:
    """Return a PNG whose header claims any size, with a few bytes of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def decoded(
    content: bytes | Path, folder: Path, *, spec: PreprocessSpec | None = None, **job: Any
) -> EncoderInput:
    """Decode content through a file, as everything else does."""
    path = content
    if isinstance(content, bytes):
        path = folder / "image"
        path.write_bytes(content)
    limits = job.pop("limits", LIMITS)
    return decode(DecodeJob(str(path), **job), spec or PreprocessSpec(), limits)


def same_size(pixels: np.ndarray) -> PreprocessSpec:
    """Return the specification under which square pixels come out untouched."""
    return PreprocessSpec("pad", len(pixels))


def assert_refused(
    content: bytes | Path, folder: Path, reason: Reason, match: str | None = None, **job: Any
) -> None:
    with pytest.raises(ImageRefused, match=match) as refusal:
        decoded(content, folder, **job)
    assert refusal.value.reason is reason, refusal.value
    assert refusal.value.message.isprintable()
    assert "Secret" not in refusal.value.message


def sabotage(kind: str) -> bytes:
    """Return a file that looks like a PNG and does its worst in a process started by `sabotaged_main`."""
    return b"\x89PNG\r\n\x1a\n" + kind.encode().ljust(40) + bytes(200)


def sabotaged_main(settings: str) -> None:
    """Run a decoding process whose picture reader does what a `sabotage` file says, and logs each attempt."""
    from embedstore.decoding import decode as decode_module
    from embedstore.decoding import worker

    read_raster = decode_module.read_raster

    def crash_as_told(content: bytes, format_name: str, **options: Any) -> Any:
        words = content[8:48].decode("latin-1").split()
        if words and words[0] in _DEEDS:
            with Path("attempts").open("a") as log:
                log.write(" ".join(words) + "\n")
            _DEEDS[words[0]]()
        return read_raster(content, format_name, **options)

    decode_module.read_raster = crash_as_told
    worker.main(settings)


def _defect() -> None:
    raise ZeroDivisionError("a defect on purpose")


def _nonsense() -> None:
    for name in Path("/proc/self/fd").iterdir():
        if name.exists() and name.is_fifo():
            with contextlib.suppress(OSError):
                os.write(int(name.name), b'{"slot": 0, "shape": [9999, 9999], "sha256": ""}\n')
    time.sleep(60)


_DEEDS: dict[str, Callable[[], Any]] = {
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(3),
    "hang": lambda: time.sleep(600),
    "spin": lambda: [None for _ in iter(int, 1)],
    "allocate": lambda: bytearray(8 << 30),
    "defect": _defect,
    "nonsense": _nonsense,
    "slow": lambda: time.sleep(0.2),
}
