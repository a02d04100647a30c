"""Files that belong to no known data set: their studies are told by DICOM identifiers, or by folders."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.datasets.dicom_folder import manifest_of_headers
from embedstore.headers.dicom_headers import Kind
from embedstore.headers.file_frames import FileContent, frame_id, look_into
from embedstore.inputs.user_files import UserFile, files_beside
from embedstore.manifest import FIXED_COLUMNS, path_to_manifest

# Without a secret key identifiers become plain digests: equal ones are told as such, and one study has one id.
_NO_SECRET = b"embedstore: no secret"
_ROOT = Path("/")
# So many folders beside an input at most are looked at, by their first file, for another part of its study.
_MOST_FOLDERS = 64


@dataclass(frozen=True)
class LooseRows:
    """Rows for the images that were given, and for others of their series in the same folders.

    Parameters
    ----------
    table
        Rows of a manifest: the fixed columns, and those of headers that were asked for; paths are relative to ``/``.
    given
        (n_rows,) bool: which images were given.
    """

    table: pa.Table
    given: npt.NDArray[np.bool_]


def rows_of_loose_files(
    files: Sequence[UserFile], *, columns: Collection[str], key: bytes | None, bases: Sequence[Path]
) -> LooseRows:
    """Return what files say themselves.

    The study of a DICOM image is its StudyInstanceUID, by a digest; that of a picture, and of an image without
    identifiers, is its folder. A series is its SeriesInstanceUID; without one, the MR slices of one folder and
    orientation.

    Parameters
    ----------
    files
        The files; of those that only lie in a folder, images are taken.
    columns
        Columns that headers may fill.
    key
        Secret of the digests, so that they are those of a store; None for plain ones.
    bases
        Folders that ids of images and folders are relative to, in this order; outside of all they are absolute.
    """
    listed, contents = _looked_into(files, key or _NO_SECRET)
    names = {file.path: path_to_manifest(file.path[1:]) for file in listed}
    images = [file for file in listed if _is_image(file, contents[names[file.path]])]
    images.sort(key=lambda file: file.path)
    table = _table(images, names, contents, columns, bases)
    given_paths = {names[file.path] for file in files}
    given = np.array([path in given_paths for path in table.column("path").to_pylist()], np.bool_)
    kept = given | _of_given_studies(table, given)
    return LooseRows(table.filter(pa.array(kept)), given[kept])


def _looked_into(files: Sequence[UserFile], key: bytes) -> tuple[list[UserFile], dict[str, FileContent]]:
    """Return the files and those that may complete their studies, and what each holds by its manifest path."""
    contents: dict[str, FileContent] = {}
    listed = {file.path: file for file in files}

    def look(paths: Collection[str]) -> set[tuple[str, str | None]]:
        """Look into files, and return the study and series that each names."""
        new = look_into(_ROOT, [path_to_manifest(path[1:]) for path in paths], key=key)
        contents.update(new)
        headers = [content.header for content in new.values() if content.header is not None]
        return {(header.study_key, header.series_key) for header in headers if header.study_key is not None}

    named = look([*listed])
    # Beside files that were named one by one lie the others of their series.
    for folder in dict.fromkeys(file.folder for file in files if file.named):
        more = [file for file in files_beside(folder) if file.path not in listed]
        look([file.path for file in more])
        listed |= {file.path: file for file in more}
    studies, series = {study for study, _ in named}, {name for _, name in named}
    folders = dict.fromkeys(file.folder for file in files)
    for above in dict.fromkeys(os.path.dirname(folder) for folder in folders) if studies else ():
        for folder in _folders_in(above):
            inside = [] if folder in folders else list(files_beside(folder))
            first = look([inside[0].path]) if inside else set()
            # Another copy of what was given is no further part of the study.
            if any(study in studies and name not in series for study, name in first):
                look([file.path for file in inside])
                listed |= {file.path: file for file in inside}
    return list(listed.values()), contents


def _folders_in(above: str) -> list[str]:
    try:
        with os.scandir(above) as entries:
            folders = sorted(
                entry.path for entry in entries if not entry.name.startswith(".") and entry.is_dir()
            )
    except OSError:  # not to be listed by this user
        return []
    readable = [folder for folder in folders if os.access(folder, os.R_OK | os.X_OK)]
    return readable if len(readable) <= _MOST_FOLDERS else []


def _is_image(file: UserFile, content: FileContent) -> bool:
    """Return whether a file is to be decoded: a named one always, so that it fails by its name."""
    if file.named or file.is_picture:
        return True
    # One with a broken header fails by its name.
    return content.scanned is not None and content.scanned.kind in (Kind.IMAGE, Kind.BROKEN)


def _table(
    images: Sequence[UserFile],
    names: Mapping[str, str],
    contents: Mapping[str, FileContent],
    columns: Collection[str],
    bases: Sequence[Path],
) -> pa.Table:
    rows = [(file, frame) for file in images for frame in contents[names[file.path]].frames]
    headers = _header_rows([contents[names[file.path]] for file in images])
    places = [headers.places.get((names[file.path], frame)) for file, frame in rows]
    cells = {
        name: headers.table.column(name).take(pa.array(places, pa.int64()))
        for name in headers.table.column_names
    }
    folders = [_relative(file.folder, bases) for file, _ in rows]
    studies = cells["study_id"].to_pylist()
    series = cells["series_id"].to_pylist()
    table = {
        "image_id": [frame_id(_relative(file.path, bases), frame) for file, frame in rows],
        "path": [names[file.path] for file, _ in rows],
        "frame": [frame for _, frame in rows],
        "study_id": [study or folder for study, folder in zip(studies, folders, strict=True)],
        "series_id": [
            name or _series_by_folder(contents[names[file.path]], frame, folder)
            for name, folder, (file, frame) in zip(series, folders, rows, strict=True)
        ],
    }
    typed = {name: pa.array(values, FIXED_COLUMNS[name]) for name, values in table.items()}
    taken = ("modality", *(sorted(columns) if headers.places else ()))
    return pa.table(typed | {name: cells[name] for name in taken})


@dataclass(frozen=True)
class _HeaderRows:
    """Rows of the DICOM images, and (manifest path, frame) -> row."""

    table: pa.Table
    places: Mapping[tuple[str, int], int]


def _header_rows(contents: Sequence[FileContent]) -> _HeaderRows:
    scanned = [
        entry.scanned for entry in contents if entry.scanned is not None and entry.scanned.header is not None
    ]
    # Rows are called after their files: two of one SOPInstanceUID are two files.
    nameless = [
        replace(entry, header=replace(entry.header, image_key=None)) if entry.header else entry
        for entry in scanned
    ]
    table = manifest_of_headers(nameless, "files").table
    # Stores of clinical data have no descriptions, which are free text; what one says of the weighting is none.
    said = [entry.header.weighting for entry in scanned if entry.header for _ in range(entry.header.frames)]
    table = table.append_column("series_description", pa.array(said, pa.string()))
    places = [
        (path_to_manifest(entry.path), frame)
        for entry in scanned
        if entry.header is not None
        for frame in range(entry.header.frames)
    ]
    return _HeaderRows(table, {place: row for row, place in enumerate(places)})


def _series_by_folder(content: FileContent, frame: int, folder: str) -> str | None:
    """Return a series without an identifier: the MR slices of one folder and orientation."""
    header = content.header.of_frame(frame) if content.header else None
    return f"{folder} {header.orientation}" if header is not None and header.modality == "MR" else None


def _of_given_studies(table: pa.Table, given: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    studies = table.column("study_id")
    wanted = studies.filter(pa.array(given)).unique()
    return np.asarray(pc.is_in(studies, value_set=wanted))


def _relative(path: str, bases: Sequence[Path]) -> str:
    """Return a path relative to the first folder that it lies below; of that folder itself its name."""
    for base in map(str, bases):
        if path == base:
            return path_to_manifest(os.path.basename(path) or path)
        if path.startswith(os.path.join(base, "")):
            return path_to_manifest(path[len(os.path.join(base, "")) :])
    return path_to_manifest(path)
