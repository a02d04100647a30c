"""Any folder of DICOM files, as a hospital exports it.

Only the attributes named in `embedstore.headers.dicom_headers` reach the manifest. Patient, study and
series identifiers are replaced by keyed digests: whoever has the key file can make the same key from an
identifier, and nobody can turn a key back.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore.datasets.base import Collection
from embedstore.datasets.folder_summary import count_frames, count_records, refuse_folder
from embedstore.datasets.slice_columns import COLUMNS as SLICE_COLUMNS
from embedstore.datasets.slice_columns import slice_columns
from embedstore.errors import DataError, UsageError, first_few
from embedstore.headers.dicom_headers import DicomHeader, Kind, ScannedFile
from embedstore.headers.dicom_scan import scan_headers
from embedstore.manifest import FIXED_COLUMNS, Manifest, manifest_from_table, path_to_manifest

_SHORTEST_KEY_BYTES = 16
_SHOWN_TYPES = 6
_KEPT: dict[str, pa.DataType] = {
    "body_part": pa.string(),
    "laterality": pa.string(),
    "view_position": pa.string(),
    "rows": pa.int32(),
    "columns": pa.int32(),
    "bits_stored": pa.int32(),
    "photometric": pa.string(),
    "image_type": pa.string(),
    "slice_thickness_mm": pa.float64(),
    "manufacturer": pa.string(),
    "field_strength_t": pa.float64(),
    "repetition_time_ms": pa.float64(),
    "echo_time_ms": pa.float64(),
    "transfer_syntax": pa.string(),
    "instance_number": pa.int64(),
}
_SPACINGS = dict.fromkeys(("row_spacing_mm", "column_spacing_mm"), pa.float64())
_FLAGS = dict.fromkeys(("burned_in", "secondary_capture", "problem"), pa.string())


class DicomFolder:
    """Reads every DICOM image below a folder.

    A multi-frame file gives one record per frame (`image_id` ``path#frame`` from frame 1 on), placed by its
    functional groups. What is no image is left out and counted: files that are not DICOM, DICOM without pixels
    (reports, plans, spectra, DICOMDIR) or with a broken header, segmentations, and videos, which no codec here
    reads. A file that cannot be opened, or kills or stalls its reader, may be an image: it stays a record, with
    the reason in the column `problem`. Links to folders are followed, each folder once.

    `burned_in` is ``yes``, ``no`` or ``unknown`` (BurnedInAnnotation; only ``NO`` is no); `secondary_capture`
    is ``yes`` or ``no``: both kinds of picture may show a name.

    Parameters
    ----------
    key_file
        File with the secret for the keys, at least 16 bytes; made with 32 random bytes where it is not
        there. Keep it outside the store, and keep it: another key gives other patient keys.
    """

    name = "dicom-folder"
    header_columns = frozenset({*_KEPT, *_SPACINGS, *_FLAGS, *SLICE_COLUMNS})

    def __init__(self, key_file: str | Path | None = None) -> None:
        self.key_file = None if key_file is None else Path(key_file)

    def read(self, root: Path) -> Collection:
        """Index the folder; no pixel is read.

        Raises
        ------
        UsageError
            Without a `key_file`.
        DataError
            If the key file is too short or cannot be used, or the folder has no DICOM image.
        """
        advice = "Point the root at a folder with DICOM files."
        if not root.is_dir():
            raise refuse_folder(root, expected="a folder with DICOM images", advice=advice)
        key = _read_key(self.key_file)
        found = _find_files(root)
        scanned = list(scan_headers(str(root), found.paths, key=key))
        images = [entry for entry in scanned if entry.kind is Kind.IMAGE]
        if not images:
            raise refuse_folder(root, expected="DICOM images below the folder", advice=advice)
        manifest = _build_manifest(images, str(root))
        summary = count_records(manifest) | _describe(scanned, images, manifest)
        if found.unusable:
            summary["left out, not a regular file"] = found.unusable
        return Collection(self.name, root, manifest, (), summary)


@dataclass(frozen=True)
class _Found:
    paths: list[str]
    unusable: int


def _find_files(root: Path) -> _Found:
    """List regular files below `root` in a fixed order, following links to folders, each folder once."""
    paths, unusable = [], 0
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            status = os.stat(os.path.join(root, below))
            entries = sorted(os.scandir(os.path.join(root, below)), key=lambda entry: entry.name)
        except OSError:  # permission denied, or gone since it was listed
            unusable += 1
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        folders = []
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if _is_folder(entry):
                folders.append(path)
            elif _is_regular(entry):
                paths.append(path)
            else:
                unusable += 1
        waiting += reversed(folders)
    return _Found(sorted(paths), unusable)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """Pipes and devices would block the reader, and a dangling link names nothing."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _read_key(path: Path | None) -> bytes:
    if path is None:
        raise UsageError(
            "dicom-folder needs a key file (`key_file`): patient and study identifiers are replaced by "
            "digests made with it. A file that is not there is made, with a random key; keep it outside "
            "the store."
        )
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes().strip()
        else:
            key = secrets.token_hex(32).encode()
            with os.fdopen(descriptor, "wb") as file:
                file.write(key + b"\n")
    except OSError as error:
        raise DataError(
            f"{path}: the key file can be neither read nor made: {error.strerror}. Choose another place."
        ) from error
    if len(key) < _SHORTEST_KEY_BYTES:
        raise DataError(
            f"{path}: a key must have at least {_SHORTEST_KEY_BYTES} bytes; found {len(key)}. "
            "Restore the file, or name one that is not there to make a new key."
        )
    return key


def _build_manifest(images: Sequence[ScannedFile], source: str) -> Manifest:
    rows = [(entry, frame) for entry in images for frame in range(entry.header.frames if entry.header else 1)]
    paths = [path_to_manifest(entry.path) for entry, _ in rows]
    headers = [entry.header and entry.header.of_frame(frame) for entry, frame in rows]
    series = [header.series_key if header else None for header in headers]
    columns: dict[str, list[Any]] = {
        "image_id": [
            f"{path}#{frame}" if frame else path for path, (_, frame) in zip(paths, rows, strict=True)
        ],
        "path": paths,
        "frame": [frame for _, frame in rows],
        "patient_id": [header.patient_key if header else None for header in headers],
        "study_id": [header.study_key if header else None for header in headers],
        "series_id": series,
        "modality": [header.modality if header else None for header in headers],
    }
    columns |= {name: [getattr(header, name, None) for header in headers] for name in _KEPT}
    for place, name in enumerate(_SPACINGS):
        columns[name] = [
            header.spacing_mm[place] if header and header.spacing_mm else None for header in headers
        ]
    columns["burned_in"] = [_burned_in(header) for header in headers]
    columns["secondary_capture"] = [_yes_no(header) for header in headers]
    columns["problem"] = [entry.problem for entry, _ in rows]
    table = {
        name: pa.array(cells, (FIXED_COLUMNS | _KEPT | _SPACINGS | _FLAGS)[name])
        for name, cells in columns.items()
    }
    return manifest_from_table(pa.table(table | slice_columns(series, headers)), source=source)


def manifest_of_headers(images: Sequence[ScannedFile], source: str) -> Manifest:
    """Return the rows of scanned DICOM images, one for each frame, as a folder that holds nothing else has them."""
    return _build_manifest(images, source)


def _burned_in(header: DicomHeader | None) -> str | None:
    if header is None:
        return None
    return {"NO": "no", None: "unknown"}.get(header.burned_in, "yes")


def _yes_no(header: DicomHeader | None) -> str | None:
    return None if header is None else ("yes" if header.secondary_capture else "no")


def _describe(
    scanned: Sequence[ScannedFile], images: Sequence[ScannedFile], manifest: Manifest
) -> dict[str, str | int]:
    kinds = Counter(entry.kind for entry in scanned)
    summary: dict[str, str | int] = {"files": len(scanned), "DICOM image files": len(images)}
    for kind in (Kind.WITHOUT_PIXELS, Kind.FOREIGN):
        if kinds[kind]:
            summary[f"files left out, {kind}"] = kinds[kind]
    classes = Counter(entry.sop_class or "unknown" for entry in scanned if entry.kind is Kind.WITHOUT_PIXELS)
    if classes:
        summary["DICOM without pixels"] = ", ".join(
            f"{name} {count:,}" for name, count in sorted(classes.items())
        )
    for kind in (Kind.SEGMENTATION, Kind.VIDEO, Kind.BROKEN):
        if left_out := [entry for entry in scanned if entry.kind is kind]:
            summary[f"files left out, {kind}"] = _describe_files(left_out)
    summary |= count_frames(entry.header.frames for entry in images if entry.header)
    for name in ("modality", "plane"):
        counts = Counter(cell or "unknown" for cell in manifest.column(name))
        summary[f"images by {name}"] = ", ".join(
            f"{cell} {count:,}" for cell, count in sorted(counts.items())
        )
    types = Counter(cell or "unknown" for cell in manifest.column("image_type")).most_common()
    counted = (f"{cell} {count:,}" for cell, count in types)
    summary["images by image type"] = first_few(counted, shown=_SHOWN_TYPES)
    summary["images with burned-in annotation or unknown"] = sum(
        flag != "no" for flag in manifest.column("burned_in")
    )
    summary["secondary captures"] = manifest.column("secondary_capture").count("yes")
    if unknown := manifest.column("patient_id").count(None):
        summary["images without patient"] = unknown
    if unread := [entry for entry in images if entry.problem]:
        summary["files whose header was not read"] = _describe_files(unread)
    return summary


def _describe_files(scanned: Sequence[ScannedFile]) -> str:
    """Say how many files they are, with the name of the first and what is wrong with it."""
    problem = f": {scanned[0].problem}" if scanned[0].problem else ""
    return f"{len(scanned):,}, such as {path_to_manifest(scanned[0].path)}{problem}"
