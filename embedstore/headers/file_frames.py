"""What each file of a list holds: which frames become records, and the header where it is DICOM.

Every reader whose files may have several frames asks here, so that a frame is a record in all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from embedstore.errors import ImageRefused
from embedstore.headers.dicom_headers import DicomHeader, ScannedFile
from embedstore.headers.dicom_scan import scan_headers
from embedstore.images.file_kind import DICOM, HEAD_BYTES, file_kind
from embedstore.images.hostile import open_regular, read_head
from embedstore.manifest import path_from_manifest, path_to_manifest
from embedstore.pictures.picture_pages import picture_pages

_ANY_SIZE = 1 << 62
# DICOM among them: its frames are counted from its header. The others may hold pages.
_OF_ONE_PICTURE = frozenset({DICOM, "PNG", "JPEG", "BMP", "PPM"})


@dataclass(frozen=True)
class FileContent:
    """One file.

    Parameters
    ----------
    kind
        ``DICOM``, the name of a picture format, or None for anything else and for what cannot be opened.
    frames
        Numbers of the frames or pages that are images of their own; (0,) where nothing is known.
    scanned
        What the DICOM scan found, for a DICOM file.
    """

    kind: str | None
    frames: tuple[int, ...] = (0,)
    scanned: ScannedFile | None = None

    @property
    def header(self) -> DicomHeader | None:
        """The header of a DICOM image."""
        return self.scanned.header if self.scanned else None


def look_into(root: Path, paths: Iterable[str], *, key: bytes | None = None) -> dict[str, FileContent]:
    """Return what each file holds; no pixel is decoded.

    Parameters
    ----------
    root
        What `paths` are relative to.
    paths
        Manifest paths; one that occurs twice is looked at once.
    key
        Secret for the patient, study and series keys of headers; None leaves the keys out.
    """
    top = os.path.join(root.absolute(), "")  # a Path for each of many files would take most of the time
    found = dict.fromkeys(paths, _content_of_one(None))
    for path in found:
        found[path] = _look(top + path if path.isascii() else str(path_from_manifest(root, path)))
    dicom = [path for path, content in found.items() if content.kind == DICOM]
    names = [os.path.relpath(path_from_manifest(root, path), root.absolute()) for path in dicom]
    for path, scanned in zip(dicom, scan_headers(str(root), names, key=key) if names else (), strict=True):
        frames = tuple(range(scanned.header.frames)) if scanned.header else (0,)
        found[path] = FileContent(DICOM, frames, scanned)
    return found


def frame_id(name: str, frame: int) -> str:
    """Return the id of one frame: the file's own for frame 0, ``name#frame`` for the others."""
    return f"{name}#{frame}" if frame else name


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


def _look(path: str) -> FileContent:
    try:
        kind = file_kind(read_head(path, HEAD_BYTES))
        if kind is None or kind in _OF_ONE_PICTURE:
            return _content_of_one(kind)
        with open_regular(path, max_bytes=_ANY_SIZE) as file:
            return FileContent(kind, picture_pages(file, kind))
    except (ImageRefused, OSError):  # the extraction names what cannot be opened
        return _content_of_one(None)


@cache
def _content_of_one(kind: str | None) -> FileContent:
    """Return the content of a file of one picture, as a million files share it."""
    return FileContent(kind)
