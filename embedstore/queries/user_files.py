"""Files and folders that a user names for a prediction -> records in studies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedstore.datasets.dicom_headers import DicomHeader, Kind
from embedstore.datasets.dicom_scan import scan_headers
from embedstore.errors import DataError
from embedstore.manifest import Record, path_to_manifest

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
DICOM = frozenset({".dcm", ".dicom", ".ima", ""})


@dataclass(frozen=True)
class Inputs:
    """Images to predict for.

    Parameters
    ----------
    root
        Folder that record paths are relative to.
    records
        One per image; a multi-frame file gives one per frame.
    studies
        One per image: the study it belongs to.
    """

    root: Path
    records: tuple[Record, ...]
    studies: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    path: str  # absolute
    study: str
    named: bool  # by the user, not found in a folder


def gather_inputs(paths: Sequence[Path]) -> Inputs:
    """Find the images of the named files and folders.

    Parameters
    ----------
    paths
        A file is an image and a study of its own. A folder is searched: the images directly in one folder
        are one study, named after the folder; files without an ending are taken where they are DICOM.

    Raises
    ------
    DataError
        If a path does not exist, or nothing named holds an image.
    """
    files = [file for path in paths for file in _files_of(path)]
    root = os.path.commonpath([os.path.dirname(file.path) for file in files]) if files else ""
    headers = _headers_of(root, [file for file in files if _ending(file.path) in DICOM])
    records, studies = [], []
    for file in files:
        if _ending(file.path) in DICOM and not file.named and file.path not in headers:
            continue
        header = headers.get(file.path)
        name = path_to_manifest(os.path.relpath(file.path, root))
        for frame in range(header.frames if header else 1):
            records.append(_record(name, frame, header))
            studies.append(file.study)
    if not records:
        listed = ", ".join(str(path) for path in paths)
        raise DataError(f"{listed}: no image found; give images, folders with PNG, JPEG or DICOM, or a store")
    return Inputs(Path(root), tuple(records), tuple(studies))


def _files_of(path: Path) -> Iterator[_File]:
    if path.is_dir():
        for folder, folders, names in os.walk(path.absolute()):
            folders.sort()
            for name in sorted(names):
                if not name.startswith(".") and _ending(name) in PICTURES | DICOM:
                    yield _File(os.path.join(folder, name), os.path.relpath(folder), named=False)
    elif path.exists():
        yield _File(str(path.absolute()), str(path), named=True)
    else:
        raise DataError(f"{path} does not exist; give images, study folders or a store")


def _headers_of(root: str, files: Sequence[_File]) -> dict[str, DicomHeader | None]:
    """Return the header of each DICOM image; None where it is one with a broken header."""
    names = [os.path.relpath(file.path, root) for file in files]
    scanned = scan_headers(root, names, key=None) if names else iter(())
    return {
        file.path: entry.header
        for file, entry in zip(files, scanned, strict=True)
        if entry.kind is Kind.IMAGE
    }


def _record(name: str, frame: int, header: DicomHeader | None) -> Record:
    image_id = f"{name}#{frame}" if frame else name
    if header is None:
        return Record(image_id, name, frame)
    # Without identifiers, the slices of one folder and orientation are taken for one series.
    series = f"{os.path.dirname(name)} {header.orientation}" if header.modality == "MR" else ""
    return Record(image_id, name, frame, header.modality or "", series)


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()
