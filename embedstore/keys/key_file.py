"""Key files: read where they are, made where they are not, and only when something is really written."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from embedstore.errors import DataError
from embedstore.files import StrPath, fsync_folder
from embedstore.keys.keyed_ids import fingerprint_of, identifier_bytes, keyed_id

SHORTEST_KEY_BYTES = 16


@dataclass(frozen=True)
class Key:
    """The secret behind pseudonyms.

    Parameters
    ----------
    path
        The key file.
    secret
        Its content without blanks at the ends.
    is_new
        Whether it is only in memory so far; `save` writes the file.
    """

    path: Path
    secret: bytes = field(repr=False)
    is_new: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """What a store keeps of its key, to know it again."""
        return fingerprint_of(self.secret)

    def id_of(self, level: str, identifier: str) -> str:
        """Return the pseudonym of an identifier (`embedstore.keys.keyed_ids.keyed_id`)."""
        return keyed_id(self.secret, level, identifier_bytes(identifier))

    def save(self) -> Key:
        """Write a new key, readable by its owner only, and return it as one that is kept.

        Raises
        ------
        DataError
            If the file cannot be written, or another process has made one there meanwhile.
        """
        if not self.is_new:
            return self
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.secret + b"\n")
                file.flush()
                os.fsync(file.fileno())
            fsync_folder(self.path.parent)
        except FileExistsError as error:
            raise DataError(
                f"{self.path}: another process has made this key file meanwhile; run the same command again"
            ) from error
        except OSError as error:
            raise _unusable(self.path, error) from error
        return replace(self, is_new=False)


def read_key(path: StrPath) -> Key:
    """Read a key file that must be there.

    Raises
    ------
    DataError
        If there is none, it cannot be read, or it is too short for a key.
    """
    place = Path(path)
    key = open_key(place)
    if key.is_new:
        raise DataError(
            f"{place}: there is no such key file. Name the one that the store was made with; an extraction makes a "
            "new one, and that gives other ids"
        )
    return key


def open_key(path: Path) -> Key:
    """Read a key file, or make up a new key in memory where there is no such file; nothing is written.

    Raises
    ------
    DataError
        If it cannot be read, or is too short for a key.
    """
    try:
        secret = path.read_bytes().strip()
    except FileNotFoundError:
        return Key(path, secrets.token_hex(32).encode(), is_new=True)
    except OSError as error:
        raise _unusable(path, error) from error
    if len(secret) < SHORTEST_KEY_BYTES:
        raise DataError(
            f"{path}: a key must have at least {SHORTEST_KEY_BYTES} bytes; found {len(secret)}. "
            "Restore the file, or name one that is not there to make a new key."
        )
    return Key(path, secret)


def require_outside(key: Key, folder: Path) -> None:
    """Refuse a key file inside a store: whoever gets the store would get the key; raises DataError."""
    inside, place = folder.resolve(), key.path.resolve()
    if inside in place.parents:
        raise DataError(
            f"{key.path} lies inside {folder}: whoever gets that folder would get the key. Move the key file out of it"
        )


def _unusable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: the key file can be neither read nor made: {error.strerror}. Choose another place."
    )
