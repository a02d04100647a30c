"""Durable writes and digests: the only way a byte reaches a store.

A write is a temporary file, ``fsync``, a rename, and an ``fsync`` of the folder, so that after a
power cut a name holds either its old bytes or its new ones. Each step passes a named failpoint,
at which the crash tests stop the process.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

# How public functions take the name of a file or folder.
StrPath = str | os.PathLike[str]
TEMPORARY_SUFFIX = ".tmp"
DIGEST_BYTES = 16
FAILPOINT_VARIABLE = "EMBEDSTORE_FAILPOINT"
FAILPOINT_EXIT_CODE = 86
_STEPS = ("write", "written", "fsynced", "renamed", "durable")
# Made once: `json.dumps` would make one for every receipt that an opened store reads.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_hits: dict[str, int] = {}


def failpoint_names(*labels: str) -> list[str]:
    """Return the failpoints that writes under `labels` pass, in order."""
    return [f"{label}.{step}" for label in labels for step in _STEPS]


def failpoint(name: str) -> None:
    """Stop the process here when the environment says so; otherwise do nothing.

    ``EMBEDSTORE_FAILPOINT=vectors.written`` kills the process at the first pass, ``…written:3`` at the
    third, as ``SIGKILL`` would: no clean-up runs. ``…write:3=ENOSPC`` raises that ``OSError`` instead,
    at the third pass and every later one, as a full disk does.
    """
    wanted = os.environ.get(FAILPOINT_VARIABLE)
    if not wanted:
        return
    place, _, error_name = wanted.partition("=")
    place, _, count = place.partition(":")
    if place != name:
        return
    _hits[name] = _hits.get(name, 0) + 1
    if _hits[name] < int(count or 1):
        return
    if error_name:
        code = getattr(errno, error_name)
        raise OSError(code, os.strerror(code), name)
    os._exit(FAILPOINT_EXIT_CODE)


def write_durable(path: Path, payload: bytes | memoryview, *, label: str, mode: int = 0o666) -> None:
    """Replace `path` by `payload` so that a crash leaves the old bytes or the new, never a mixture.

    Parameters
    ----------
    path
        Target; its folder must exist.
    payload
        The whole new content.
    label
        Prefix of the failpoints on the way (`failpoint_names`).
    mode
        Who may read and write it, less what the umask takes away.

    Raises
    ------
    OSError
        As the file system raises it (full, read-only, ...); the old content is then still there.
    """
    # No two writes share a temporary name, so that workers on many hosts may write the same file at once:
    # whoever renames last wins, and nobody's half-written bytes get a name.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    failpoint(f"{label}.write")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
            file.flush()
            failpoint(f"{label}.written")
            os.fsync(file.fileno())
        failpoint(f"{label}.fsynced")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    failpoint(f"{label}.renamed")
    fsync_folder(path.parent)
    failpoint(f"{label}.durable")


def parquet_bytes(table: pa.Table) -> bytes:
    """Return `table` as Parquet; the same table gives the same bytes with the same library."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def table_of_parquet(payload: bytes, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table that Parquet bytes hold, or only its `columns`, read in this thread alone.

    ``pq.read_table`` reads in a thread of Arrow's even when it is told to use none. A thread that lets go of
    `payload` while Python is ending unwinds through C++ that forbids it, and the process aborts.
    """
    return pq.ParquetFile(pa.BufferReader(payload), pre_buffer=False).read(columns, use_threads=False)


def write_table_durable(path: Path, table: pa.Table, *, label: str) -> str:
    """Write `table` as Parquet (`write_durable`), making its folder; return the file's SHA-256."""
    make_folder_durable(path.parent)
    payload = parquet_bytes(table)
    write_durable(path, payload, label=label)
    return sha256_bytes(payload)


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder_durable(folder: Path) -> None:
    """Create `folder` and its missing parents, and make each new name durable."""
    missing = []
    current = folder
    while not current.exists():
        missing.append(current)
        current = current.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        fsync_folder(new.parent)


def remove_temporaries(folder: Path) -> int:
    """Delete what interrupted writes left below `folder` and return how many files that were.

    Only for whoever knows that nobody writes there: a living writer's file looks the same.
    """
    leftovers = [path for path in folder.rglob(f"*{TEMPORARY_SUFFIX}") if path.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def canonical_json(document: Any) -> bytes:
    """Encode `document` in one form only: sorted keys, no spaces, UTF-8, no NaN."""
    return _CANONICAL.encode(document).encode()


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON document with the digest of its own content as ``sha256``."""
    return {**document, "sha256": content_sha256(document)}


def content_sha256(document: Mapping[str, Any]) -> str:
    """Return the digest of a document's content, what it says of it left out."""
    return sha256_bytes(canonical_json({key: document[key] for key in document if key != "sha256"}))


def sha256_bytes(payload: bytes | memoryview) -> str:
    """Return the SHA-256 of `payload` in hexadecimal."""
    return hashlib.sha256(payload).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the file's content in hexadecimal, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def iter_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield ``(line number from 1, text without the line end)`` of a UTF-8 file, a BOM aside."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, line in enumerate(file, start=1):
            yield number, line.rstrip("\r\n")


class FileState(NamedTuple):
    """How a file is, or was when it was read.

    Parameters
    ----------
    size
        Bytes.
    mtime_ns
        Time of modification in ns.
    digest
        The first 16 bytes of its SHA-256; ``b""`` where nobody has digested it.
    """

    size: int
    mtime_ns: int
    digest: bytes = b""

    def is_same_time(self, other: FileState) -> bool:
        """Whether size and time are equal, whatever the content."""
        return self[:2] == other[:2]


# Of a row whose file was not there.
ABSENT = FileState(-1, 0)


def state_of(path: str) -> FileState | None:
    """Return size and time of a file now; None where there is none to be read."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileState(found.st_size, found.st_mtime_ns)


def digested(path: str, state: FileState) -> FileState:
    """Return the state of a file with its digest; without one if the file is another by now, or cannot be read."""
    digest = _digest_of_file(path, state.size, state.mtime_ns)
    after = state_of(path)
    return state._replace(digest=digest if after is not None and state.is_same_time(after) else b"")


def is_same_file(path: str, before: FileState) -> bool:
    """Whether a file holds what another did whose digest is known; not where its digest is not known."""
    now = state_of(path)
    if now is None or now.size != before.size or not before.digest:
        return False
    return digested(path, now).digest == before.digest


# Of a file with many frames, every row asks for the same.
@lru_cache(maxsize=4096)
def _digest_of_file(path: str, size: int, mtime_ns: int) -> bytes:
    del size, mtime_ns  # another size or time is another file
    return digest_of(path)


def digest_of(path: str) -> bytes:
    """Return the first bytes of a file's SHA-256, as `FileState.digest` has them; none if it cannot be read."""
    try:
        return bytes.fromhex(sha256_file(Path(path)))[:DIGEST_BYTES]
    except OSError:
        return b""
