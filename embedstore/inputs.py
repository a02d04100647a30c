"""Files and folders that a user names for a prediction -> records in studies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedstore.errors import DataError
from embedstore.manifest import Record, path_to_manifest

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp"})


@dataclass(frozen=True)
class Inputs:
    """Images to predict for.

    Parameters
    ----------
    root
        Folder that record paths are relative to.
    records
        One per image.
    studies
        One per image: the study it belongs to.
    """

    root: Path
    records: tuple[Record, ...]
    studies: tuple[str, ...]


def gather_inputs(paths: Sequence[Path]) -> Inputs:
    """Find the images of the named files and folders.

    Parameters
    ----------
    paths
        A file is an image and a study of its own. A folder is searched; the images directly in one folder
        are one study, named after the folder.

    Raises
    ------
    DataError
        If a path does not exist, or a folder holds no image.
    """
    found = [entry for path in paths for entry in _images_of(path)]
    root = Path(os.path.commonpath([image.parent for image, _ in found]))
    records = tuple(Record(name, name) for name in (path_to_manifest(image, root) for image, _ in found))
    return Inputs(root, records, tuple(study for _, study in found))


def _images_of(path: Path) -> Iterator[tuple[Path, str]]:
    absolute = path.absolute()
    if path.is_dir():
        count = 0
        for folder, _, names in os.walk(absolute):
            for name in sorted(names):
                if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                    count += 1
                    yield Path(folder) / name, os.path.relpath(folder)
        if not count:
            raise DataError(f"{path} holds no image: files ending in {', '.join(sorted(SUFFIXES))} are taken")
    elif path.exists():
        yield absolute, str(path)
    else:
        raise DataError(f"{path} does not exist; give images, study folders or a store")
