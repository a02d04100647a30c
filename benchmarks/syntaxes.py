"""How long one DICOM file of 2,500 x 2,048 pixels of 12 bits takes to decode, in every transfer syntax.

Each time stands beside that of pydicom's own handler for the syntax, where one is installed (its name is said), else
beside dcmtk's tool, whose process start and output file count in. CPU time of one thread, best of several, taken in
turns in one run: decoding processes have one thread each. `decode.py` prints the rows.
"""

from __future__ import annotations

import io
import resource
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders import RLELosslessEncoder

from embedstore.images.dicom import open_dicom
from embedstore.images.dicom_syntax import (
    DeflatedImageFrame,
    EncapsulatedUncompressed,
    JPEGXLLossless,
    JPEGXLRecompression,
)
from embedstore.images.hostile import open_regular

SHAPE, BITS = (2500, 2048), 12
_DCMTK = {"JPEG": "dcmdjpeg", "JPEG-LS": "dcmdjpls", "RLE": "dcmdrle"}
# pydicom 3.0.2 writes no syntax that it does not know, so one whose UID is as long stands in.
_STAND_INS = {
    EncapsulatedUncompressed: uid.JPEGLSLossless,
    DeflatedImageFrame: uid.JPEGLSLossless,
    JPEGXLLossless: uid.HTJ2K,
    JPEGXLRecompression: uid.HTJ2K,
}


def measurements(folder: Path, repeats: int) -> Iterator[dict[str, object]]:
    """Yield the rows: milliseconds, those of the other handler, and how many times faster."""
    pixels = picture()
    for name, syntax, frame in encoded(pixels):
        eight = syntax in {uid.JPEGBaseline8Bit, JPEGXLRecompression}
        path = folder / "frame.dcm"
        path.write_bytes(file_of(frame, syntax, bits=8 if eight else BITS))
        other, theirs = other_handler(name, syntax, path)
        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(repeats):
            times["ours"].append(cpu_ms(lambda path=path: ours(path)))
            if theirs:
                times["theirs"].append(cpu_ms(theirs))
        best = min(times["ours"])
        ratio = min(times["theirs"]) / best if theirs else None
        yield {
            "syntax": name,
            "ms": best,
            "beside": other,
            "its ms": min(times["theirs"], default=None),
            "times": ratio,
        }


def picture() -> np.ndarray:
    """Return smooth shapes with a little noise, 12 bits."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.random((12, 12), dtype=np.float32))
    smooth = np.asarray(coarse.resize(SHAPE[::-1], Image.Resampling.BICUBIC))
    return (np.clip(smooth + rng.normal(0, 0.005, SHAPE), 0, 1) * 4095).astype(np.uint16)


def encoded(pixels: np.ndarray) -> Iterator[tuple[str, uid.UID, bytes]]:
    """Yield name, syntax and codestream, one after the other."""
    eight = (pixels >> 4).astype(np.uint8)
    jpeg = imagecodecs.jpeg8_encode(eight, 90)
    deflater = zlib.compressobj(6, wbits=-zlib.MAX_WBITS)
    yield "Encapsulated Uncompressed", EncapsulatedUncompressed, pixels.tobytes()
    yield "Deflated Image Frame", DeflatedImageFrame, deflater.compress(pixels.tobytes()) + deflater.flush()
    yield "RLE", uid.RLELossless, run_length_encoded(pixels)
    yield "JPEG, 8 bits", uid.JPEGBaseline8Bit, jpeg
    yield "JPEG, 12 bits", uid.JPEGExtended12Bit, imagecodecs.jpeg8_encode(pixels, 90, bitspersample=BITS)
    for selection, syntax in ((1, uid.JPEGLosslessSV1), (6, uid.JPEGLossless)):
        stream = imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=selection, bitspersample=BITS)
        yield f"JPEG Lossless, predictor {selection}", syntax, stream
    yield "JPEG-LS", uid.JPEGLSLossless, imagecodecs.jpegls_encode(pixels)
    lossless = {"codecformat": "j2k", "reversible": True, "bitspersample": BITS}
    yield "JPEG 2000", uid.JPEG2000Lossless, imagecodecs.jpeg2k_encode(pixels, **lossless)
    yield "HTJ2K", uid.HTJ2KLossless, imagecodecs.htj2k_encode(pixels, reversible=True)
    options = {"lossless": True, "bitspersample": BITS, "effort": 3, "usecontainer": False}
    yield "JPEG XL", JPEGXLLossless, imagecodecs.jpegxl_encode(pixels, **options)
    yield "JPEG XL of a JPEG, 8 bits", JPEGXLRecompression, imagecodecs.jpegxl_encode_jpeg(jpeg)


def run_length_encoded(pixels: np.ndarray) -> bytes:
    """Return one RLE frame by pydicom."""
    return RLELosslessEncoder.encode(
        pixels, rows=SHAPE[0], columns=SHAPE[1], samples_per_pixel=1, bits_allocated=16, bits_stored=BITS,
        pixel_representation=0, photometric_interpretation="MONOCHROME2", number_of_frames=1,
        encoding_plugin="pydicom",
    )  # fmt: skip


def file_of(frame: bytes, syntax: uid.UID, *, bits: int) -> bytes:
    """Return a DICOM file with one encapsulated frame."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    stands_in = _STAND_INS.get(syntax, syntax)
    ds.file_meta.TransferSyntaxUID = stands_in
    ds.SOPClassUID, ds.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    ds.Modality, ds.SamplesPerPixel, ds.PhotometricInterpretation = "DX", 1, "MONOCHROME2"
    ds.Rows, ds.Columns = SHAPE
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = (
        8 if bits == 8 else 16,
        bits,
        bits - 1,
        0,
    )
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    padded = stands_in + "\0" * (len(stands_in) % 2)
    return buffer.getvalue().replace(padded.encode(), syntax.ljust(len(padded), "\0").encode(), 1)


def ours(path: Path) -> np.ndarray:
    """Return the stored pixels as extraction reads them."""
    with open_regular(str(path), max_bytes=1 << 30) as file:
        source = open_dicom(file, max_pixels=10**8, max_frames=1, max_inflated_bytes=1 << 30)
        return source.read(0).pixels


def other_handler(name: str, syntax: uid.UID, path: Path) -> tuple[str, Callable[[], object] | None]:
    """Return who else decodes this file, and the call that does it."""
    if syntax not in _STAND_INS:
        decoder = get_decoder(syntax)
        for plugin in sorted(decoder.available_plugins, key=lambda plugin: plugin in {"pydicom", "pillow"}):
            if plugin == "gdcm":
                continue

            def by_pydicom(plugin: str = plugin) -> object:
                return decoder.as_array(pydicom.dcmread(path), index=0, decoding_plugin=plugin)

            try:
                by_pydicom()
            except Exception:  # noqa: BLE001 - a handler that cannot read the file is no rival
                continue
            return f"pydicom, {plugin}", by_pydicom
    tool = next((tool for kind, tool in _DCMTK.items() if name.startswith(kind)), None)
    if tool and shutil.which(tool) and syntax not in _STAND_INS:
        return f"dcmtk, {tool}", lambda: subprocess.run([tool, path, path.with_suffix(".out")], check=True)
    return "", None


def cpu_ms(work: Callable[[], object]) -> float:
    """Return the CPU time that `work` takes here and in processes that it starts and waits for."""

    def spent() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    started = spent()
    work()
    return 1000 * (spent() - started)
