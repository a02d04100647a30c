"""Safe opening of untrusted files; every failure of a parser becomes an `ImageRefused`."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from embedstore.errors import ImageRefused, Reason

_LONGEST_MESSAGE = 160
_ANY_SIZE = 1 << 62
_TALKATIVE = ("pydicom", "PIL")
_ADDRESS = re.compile(r"\s*<[^<>]* object at 0x[0-9a-f]+>")


class BoundedReader(io.BufferedReader):
    """A file that never reserves memory for more bytes than it has left.

    ``read(n)`` of the standard library reserves n bytes first, and a lying length field asks for 4 GiB.
    """

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw, buffer_size=1 << 16)
        self.size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes, or all that are left."""
        if size is None or size < 0:
            return super().read()
        return super().read(min(size, max(0, self.size - self.tell())) if size > 1 << 16 else size)


def open_regular(path: str, *, max_bytes: int) -> BoundedReader:
    """Open a regular file of at most `max_bytes` for reading.

    Pipes, devices and sockets are not waited for: they are refused.

    Raises
    ------
    ImageRefused
        With ``missing`` if there is no such file, ``too-large`` beyond the limit, ``no-pixels`` for an
        empty file, and ``unreadable`` for anything that is not a readable regular file.
    """
    return BoundedReader(io.FileIO(_open(path, max_bytes), "rb"))


def read_head(path: str, size: int) -> bytes:
    """Return the first `size` bytes of a regular file of any length; for a look at very many files.

    Raises
    ------
    ImageRefused
        As `open_regular`.
    """
    descriptor = _open(path, _ANY_SIZE)
    try:
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def _open(path: str, max_bytes: int) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        gone = error.errno in {errno.ENOENT, errno.ENOTDIR}
        raise ImageRefused(
            Reason.MISSING if gone else Reason.UNREADABLE,
            "the file does not exist" if gone else f"the file cannot be opened: {error.strerror}",
        ) from error
    except ValueError as error:  # a NUL in the name
        raise ImageRefused(Reason.MISSING, f"no file can have this name: {error}") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= max_bytes:
        return descriptor
    os.close(descriptor)
    raise _refusal_of(status, max_bytes)


def _refusal_of(status: os.stat_result, max_bytes: int) -> ImageRefused:
    if not stat.S_ISREG(status.st_mode):
        return ImageRefused(Reason.UNREADABLE, "the path must name a regular file; found a folder or device")
    if status.st_size > max_bytes:
        return ImageRefused(
            Reason.TOO_LARGE, f"a file may have at most {max_bytes:,} bytes; found {status.st_size:,}"
        )
    return ImageRefused(Reason.NO_PIXELS, "the file is empty")


def describe(error: Exception) -> str:
    """Return one short printable line about `error`, without object addresses."""
    text = _ADDRESS.sub("", str(error))
    line = "".join(character if character.isprintable() else " " for character in text)[:_LONGEST_MESSAGE]
    return f"{kind_of(error)}: {line.strip()}" if line.strip() else kind_of(error)


def kind_of(error: Exception) -> str:
    """Return the kind of `error` alone: a message about a DICOM value may quote a name or a date."""
    return type(error).__name__


@contextmanager
def refusing(what: str, *, told_by: Callable[[Exception], str] = describe) -> Iterator[None]:
    """Turn whatever a parser raises on a hostile file into a refusal that starts with `what`.

    Parsers of image formats raise ``IndexError``, ``KeyError``, ``struct.error``, ``RecursionError`` and
    worse on malformed bytes, so this is the one place that catches `Exception`; only calls into such
    parsers belong inside. Their warnings and log records tell of the file, not of this program, and may quote
    a patient's name: neither gets out.

    Parameters
    ----------
    what
        What failed, for people.
    told_by
        How much of the parser's error may be repeated: `describe` or `kind_of`.

    Raises
    ------
    ImageRefused
        With ``too-large`` for exhausted memory, else ``unreadable``; refusals pass unchanged.
    """
    with warnings.catch_warnings(), _silenced_loggers():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImageRefused:
            raise
        except MemoryError as error:
            raise ImageRefused(Reason.TOO_LARGE, f"{what}: it needs more memory than is allowed") from error
        except Exception as error:
            raise ImageRefused(Reason.UNREADABLE, f"{what}: {told_by(error)}") from error


@contextmanager
def _silenced_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.propagate = False
        if not logger.handlers:  # without any, logging's last resort would print to stderr
            logger.addHandler(logging.NullHandler())
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.propagate = propagate
