"""Modality LUT, VOI and palette of a case, within what its values can reach."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

Range = tuple[float, float]


def add_modality(
    header: Dataset, row: Mapping[str, object], inputs: Range, rng: np.random.Generator
) -> Range:
    """Add the modality LUT of a row and return the range of its output."""
    low, high = inputs
    kind = row["modality lut"]
    if kind == "none":
        return inputs
    if kind == "table":
        count = int(high - low + 1)
        bits = int(rng.choice([12, 16]))
        entries = np.sort(rng.integers(0, 1 << bits, count))
        header.ModalityLUTSequence = Sequence(
            [_table(int(low), entries, bits, row, signed=bool(row["signed"]), rng=rng)]
        )
        header.ModalityLUTSequence[0].ModalityLUTType = "US"
        return float(entries.min()), float(entries.max())
    # dcmtk cuts modality values to whole numbers, so halves come in only where one step is no grey level.
    wide = high - low >= 1 << 13 and row["voi"] != "table"
    slope = 1.0 if row["voi"] == "table" else float(rng.choice([0.5, 1.0, 2.5] if wide else [1, 2, 3]))
    intercept = 100.0 if kind == "rescale" else -float(round(slope * (low + high) / 2))
    header.RescaleSlope, header.RescaleIntercept, header.RescaleType = str(slope), str(int(intercept)), "US"
    return slope * low + intercept, slope * high + intercept


def add_voi(header: Dataset, row: Mapping[str, object], values: Range, rng: np.random.Generator) -> None:
    """Add the VOI of a row to a header whose modality values have a range."""
    low, high = values
    kind = row["voi"]
    if kind == "none":
        return
    if kind == "table":
        first = int(low + (high - low) * 0.2)
        count = int(max(2, min((high - low) * 0.6, 4096)))
        bits = int(rng.choice([8, 12, 16]))
        entries = np.floor(np.linspace(0, 1, count) ** 1.5 * ((1 << bits) - 1)).astype(np.int64)
        header.VOILUTSequence = Sequence([_table(first, entries, bits, row, signed=low < 0, rng=rng)])
        return
    width = 0 if kind == "width 0" else max(2, round((high - low) * float(rng.choice([0.4, 0.8, 1.2]))))
    header.WindowCenter, header.WindowWidth = str(round(low + (high - low) * 0.55)), str(width)
    if kind == "sigmoid":
        header.VOILUTFunction = "SIGMOID"
    elif kind == "linear exact" and width >= 512:
        # dcmtk 3.6.7 takes it for LINEAR, which in a wide window is less than a grey level.
        header.VOILUTFunction = "LINEAR_EXACT"


def add_palette(header: Dataset, row: Mapping[str, object], rng: np.random.Generator) -> None:
    """Add three tables of 256 random colours, from a first value in the midst of the range."""
    bits = int(rng.choice([8, 16]))
    first = 0 if header.BitsStored <= 8 else (1 << header.BitsStored) // 3
    big_endian = row["syntax"] == "big endian"
    for colour in ("Red", "Green", "Blue"):
        entries = rng.integers(0, 1 << bits, 256).astype(np.uint16)
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [256, first, bits])
        header[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
        packed = entries.astype(np.uint8) if bits == 8 else entries
        setattr(header, f"{colour}PaletteColorLookupTableData", _swapped(packed.tobytes(), big_endian))


def _table(
    first: int,
    entries: np.ndarray,
    bits: int,
    row: Mapping[str, object],
    *,
    signed: bool,
    rng: np.random.Generator,
) -> Dataset:
    """Return a LUT item; its first value is written with or without a sign, its entries as numbers or words."""
    item = Dataset()
    as_signed = signed and bool(rng.integers(2))
    written = first if as_signed else first & 0xFFFF
    count = len(entries) & 0xFFFF  # 0 stands for 65,536
    item.add_new(0x00283002, "SS" if as_signed else "US", [count, written, bits])
    if len(entries) > 0x7000 or bool(rng.integers(2)):
        item.add_new(
            0x00283006, "OW", _swapped(entries.astype("<u2").tobytes(), row["syntax"] == "big endian")
        )
    else:
        item.add_new(0x00283006, "US", entries.tolist())
    return item


def _swapped(words: bytes, big_endian: bool) -> bytes:
    return np.frombuffer(words, "<u2").astype(">u2").tobytes() if big_endian else words
