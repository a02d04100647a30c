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

import numpy as np
import pydicom.data
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import compress

from embedstore.decoding.decode import DecodeJob, DecodeLimits, EncoderInput, decode
from embedstore.errors import ImageRefused, Reason
from embedstore.images.preprocess import PreprocessSpec

PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"
LIMITS = DecodeLimits()

LOSSLESS_SYNTAXES = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big-endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg-ls": uid.JPEGLSLossless,
    "jpeg-2000": uid.JPEG2000Lossless,
    "jpeg-lossless": uid.JPEGLosslessSV1,
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
    if syntax == uid.JPEGLosslessSV1:
        kind = "i" if ds.PixelRepresentation else "u"
        pixels = np.frombuffer(ds.PixelData, f"<{kind}{ds.BitsAllocated // 8}")
        pixels = pixels[: ds.Rows * ds.Columns].reshape(ds.Rows, ds.Columns)
        ds.PixelData = encapsulate([jpeg_lossless(pixels, ds.BitsStored)])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
    elif syntax.is_encapsulated:
        compress(ds, syntax)
    elif syntax == uid.ExplicitVRBigEndian and ds.BitsAllocated > 8:
        ds.PixelData = np.frombuffer(ds.PixelData, f"<u{ds.BitsAllocated // 8}").byteswap().tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    ds.save_as(
        buffer,
        enforce_file_format=True,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
    )
    return buffer.getvalue()


def jpeg_lossless(pixels: np.ndarray, precision: int) -> bytes:
    """Encode grey pixels as JPEG lossless, first-order prediction (ITU-T T.81 annex H): no library writes it."""
    values = pixels.astype(np.int64) & ((1 << precision) - 1)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << (precision - 1)
    bits = []
    for difference in ((values - predicted + 32768) % 65536 - 32768).ravel().tolist():
        category = abs(difference).bit_length()
        bits.append(f"{category:05b}")  # 17 categories, all with codes of five bits
        if 0 < category < 16:
            extra = difference if difference > 0 else difference + (1 << category) - 1
            bits.append(f"{extra:0{category}b}")
    stream = "".join(bits)
    stream += "1" * (-len(stream) % 8)
    entropy = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\0")
    rows, columns = pixels.shape
    return b"".join([
        b"\xff\xd8",
        b"\xff\xc3" + struct.pack(">HBHHB3B", 11, precision, rows, columns, 1, 1, 0x11, 0),
        b"\xff\xc4" + struct.pack(">HB16B", 19 + 17, 0, *([0] * 4 + [17] + [0] * 11)) + bytes(range(17)),
        b"\xff\xda" + struct.pack(">HB2B3B", 8, 1, 1, 0, 1, 0, 0),
        entropy,
        b"\xff\xd9",
    ])  # fmt: skip


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
