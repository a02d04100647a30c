"""DICOM files of every kind that a hospital's folder holds, built element by element."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)


def dicom_object(sop_class: str, modality: str, **more: Any) -> Dataset:
    """Return a data set without pixels, of one patient, study and series."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = sop_class
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.826.0.1.2", "1.2.826.0.1.3"
    made.PatientID, made.Modality, made.BurnedInAnnotation = "P1", modality, "NO"
    for name, value in more.items():
        setattr(made, name, value)
    return made


def with_pixels(made: Dataset, frames: np.ndarray) -> Dataset:
    """Give a data set grey pixels: (n, rows, columns) of 8 or 16 bits; one frame has no NumberOfFrames."""
    if len(frames) > 1:
        made.NumberOfFrames = len(frames)
    made.Rows, made.Columns = frames.shape[1:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8 * frames.itemsize
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, 0
    made.PixelData = frames.astype(frames.dtype.newbyteorder("<")).tobytes()
    made["PixelData"].VR = "OW" if frames.itemsize > 1 else "OB"
    return made


def save(made: Dataset, path: Path, *, implicit: bool = False) -> Path:
    """Write the file with preamble and meta information."""
    if implicit:
        made.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True, implicit_vr=implicit, little_endian=True)
    return path


def item(**elements: Any) -> Dataset:
    """Return a data set of these elements: the item of a sequence."""
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def group(
    *,
    position: Sequence[float] | None = None,
    orientation: Sequence[float] | None = None,
    spacing: Sequence[float] | None = None,
    thickness: float | None = None,
    content: Dataset | None = None,
    **sequences: Any,
) -> Dataset:
    """Return the functional groups of one frame, or those shared by all."""
    made = item(**{name: [value] for name, value in sequences.items()})
    if position is not None:
        made.PlanePositionSequence = [item(ImagePositionPatient=list(position))]
    if orientation is not None:
        made.PlaneOrientationSequence = [item(ImageOrientationPatient=list(orientation))]
    if spacing is not None:
        made.PixelMeasuresSequence = [item(PixelSpacing=list(spacing), SliceThickness=thickness)]
    if content is not None:
        made.FrameContentSequence = [content]
    return made


def enhanced(sop_class: str, modality: str, shared: Dataset, own: Sequence[Dataset], **more: Any) -> Dataset:
    """Return an enhanced file of 8 x 6 pixels with these functional groups, one frame per item of `own`."""
    made = dicom_object(sop_class, modality, **more)
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = list(own)
    grey = np.add.outer(np.arange(8), np.arange(6)) * 10
    return with_pixels(made, np.stack([grey + 100 * frame for frame in range(len(own))]).astype(np.uint16))
