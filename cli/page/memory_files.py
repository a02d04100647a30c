"""Files that were sent to the page: bytes without a name on any disk, under paths that decoding processes can open."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from embedstore.errors import UsageError
from embedstore.images.file_kind import HEAD_BYTES, file_kind

_COPIED_BYTES = 1 << 20
# Of one study: RSNA's largest have some 300 slices, a thin CT 3,000.
MOST_FILES = 5_000
_ZIP = b"PK\x03\x04"


class TooMuch(UsageError):
    """What was sent is larger than is allowed."""


class MemoryFiles:
    """Files in memory; use it as a context manager, at whose end they are gone.

    On Linux a file is memory that the kernel frees with its last holder, whatever ends this process; a folder of
    links gives it a path. Elsewhere it is a file in a folder of this user's alone, which is removed at the end.

    Parameters
    ----------
    limit_bytes
        What all of them may have together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.paths: list[Path] = []
        self._top = ""
        self._left = limit_bytes
        self._open: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        # Whoever completes studies looks into neighbouring folders, so this one has none.
        self._top = tempfile.mkdtemp(prefix="embedstore-page-")
        self.folder.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._open:
            file.close()
        self._open.clear()
        self.paths.clear()
        shutil.rmtree(self._top, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """Where the paths lie."""
        return Path(self._top) / "sent"

    def begin(self) -> None:
        """Begin a new file; raises TooMuch where there are too many."""
        if len(self.paths) >= MOST_FILES:
            raise TooMuch(f"at most {MOST_FILES:,} files can be sent at once")
        path = self.folder / f"file-{len(self.paths):04d}"
        if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
            descriptor = os.memfd_create("embedstore-sent", os.MFD_CLOEXEC)
            path.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._open.append(os.fdopen(descriptor, "r+b", buffering=0))
        self.paths.append(path)

    def write(self, data: bytes) -> None:
        """Append to the file that was begun last; raises TooMuch beyond the limit."""
        self._left -= len(data)
        if self._left < 0:
            raise TooMuch(f"what is sent may have {self.limit_bytes / 1e6:,.0f} MB; this is more")
        view = memoryview(data)
        while view:
            view = view[self._open[-1].write(view) :]

    def expand_archives(self) -> None:
        """Replace each zip archive by the files in it; archives inside archives stay what they are.

        Raises
        ------
        TooMuch
            If what is inside has more bytes than `limit_bytes`, whatever the archive claims.
        UsageError
            If an archive is damaged or encrypted.
        """
        sent = list(zip(self.paths, self._open, strict=True))
        archives = [entry for entry in sent if _head(entry[1]) == _ZIP]
        for entry in archives:
            path, file = entry
            try:
                with zipfile.ZipFile(file) as archive:
                    self._expand(archive)
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
                raise UsageError(f"the zip archive cannot be read: {error}") from error
            self._let_go(path, file)
        if not self.paths:
            raise UsageError("the zip archive holds no file")

    def leave_out_others(self) -> int:
        """Let go of what is no image, as a text or a report beside the slices of a study, where images are left.

        Returns how many files these were.
        """
        sent = list(zip(self.paths, self._open, strict=True))
        others = [entry for entry in sent if file_kind(_head(entry[1], HEAD_BYTES)) is None]
        if len(others) == len(sent):
            return 0
        for path, file in others:
            self._let_go(path, file)
        return len(others)

    def _let_go(self, path: Path, file: IO[bytes]) -> None:
        path.unlink()
        self.paths.remove(path)
        self._open.remove(file)
        file.close()

    def _expand(self, archive: zipfile.ZipFile) -> None:
        # Names inside are never used as paths.
        wanted = [entry for entry in archive.infolist() if not entry.is_dir() and _is_wanted(entry.filename)]
        if len(wanted) > MOST_FILES:
            raise TooMuch(f"the zip archive holds {len(wanted):,} files; at most {MOST_FILES:,} are taken")
        for entry in wanted:
            with archive.open(entry) as inside:
                self.begin()
                while data := inside.read(_COPIED_BYTES):
                    self.write(data)


def _head(file: IO[bytes], count: int = len(_ZIP)) -> bytes:
    return os.pread(file.fileno(), count, 0)


def _is_wanted(name: str) -> bool:
    """Return whether a member of an archive may be an image: no hidden file, nothing of macOS' own."""
    words = name.replace("\\", "/").split("/")
    return not any(word.startswith((".", "__MACOSX")) for word in words if word not in (".", ".."))
