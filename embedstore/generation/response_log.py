"""The file of answers while it is written: whole lines, made durable batch by batch, and gone on with after any end.

One JSON object a line, as `heads.lumbar.response_file.read_responses` takes it. A process that is killed leaves whole
lines and at most the beginning of one, which the next run drops. Every line says how it was made (``settings``), and a
file is only gone on with by the same settings.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from embedstore.errors import DataError, StoreBusy, UsageError
from embedstore.files import StrPath, failpoint, fsync_folder

_SHOWN = 60


class ResponseLog:
    """A file of answers that is written; use it as a context manager.

    Parameters
    ----------
    path
        The file; its folder must exist.
    settings
        What the answers are made by, plain JSON values: model, prompt, slices and the like.

    Attributes
    ----------
    done
        Ids of the studies that the file answers already.

    Raises
    ------
    UsageError
        If the folder does not exist, or the file was written by other settings.
    DataError
        If the file holds other lines than those of a generation.
    StoreBusy
        If another process is writing it.
    """

    def __init__(self, path: StrPath, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.settings = dict(settings)
        self.done: dict[str, None] = {}
        self._file: IO[bytes] | None = None
        self._is_new = False

    def __enter__(self) -> Self:
        if not self.path.parent.is_dir():
            raise UsageError(f"`out`: the folder {self.path.parent} does not exist")
        if self.path.is_dir():
            raise UsageError(f"`out` must be a file of JSON lines; {self.path} is a folder")
        self._is_new = not self.path.exists()
        file = self.path.open("a+b")
        try:
            self._lock(file)
            self._read(file)
        except BaseException:
            file.close()
            raise
        if self._is_new:
            fsync_folder(self.path.parent)
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            if self._is_new and not self.done:
                self.path.unlink(missing_ok=True)  # a run that failed at once leaves nothing

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add answers, each with ``study_id``, and make them durable."""
        if self._file is None:
            raise RuntimeError("a ResponseLog is written inside its with block")
        text = "".join(
            json.dumps({**line, "settings": self.settings}, ensure_ascii=False, allow_nan=False) + "\n"
            for line in lines
        )
        failpoint("responses.append")
        payload = text.encode()
        # In two pieces with a place to die between them, so that a test can leave half a line.
        self._file.write(payload[: len(payload) // 2])
        self._file.flush()
        failpoint("responses.half")
        self._file.write(payload[len(payload) // 2 :])
        self._file.flush()
        os.fsync(self._file.fileno())
        failpoint("responses.durable")
        self.done.update(dict.fromkeys(str(line["study_id"]) for line in lines))

    def _lock(self, file: IO[bytes]) -> None:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return  # a file system without locks
            raise StoreBusy(
                f"{self.path} is being written by another process; wait for it, or name another `out`"
            ) from error

    def _read(self, file: IO[bytes]) -> None:
        """Take over the studies of an earlier run, and cut off a line that it did not finish."""
        file.seek(0)
        payload = file.read()
        whole = payload.rfind(b"\n") + 1
        for number, line in enumerate(payload[:whole].split(b"\n")[:-1], 1):
            entry = self._entry(line, number)
            self.done[str(entry["study_id"])] = None
        if whole < len(payload):
            # What stands there must be the beginning of such a line, or the file is somebody else's.
            if not payload[whole:].startswith(b'{"study_id"'[: len(payload) - whole]):
                raise self._foreign(payload[whole:], 1 + payload[:whole].count(b"\n"))
            file.truncate(whole)
            file.seek(0, os.SEEK_END)

    def _entry(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._foreign(line, number) from error
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("settings"), dict)
            or "study_id" not in entry
        ):
            raise self._foreign(line, number)
        found = entry["settings"]
        differing = [name for name in self.settings | found if self.settings.get(name) != found.get(name)]
        if differing:
            told = "; ".join(
                f"{name} is {_short(found.get(name))} there and {_short(self.settings.get(name))} now"
                for name in differing
            )
            raise UsageError(
                f"{self.path}, line {number}, was written by other settings: {told}. Give the same ones to go on, or "
                "name another `out`"
            )
        return entry

    def _foreign(self, line: bytes, number: int) -> DataError:
        return DataError(
            f"{self.path}, line {number}: must be an answer that `embed generate` wrote, to go on with it; found "
            f"{line[:_SHOWN].decode(errors='replace')!r}. Name another file"
        )


def _short(setting: object) -> str:
    text = "nothing" if setting is None else str(setting)
    # Digests are told apart by their beginnings.
    return text[:12] if len(text) == 64 and text.isalnum() else text
