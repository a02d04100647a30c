"""DICOM files over what headers may say of pixels: a row of levels -> a file, its native twin, the true values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from tests.differential.dicom_writing import NATIVE, dicom_file
from tests.differential.lookup_tables import add_modality, add_palette, add_voi

ROWS, COLUMNS = 24, 20
FACTORS: dict[str, tuple[object, ...]] = {
    "allocated": (8, 16, 32),
    "stored": ("all", "three quarters", "five eighths"),
    "high bit": ("stored - 1", "allocated - 1"),
    "signed": (False, True),
    "photometric": ("MONOCHROME2", "MONOCHROME1", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422"),
    "syntax": (
        "implicit", "explicit", "big endian", "deflated", "rle", "jpeg-ls", "jpeg-ls near", "jpeg lossless",
        "jpeg lossless 14", "jpeg baseline", "jpeg extended", "jpeg 2000", "htj2k", "jpeg xl", "deflated frame",
        "encapsulated",
    ),
    "padding": ("none", "value", "range"),
    "overlay": ("none", "in the words", "apart"),
    "modality lut": ("none", "rescale", "rescale below 0", "table"),
    "voi": ("none", "linear", "linear exact", "sigmoid", "table", "width 0"),
    "planes": ("together", "apart"),
    "shape": ("none", "IDENTITY", "INVERSE"),
    "frames": (1, 3),
    "aspect": ("1:1", "2:1", "spacing 1:3"),
}  # fmt: skip
DCT = ("jpeg baseline", "jpeg extended")
LOSSY = (*DCT, "jpeg-ls near")
# dcmtk 3.6.7 knows none of these; it renders the native twin, whose pixels are the same.
UNKNOWN_TO_DCMTK = ("jpeg 2000", "htj2k", "jpeg xl", "deflated frame", "encapsulated")
_OF_16_BITS = (
    "jpeg-ls",
    "jpeg-ls near",
    "jpeg lossless",
    "jpeg lossless 14",
    "jpeg 2000",
    "htj2k",
    "jpeg xl",
)
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422")


def made_possible(row: Mapping[str, object]) -> dict[str, object]:
    """Return the nearest row that a file can have: levels that contradict each other are replaced."""
    made = dict(row)
    if made["syntax"] == "jpeg baseline":
        made |= {"allocated": 8, "stored": "all", "signed": False}
    if made["syntax"] == "jpeg extended":
        made |= {"allocated": 16, "stored": "three quarters", "signed": False}
    if made["syntax"] in LOSSY:
        made |= {"padding": "none", "high bit": "stored - 1", "signed": False}
        if made["syntax"] == "jpeg baseline" and made["photometric"] in _COLOUR:
            made["photometric"] = "YBR_FULL_422"
        made["overlay"] = "apart" if made["overlay"] == "in the words" else made["overlay"]
        kept = (
            "MONOCHROME1",
            "MONOCHROME2",
            *(("YBR_FULL_422",) if made["syntax"] == "jpeg baseline" else ()),
        )
        made["photometric"] = made["photometric"] if made["photometric"] in kept else "MONOCHROME2"
    elif made["photometric"] == "YBR_FULL_422":
        made["photometric"] = "YBR_FULL"
    if made["photometric"] in (*_COLOUR, "PALETTE COLOR"):
        made |= {"signed": False, "padding": "none", "modality lut": "none", "voi": "none", "shape": "none"}
        made["allocated"] = 16 if made["allocated"] == 32 else made["allocated"]
    if made["photometric"] in _COLOUR:
        made |= {"allocated": 8, "stored": "all", "high bit": "stored - 1"}
        if made["photometric"] == "YBR_FULL" and made["syntax"] not in (*NATIVE, "rle"):
            made["photometric"] = "RGB"
    if made["photometric"] not in _COLOUR or made["syntax"] not in NATIVE:
        made["planes"] = "together"
    if made["allocated"] == 32:
        if made["syntax"] in (*_OF_16_BITS, "big endian", "rle"):
            made["allocated"] = 16
        else:
            # dcmtk keeps modality values in 32 bits, which a rescale of all 32 bits leaves.
            fits = made["stored"] != "all" and made["modality lut"] != "table"
            made["modality lut"] = made["modality lut"] if fits else "none"
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
        The file, and the same image natively with an explicit VR where dcmtk does not know the syntax.
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
        return {"table": ("+Wl", "1"), "none": ("-W",), "width 0": ("-W",)}.get(
            str(self.row["voi"]), ("+Wi", "1")
        )

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
    elif row["photometric"] not in _COLOUR:
        inputs = (int(values[~padding].min()), int(values[~padding].max()))
        outputs = add_modality(header, row, inputs, rng)
        add_voi(header, row, outputs, rng)
    # A stream holds the value alone where the words hold nothing else.
    alone = header.HighBit == header.BitsStored - 1 and row["overlay"] != "in the words"
    bits = header.BitsStored if alone else header.BitsAllocated
    content = dicom_file(header, words, str(row["syntax"]), value_bits=bits)
    twin = dicom_file(header, words, "explicit") if row["syntax"] in UNKNOWN_TO_DCMTK else b""
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
        header.PlanarConfiguration = int(row["planes"] == "apart")
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
    down, across, colour = np.meshgrid(*(np.linspace(0, 1, n) for n in shape[1:]), indexing="ij")
    # Every frame has nearly the whole range, so that no window shows a single level of it.
    ramp = np.stack([(down + (across if frame % 2 else 1 - across)) / 2 for frame in range(shape[0])])
    noise = 0.0 if row["syntax"] in DCT else 0.1
    unit = np.clip(0.05 + 0.85 * (ramp + 0.2 * colour) / 1.2 + noise * (rng.random(shape) - 0.5), 0, 0.98)
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
