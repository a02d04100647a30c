"""One phantom MR slice: where it lies, and how it is written as a DICOM file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from embedstore.codecs.jpeg2000 import encode_jpeg2000

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SliceGeometry:
    """Where a square slice lies.

    Parameters
    ----------
    corner_mm
        Centre of the first pixel, (3,).
    along_columns, along_rows
        Unit directions in which the column and the row index grow, (3,).
    side_px
        Rows and columns.
    spacing_mm
        Distance of neighbouring pixels.
    """

    corner_mm: Vector
    along_columns: Vector
    along_rows: Vector
    side_px: int
    spacing_mm: float

    @classmethod
    def around(
        cls, middle_mm: Vector, along_columns: Vector, along_rows: Vector, *, side_px: int, spacing_mm: float
    ) -> SliceGeometry:
        """Place a slice by its middle."""
        half_mm = (side_px - 1) / 2 * spacing_mm
        corner = middle_mm - half_mm * (along_columns + along_rows)
        return cls(corner.round(4), along_columns.round(6), along_rows.round(6), side_px, spacing_mm)

    def points_mm(self) -> Vector:
        """Return the patient position of every pixel, (side, side, 3)."""
        steps = np.arange(self.side_px) * self.spacing_mm
        points: Vector = (
            self.corner_mm
            + steps[None, :, None] * self.along_columns
            + steps[:, None, None] * self.along_rows
        )
        return points

    def distance_mm(self, point_mm: tuple[float, float, float]) -> float:
        """Return the signed distance of a point from the slice."""
        normal = np.cross(self.along_columns, self.along_rows)
        return float((np.array(point_mm) - self.corner_mm) @ normal)

    def pixel(self, point_mm: tuple[float, float, float]) -> tuple[float, float]:
        """Return the (column, row) of the slice's point nearest to a point."""
        offset = (np.array(point_mm) - self.corner_mm) / self.spacing_mm
        return float(offset @ self.along_columns), float(offset @ self.along_rows)


@dataclass(frozen=True, eq=False)
class MrSlice:
    """What a file holds; `levels` is (side, side) uint16."""

    study: str
    series: str
    number: int
    description: str
    geometry: SliceGeometry
    levels: npt.NDArray[np.uint16]


def write_slice(path: Path, mr: MrSlice, *, syntax: str) -> None:
    """Write a slice; the same slice and syntax give the same bytes with the same libraries.

    Parameters
    ----------
    syntax
        ``explicit``, ``implicit`` (both little endian), ``rle`` or ``jpeg2000`` (lossless).
    """
    dataset = _dataset(mr)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian if syntax == "implicit" else ExplicitVRLittleEndian
    )
    if syntax == "rle":
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    elif syntax == "jpeg2000":
        dataset.PixelData = encapsulate([encode_jpeg2000(mr.levels, 16)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(path, enforce_file_format=True)


def _dataset(mr: MrSlice) -> Dataset:
    place = mr.geometry
    dataset = Dataset()
    attributes: dict[str, Any] = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": _uid(mr.study, mr.series, str(mr.number)),
        "Modality": "MR",
        "SeriesDescription": mr.description,
        "PatientID": mr.study,
        "BodyPartExamined": "LSPINE",
        "PatientPosition": "HFS",
        "StudyInstanceUID": _uid(mr.study),
        "SeriesInstanceUID": _uid(mr.study, mr.series),
        "InstanceNumber": mr.number,
        "ImagePositionPatient": [f"{value:.4f}" for value in place.corner_mm],
        "ImageOrientationPatient": [f"{value:.6f}" for value in (*place.along_columns, *place.along_rows)],
        "PixelSpacing": [f"{place.spacing_mm:.4f}"] * 2,
        "SliceThickness": "4.0",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": place.side_px,
        "Columns": place.side_px,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": mr.levels.astype("<u2").tobytes(),
    }
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset["PixelData"].VR = "OW"
    return dataset


def _uid(*parts: str) -> str:
    return str(generate_uid(entropy_srcs=["embedstore phantom", *parts]))
