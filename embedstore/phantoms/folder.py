"""The folder that a phantom is written to: marked as one, and never somebody's data."""

from __future__ import annotations

from pathlib import Path

from embedstore.datasets.base import NOTICE
from embedstore.errors import DataError


def claim_folder(folder: Path, notice: str) -> None:
    """Make `folder` and put the notice into it.

    Parameters
    ----------
    folder
        Must be absent, empty or hold the very same phantom, which is then written again.
    notice
        Text for people, with everything that the phantom's bytes depend on.

    Raises
    ------
    DataError
        If the folder holds anything else: nothing is ever written over it.
    """
    path = folder / NOTICE
    if path.is_file() and path.read_text(encoding="utf-8") == notice:
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder}: must be absent, empty or this very phantom (same size and seed); it holds "
            "something else, which is never written over. Choose another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(notice, encoding="utf-8")
