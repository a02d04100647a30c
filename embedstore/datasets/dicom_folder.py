"""Any folder of DICOM files, as a hospital exports it.

Only the attributes named in `embedstore.headers.dicom_headers` reach the manifest. Patient, study, series, order and
image identifiers are replaced by keyed digests: whoever has the key file can make the same digest from an identifier,
and nobody can turn a digest back. Folders of archives are named after patients, so paths stay outside of stores too.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore.datasets.base import Collection
from embedstore.datasets.folder_summary import count_frames, count_records, refuse_folder
from embedstore.datasets.hidden_ids import (
    KnownFiles,
    files_by_uid,
    hide_paths,
    key_of_reader,
    owner_rows,
)
from embedstore.datasets.slice_columns import COLUMNS as SLICE_COLUMNS
from embedstore.datasets.slice_columns import slice_columns
from embedstore.errors import first_few
from embedstore.headers.dicom_headers import DicomHeader, Kind, ScannedFile
from embedstore.headers.dicom_scan import scan_headers
from embedstore.headers.file_frames import frame_id
from embedstore.keys.keyed_ids import CLINICAL_IDS
from embedstore.manifest import FIXED_COLUMNS, Manifest, manifest_from_table, path_to_manifest

_SHOWN_TYPES = 6
_KEPT: dict[str, pa.DataType] = {
    "accession_id": pa.string(),
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

    A multi-frame file gives one record per frame (`image_id` with ``#frame`` behind it from frame 1 on), placed by
    its functional groups. What is no image is left out and counted: files that are not DICOM, DICOM without pixels
    (reports, plans, spectra, DICOMDIR) or with a broken header, segmentations, and videos, which no codec here
    reads. A file that cannot be opened, or kills or stalls its reader, may be an image: it stays a record, with
    the reason in the column `problem`. Links to folders are followed, each folder once.

    `image_id` is the keyed digest of the SOP instance UID, and the manifest's table holds no path: `Manifest.paths`
    does, and an extraction keeps them in the owner's map beside the key. Of files with one UID the first by path has
    the plain digest; a whole copy of another file is left out, and a different file under the same UID is an image of
    its own, with a digest of its bytes at the end of the id.

    `burned_in` is ``yes``, ``no`` or ``unknown`` (BurnedInAnnotation; only ``NO`` is no); `secondary_capture`
    is ``yes`` or ``no``: both kinds of picture may show a name.

    Parameters
    ----------
    key_file
        File with the secret for the ids, at least 16 bytes. Where it is not there, an extraction makes it with 32
        random bytes. Keep it outside the store, and keep it: another key gives other ids.
    hide_paths
        False keeps paths in the store, and uses them as image ids, as stores from before paths were hidden do.
    """

    name = "dicom-folder"
    header_columns = frozenset({*_KEPT, *_SPACINGS, *_FLAGS, *SLICE_COLUMNS})
    needs_key = True

    def __init__(self, key_file: str | Path | None = None, hide_paths: bool = True) -> None:
        self.key_file = None if key_file is None else Path(key_file)
        self.hide_paths = hide_paths

    def read(self, root: Path) -> Collection:
        """Index the folder; no pixel is read, and nothing is written.

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
        key = key_of_reader(self.key_file, reader=self.name)
        found = _find_files(root)
        scanned = list(scan_headers(str(root), found.paths, key=key.secret))
        images = [entry for entry in scanned if entry.kind is Kind.IMAGE]
        if not images:
            raise refuse_folder(root, expected="DICOM images below the folder", advice=advice)
        known = files_by_uid(root, images, key) if self.hide_paths else _files_by_path(images)
        named = known.images
        manifest = _build_manifest(named, str(root))
        summary = count_records(manifest) | _describe(
            scanned, images, manifest, show_names=not self.hide_paths
        )
        if found.unusable:
            summary["left out, not a regular file"] = found.unusable
        left_out = {
            entry.path: entry.problem or str(entry.kind) for entry in scanned if entry.kind is not Kind.IMAGE
        }
        clinical = _clinical(named)
        collection = Collection(self.name, root, manifest, (), summary, key=key)
        if not self.hide_paths:
            return replace(collection, owner_rows=owner_rows(root, manifest, clinical, left_out))
        if known.copies:
            summary["files left out, copies of another"] = len(known.copies)
            left_out |= {entry.path: "a copy of another file" for entry in known.copies}
        if known.same_uid:
            summary["files with the SOP instance UID of another"] = known.same_uid
        return hide_paths(collection, key, clinical=clinical, left_out=left_out)


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


def _files_by_path(images: Sequence[ScannedFile]) -> KnownFiles:
    return KnownFiles([(entry, path_to_manifest(entry.path)) for entry in images], (), 0)


def _clinical(images: Sequence[tuple[ScannedFile, str]]) -> dict[str, list[str | None]]:
    """Return the clinical ids of each record, in the order of the manifest."""
    nothing = (None,) * len(CLINICAL_IDS)
    rows: list[tuple[str | None, ...]] = []
    for entry, _ in images:
        ids = entry.header.clinical_ids if entry.header else None
        rows += [nothing if ids is None else ids] * (entry.header.frames if entry.header else 1)
    return {name: [row[place] for row in rows] for place, name in enumerate(CLINICAL_IDS)}


def _build_manifest(images: Sequence[tuple[ScannedFile, str]], source: str) -> Manifest:
    rows = [
        (entry, frame, name)
        for entry, name in images
        for frame in range(entry.header.frames if entry.header else 1)
    ]
    headers = [entry.header and entry.header.of_frame(frame) for entry, frame, _ in rows]
    series = [header.series_key if header else None for header in headers]
    columns: dict[str, list[Any]] = {
        "image_id": [frame_id(name, frame) for _, frame, name in rows],
        "path": [path_to_manifest(entry.path) for entry, _, _ in rows],
        "frame": [frame for _, frame, _ in rows],
        "patient_id": [header.patient_key if header else None for header in headers],
        "study_id": [header.study_key if header else None for header in headers],
        "series_id": series,
        "modality": [header.modality if header else None for header in headers],
    }
    columns |= {name: [getattr(header, name, None) for header in headers] for name in _KEPT}
    columns["accession_id"] = [header.accession_key if header else None for header in headers]
    for place, name in enumerate(_SPACINGS):
        columns[name] = [
            header.spacing_mm[place] if header and header.spacing_mm else None for header in headers
        ]
    columns["burned_in"] = [_burned_in(header) for header in headers]
    columns["secondary_capture"] = [_yes_no(header) for header in headers]
    columns["problem"] = [entry.problem for entry, _, _ in rows]
    table = {
        name: pa.array(cells, (FIXED_COLUMNS | _KEPT | _SPACINGS | _FLAGS)[name])
        for name, cells in columns.items()
    }
    # Images without a place have a spacing, too.
    columns_of_slices = slice_columns(series, headers) | table
    return manifest_from_table(pa.table(table | columns_of_slices), source=source)


def manifest_of_headers(images: Sequence[ScannedFile], source: str) -> Manifest:
    """Return the rows of scanned DICOM images, one for each frame, as a folder that holds nothing else has them."""
    named = [
        (entry, (entry.header.image_key if entry.header else None) or path_to_manifest(entry.path))
        for entry in images
    ]
    return _build_manifest(named, source)


def _burned_in(header: DicomHeader | None) -> str | None:
    if header is None:
        return None
    return {"NO": "no", None: "unknown"}.get(header.burned_in, "yes")


# As BurnedInAnnotation (0028,0301) says; most headers do not.
_BURNED_IN = {"yes": "yes", "no": "no", "unknown": "not said"}


def _yes_no(header: DicomHeader | None) -> str | None:
    return None if header is None else ("yes" if header.secondary_capture else "no")


def _describe(
    scanned: Sequence[ScannedFile], images: Sequence[ScannedFile], manifest: Manifest, *, show_names: bool
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
            summary[f"files left out, {kind}"] = _describe_files(left_out, show_names=show_names)
    summary |= count_frames(entry.header.frames for entry in images if entry.header)
    for name in ("modality", "plane"):
        counts = Counter(cell or "unknown" for cell in manifest.column(name))
        summary[f"images by {name}"] = ", ".join(
            f"{cell} {count:,}" for cell, count in sorted(counts.items())
        )
    types = Counter(cell or "unknown" for cell in manifest.column("image_type")).most_common()
    counted = (f"{cell} {count:,}" for cell, count in types)
    summary["images by image type"] = first_few(counted, shown=_SHOWN_TYPES)
    flags = Counter(flag or "unknown" for flag in manifest.column("burned_in"))
    summary["images by burned-in annotation"] = ", ".join(
        f"{word} {flags[flag]:,}" for flag, word in _BURNED_IN.items() if flags[flag]
    )
    summary["secondary captures"] = manifest.column("secondary_capture").count("yes")
    if unknown := manifest.column("patient_id").count(None):
        summary["images without patient"] = unknown
    if unread := [entry for entry in images if entry.problem]:
        summary["files whose header was not read"] = _describe_files(unread, show_names=show_names)
    return summary


def _describe_files(scanned: Sequence[ScannedFile], *, show_names: bool) -> str:
    """Say how many files they are and what is wrong with the first, with its name where it may be shown."""
    problem, count = scanned[0].problem, f"{len(scanned):,}"
    if show_names:
        return f"{count}, such as {path_to_manifest(scanned[0].path)}{f': {problem}' if problem else ''}"
    return f"{count}, the first: {problem}" if problem else count
