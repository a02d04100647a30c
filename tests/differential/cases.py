"""DICOM files over what headers may say of pixels: a row of levels -> a file, its native twin, the true values."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder

from tests.differential.lookup_tables import add_modality, add_palette, add_voi
from tests.image_files import jpeg_lossless

ROWS, COLUMNS = 24, 20
FACTORS: dict[str, tuple[object, ...]] = {
    "allocated": (8, 16, 32),
    "stored": ("all", "three quarters", "five eighths"),
    "high bit": ("stored - 1", "allocated - 1"),
    "signed": (False, True),
    "photometric": ("MONOCHROME2", "MONOCHROME1", "PALETTE COLOR", "RGB", "YBR_FULL"),
    "syntax": (
        "implicit", "explicit", "big endian", "deflated", "rle", "jpeg-ls", "jpeg-ls near", "jpeg lossless",
        "jpeg lossless 14", "jpeg baseline", "jpeg extended", "jpeg 2000", "htj2k", "jpeg xl", "deflated frame",
        "encapsulated",
    ),
    "padding": ("none", "value", "range"),
    "overlay": ("none", "in the words", "apart"),
    "modality lut": ("none", "rescale", "rescale below 0", "table"),
    "voi": ("none", "linear", "linear exact", "sigmoid", "table", "width 0"),
    "shape": ("none", "IDENTITY", "INVERSE"),
    "frames": (1, 3),
    "aspect": ("1:1", "2:1", "spacing 1:3"),
}  # fmt: skip
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
DCT = ("jpeg baseline", "jpeg extended")
LOSSY = (*DCT, "jpeg-ls near")
# dcmtk 3.6.7 knows none of these; it renders the native twin, whose pixels are the same.
UNKNOWN_TO_DCMTK = ("jpeg 2000", "htj2k", "jpeg xl", "deflated frame", "encapsulated")
_OF_16_BITS = ("jpeg-ls", "jpeg-ls near", "jpeg lossless", "jpeg lossless 14", "jpeg 2000", "htj2k", "jpeg xl")
_COLOUR = ("RGB", "YBR_FULL")
_STAND_INS = {22: uid.JPEGLSLossless, 24: uid.HTJ2K}


def made_possible(row: Mapping[str, object]) -> dict[str, object]:
    """Return the nearest row that a file can have: levels that contradict each other are replaced."""
    made = dict(row)
    if made["syntax"] == "jpeg baseline":
        made |= {"allocated": 8, "stored": "all", "signed": False}
    if made["syntax"] == "jpeg extended":
        made |= {"allocated": 16, "stored": "three quarters", "signed": False}
    if made["syntax"] in LOSSY:
        made |= {"padding": "none", "high bit": "stored - 1", "signed": False}
        made["overlay"] = "apart" if made["overlay"] == "in the words" else made["overlay"]
        if made["photometric"] not in ("MONOCHROME1", "MONOCHROME2"):
            made["photometric"] = "MONOCHROME2"
    if made["photometric"] in (*_COLOUR, "PALETTE COLOR"):
        made |= {"signed": False, "padding": "none", "modality lut": "none", "voi": "none", "shape": "none"}
        made["allocated"] = 16 if made["allocated"] == 32 else made["allocated"]
    if made["photometric"] in _COLOUR:
        made |= {"allocated": 8, "stored": "all", "high bit": "stored - 1"}
        if made["photometric"] == "YBR_FULL" and made["syntax"] not in (*NATIVE, "rle"):
            made["photometric"] = "RGB"
    if made["allocated"] == 32:
        if made["syntax"] in (*_OF_16_BITS, "big endian", "rle"):
            made["allocated"] = 16
        else:
            made["modality lut"] = "none" if made["modality lut"] == "table" else made["modality lut"]
            made["voi"] = "linear" if made["voi"] == "table" else made["voi"]
    if made["stored"] == "all":
        made["high bit"] = "stored - 1"
        made["overlay"] = "apart" if made["overlay"] == "in the words" else made["overlay"]
    if made["overlay"] == "in the words" and made["photometric"] == "PALETTE COLOR":
        made["overlay"] = "apart"
    return made


@dataclass(frozen=True, eq=False)
class Case:
    """A file and what is true of it.

    Parameters
    ----------
    number
        Of the row.
    row
        Its levels.
    content, twin
        The file, and the same image natively with an explicit VR.
    padding
        (frames, h, w) bool.
    """

    number: int
    row: Mapping[str, object]
    content: bytes
    twin: bytes
    padding: np.ndarray

    @property
    def frames(self) -> int:
        return int(str(self.row["frames"]))

    @property
    def is_colour(self) -> bool:
        return self.row["photometric"] in (*_COLOUR, "PALETTE COLOR")

    def dcmtk_options(self) -> Sequence[str]:
        """How dcmtk is asked for the first window or table; what means nothing is left out."""
        return {"table": ("+Wl", "1"), "none": ("-W",), "width 0": ("-W",)}.get(str(self.row["voi"]), ("+Wi", "1"))

    def dcmtk_program(self) -> str:
        syntax = str(self.row["syntax"])
        if syntax in UNKNOWN_TO_DCMTK or syntax in (*NATIVE, "rle"):
            return "dcm2pnm"
        return "dcml2pnm" if syntax.startswith("jpeg-ls") else "dcmj2pnm"

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write the file and, where dcmtk cannot read it, its twin; return what we and what dcmtk read."""
        path = folder / f"{self.number}.dcm"
        path.write_bytes(self.content)
        if self.row["syntax"] not in UNKNOWN_TO_DCMTK:
            return path, path
        twin = folder / f"{self.number}-twin.dcm"
        twin.write_bytes(self.twin)
        return path, twin

    def __str__(self) -> str:
        return f"{self.number}: " + ", ".join(f"{name} {level}" for name, level in self.row.items())


