"""Files and folders that a user names for a prediction -> records in studies."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedstore.errors import DataError
from embedstore.headers.dicom_headers import Kind
from embedstore.headers.file_frames import FileContent, frame_id, look_into
from embedstore.manifest import Record, path_to_manifest

PICTURES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".pbm", ".pnm"}
)
DICOM = frozenset({".dcm", ".dicom", ".ima", ""})


@dataclass(frozen=True)
class Inputs:
    """Images to predict for.

    Parameters
    ----------
    root
        Folder that record paths are relative to.
    records
        One per image; a file of several frames or pages gives one for each.
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
    names = [path_to_manifest(os.path.relpath(file.path, root)) for file in files]
    contents = look_into(Path(root), names)
    records, studies = [], []
    for file, name in zip(files, names, strict=True):
        content = contents[name]
        if not file.named and _ending(file.path) in DICOM and not _may_be_an_image(content):
            continue
        for frame in content.frames:
            records.append(_record(name, frame, content))
            studies.append(file.study)
    if not records:
        listed = ", ".join(str(path) for path in paths)
        raise DataError(f"{listed}: no image found; give images, folders with PNG, JPEG or DICOM, or a store")
    return Inputs(Path(root), tuple(records), tuple(studies))


def split_frame(image: Path) -> tuple[Path, int]:
    """Read ``FILE#N`` as frame N of a file; a file of that whole name is itself, and frame 0."""
    named = re.fullmatch(r"(.+)#(\d{1,6})", image.name)
    if named and not image.exists():
        return image.with_name(named[1]), int(named[2])
    return image, 0


def other_frames(file: Path) -> tuple[int, ...]:
    """Return the numbers of the frames or pages of a file after its first."""
    name = path_to_manifest(file.name)
    return look_into(file.absolute().parent, [name])[name].frames[1:]


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


def _may_be_an_image(content: FileContent) -> bool:
    """Return whether a DICOM file is an image, or one with a broken header: that fails by its name."""
    return content.scanned is not None and content.scanned.kind in (Kind.IMAGE, Kind.BROKEN)


def _record(name: str, frame: int, content: FileContent) -> Record:
    image_id = frame_id(name, frame)
    if content.header is None:
        return Record(image_id, name, frame)
    header = content.header.of_frame(frame)
    # Without identifiers, the slices of one folder and orientation are taken for one series.
    series = f"{os.path.dirname(name)} {header.orientation}" if header.modality == "MR" else ""
    return Record(image_id, name, frame, header.modality or "", series)


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()
