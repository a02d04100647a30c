"""The digest of a weights file, taken once.

Hashing runs at 1.2 GB/s, so a tower of 3.5 GB takes three seconds; a finished store is recognised by it
before every run. The digest is therefore kept outside any store, in the user's cache folder, under the
file's path, size, times and inode. In the hub's cache the blob behind a large file is *named* by its
SHA-256, which serves for recognising; what is about to be computed with is hashed all the same.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import time
from pathlib import Path

from embedstore.errors import DataError
from embedstore.files import sha256_bytes, sha256_file

CACHE_VARIABLE = "XDG_CACHE_HOME"
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A file written less than this ago may change again within the resolution of its time stamp.
_SETTLED_S = 2.0

_log = logging.getLogger(__name__)


def stated_sha256(path: Path) -> str:
    """Return the SHA-256 of a weights file: from the hub cache's metadata, or else `measured_sha256`."""
    target = path.resolve()
    if path.is_symlink() and target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    return measured_sha256(path)


def measured_sha256(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, from the cache if the file has not changed since."""
    target = path.resolve()
    stamp = _stamp(target)
    place = _cache_folder() / f"{sha256_bytes(os.fsencode(target))}.json"
    known = _read(place)
    if known.get("stamp") == stamp and _SHA256.fullmatch(str(known.get("sha256"))):
        return str(known["sha256"])
    digest = sha256_file(target)
    if _stamp(target) != stamp:
        raise DataError(f"weights {path} changed while they were read; wait until the copy is complete")
    if time.time() - target.stat().st_mtime > _SETTLED_S:
        _write(place, {"stamp": stamp, "sha256": digest})
    return digest


def check_blob(path: Path) -> None:
    """Check that a weights file is what its name in the hub's cache says.

    Raises
    ------
    DataError
        If its bytes have another digest: a flipped bit, or a download that went wrong unseen.
    """
    stated = stated_sha256(path)
    measured = measured_sha256(path)
    if stated != measured:
        raise DataError(
            f"weights {path} are damaged: the hub names them {stated[:12]}, their SHA-256 is "
            f"{measured[:12]}. Delete {path.resolve()} and download again"
        )


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _cache_folder() -> Path:
    root = os.environ.get(CACHE_VARIABLE)
    return (Path(root) if root else Path.home() / ".cache") / "embedstore" / "digests"


def _read(place: Path) -> dict[str, object]:
    try:
        known = json.loads(place.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(place: Path, known: dict[str, object]) -> None:
    # Several workers may write at once, so each has a temporary name of its own. A folder that cannot be
    # written costs the next run some seconds, and nothing else.
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, suffix=".tmp", delete=False) as file:
            json.dump(known, file)
        Path(file.name).replace(place)
    except OSError as error:
        _log.info("the digest of the weights is not kept: %s", error)