def make_case(number: int, row: Mapping[str, object], *, seed: int) -> Case:
    """Draw an image for a row and write it down."""
    rng = np.random.default_rng([seed, number])
    header = _header(row)
    values, padding = _values(header, row, rng)
    words = _words(values, header, row)
    if row["overlay"] != "none":
        words = _with_overlay(header, words, row, rng)
    if row["photometric"] == "PALETTE COLOR":
        add_palette(header, row, rng)
    elif not row["photometric"] in _COLOUR:
        inputs = (int(values[~padding].min()), int(values[~padding].max()))
        outputs = add_modality(header, row, inputs, rng)
        add_voi(header, row, outputs, rng)
    twin = _written(header, words, "explicit")
    content = _written(header, words, str(row["syntax"]), encode=_encoder(row, header))
    return Case(number, row, content, twin, padding)


def _header(row: Mapping[str, object]) -> Dataset:
    allocated = int(str(row["allocated"]))
    stored = {"all": allocated, "three quarters": allocated * 3 // 4, "five eighths": allocated * 5 // 8}
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    header.Modality = "DX"
    if row["frames"] != 1:
        header.NumberOfFrames = row["frames"]
    header.Rows, header.Columns = ROWS, COLUMNS
    header.SamplesPerPixel = 3 if row["photometric"] in _COLOUR else 1
    header.PhotometricInterpretation = row["photometric"]
    if header.SamplesPerPixel == 3:
        header.PlanarConfiguration = 0
    header.BitsAllocated, header.BitsStored = allocated, stored[str(row["stored"])]
    header.HighBit = header.BitsStored - 1 if row["high bit"] == "stored - 1" else allocated - 1
    header.PixelRepresentation = int(bool(row["signed"]))
    if row["shape"] != "none":
        header.PresentationLUTShape = row["shape"]
    if row["aspect"] == "2:1":
        header.PixelAspectRatio = ["2", "1"]
    elif row["aspect"] != "1:1":
        header.PixelSpacing = ["0.1", "0.3"]
    return header


def _values(
    header: Dataset, row: Mapping[str, object], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw stored values (frames, h, w[, 3]) over most of their range, and where they are padding."""
    shape = (int(str(row["frames"])), ROWS, COLUMNS, header.SamplesPerPixel)
    span = 1 << header.BitsStored
    low = -(span // 2) if header.PixelRepresentation else 0
    ramp = sum(np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")) / len(shape)
    noise = 0.0 if row["syntax"] in DCT else 0.1
    unit = np.clip(0.05 + 0.85 * ramp + noise * (rng.random(shape) - 0.5), 0, 0.98)
    values = np.floor(unit * span).astype(np.int64) + low
    values = values[..., 0] if header.SamplesPerPixel == 1 else values
    padding = np.zeros(shape[:3], bool)
    if row["padding"] != "none":
        padding[:, :3, :] = padding[:, :, -2:] = True
        top = low + span - 1
        values[padding] = top
        header.PixelPaddingValue = top
        if row["padding"] == "range":
            values[:, 0, :] = top - 1
            header.PixelPaddingRangeLimit = top - 1
            values[~padding] = np.minimum(values[~padding], top - 2)
        else:
            values[~padding] = np.minimum(values[~padding], top - 1)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
            if keyword in header:
                # US and SS have 16 bits, whatever a pixel has; 32-bit padding does not fit and is left out.
                header[keyword].VR = "SS" if header.PixelRepresentation else "US"
        if header.BitsStored > 16:
            padding[:] = False
            for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
                header.pop(keyword, None)
    return values, padding


def _words(values: np.ndarray, header: Dataset, row: Mapping[str, object]) -> np.ndarray:
    """Return values where HighBit has them, in words of BitsAllocated; a sign fills the bits above."""
    shift = header.HighBit + 1 - header.BitsStored
    words = values << shift
    if shift == 0 and row["overlay"] == "in the words":
        words = words & ((1 << header.BitsStored) - 1)
    return (words & ((1 << header.BitsAllocated) - 1)).astype(f"<u{header.BitsAllocated // 8}")


def _with_overlay(
    header: Dataset, words: np.ndarray, row: Mapping[str, object], rng: np.random.Generator
) -> np.ndarray:
    """Add an overlay: a plane of its own, or the highest or lowest bit that is no value."""
    marked = rng.random((ROWS, COLUMNS)) < 0.3
    header.add_new(0x60000010, "US", ROWS)
    header.add_new(0x60000011, "US", COLUMNS)
    header.add_new(0x60000040, "CS", "G")
    header.add_new(0x60000050, "SS", [1, 1])
    apart = row["overlay"] == "apart"
    bit = 0 if apart or header.HighBit == header.BitsAllocated - 1 else header.BitsAllocated - 1
    header.add_new(0x60000100, "US", 1 if apart else header.BitsAllocated)
    header.add_new(0x60000102, "US", bit)
    if apart:
        header.add_new(0x60003000, "OW", np.packbits(marked.ravel(), bitorder="little").tobytes())
        return words
    return words | (marked.astype(words.dtype) << words.dtype.type(bit))


def _encoder(row: Mapping[str, object], header: Dataset) -> Callable[[np.ndarray], bytes] | None:
    """Return what encodes the words of a frame: the value alone where the words hold nothing else."""
    if row["syntax"] in NATIVE:
        return None
    alone = header.HighBit == header.BitsStored - 1 and row["overlay"] != "in the words"
    bits = header.BitsStored if alone else header.BitsAllocated
    encode = _ENCODERS[str(row["syntax"])]

    def encoded(words: np.ndarray) -> bytes:
        kept = words if row["syntax"] in _WHOLE_WORDS else words & words.dtype.type((1 << bits) - 1)
        if header.PixelRepresentation and row["syntax"] in _SIGNED:
            wide = kept.astype(np.int64)
            kept = np.where(wide >> (bits - 1), wide - (1 << bits), wide).astype(f"<i{words.dtype.itemsize}")
        return encode(kept, bits)

    return encoded


def _deflated(frame: np.ndarray, bits: int) -> bytes:
    del bits
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return deflater.compress(frame.tobytes()) + deflater.flush()


def _rle(frame: np.ndarray, bits: int) -> bytes:
    del bits
    # The encoder of pydicom wants to be told what it sees in the array.
    return RLELosslessEncoder.encode(
        frame, index=0, rows=ROWS, columns=COLUMNS, number_of_frames=1, bits_allocated=8 * frame.dtype.itemsize,
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
    "jpeg baseline": lambda frame, bits: imagecodecs.jpeg8_encode(frame, level=95),
    "jpeg extended": lambda frame, bits: imagecodecs.jpeg8_encode(frame, level=95, bitspersample=12),
    "jpeg 2000": lambda frame, bits: imagecodecs.jpeg2k_encode(
        frame, reversible=True, codecformat="j2k", bitspersample=bits, mct=False
    ),
    "htj2k": lambda frame, bits: imagecodecs.htj2k_encode(frame, reversible=True, rgb=False),
    "jpeg xl": lambda frame, bits: imagecodecs.jpegxl_encode(
        frame, lossless=True, bitspersample=bits, usecontainer=False
    ),
}  # fmt: skip


def _written(
    header: Dataset, words: np.ndarray, syntax: str, *, encode: Callable[[np.ndarray], bytes] | None = None
) -> bytes:
    written = Dataset(header)
    if encode is None:
        little = syntax != "big endian"
        content = words.astype(words.dtype.newbyteorder("<" if little else ">")).tobytes()
        written.PixelData = content
        written["PixelData"].VR = "OW" if header.BitsAllocated > 8 or syntax == "implicit" else "OB"
    else:
        written.PixelData = encapsulate([encode(frame) for frame in words])
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
        buffer, enforce_file_format=True, implicit_vr=syntax == "implicit", little_endian=syntax != "big endian"
    )
    # pydicom writes no syntax that it does not know, so one of the same length stood in.
    names = (name.encode().ljust(length, b"\0") for name in (stand_in, syntax_uid))
    return buffer.getvalue().replace(*names, 1)
