"""What answers are made with, opened: anew for each command, or kept by whoever answers again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cli.notify import Notify
from embedstore.encoders.base import Encoder
from embedstore.encoders.registry import encoder_of_identity
from embedstore.identity import Identity
from embedstore.queries.nearest_cases import LabelledCases, labelled_cases
from embedstore.store.layout import StoreLayout
from embedstore.store.reader import Store, open_store
from embedstore.store.tasks import read_task
from heads.runs.run import Run
from heads.runs.run_files import RUN_FILE, load_run

Found = TypeVar("Found")
# Of each kind: what is kept is as large as a store's vectors or an encoder's weights.
_KEPT = 3


class Openings:
    """Opens runs, stores, encoders and labelled cases.

    Parameters
    ----------
    keep
        Whether what was opened is given again, until its folder is another; also to several threads.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._kept: dict[str, dict[object, object]] = {}
        self._turn = threading.Lock()

    def run(self, folder: Path) -> Run:
        """Return a run; errors as `heads.runs.run_files.load_run`."""
        return self._once("run", (folder, _state(folder / RUN_FILE)), lambda: load_run(folder))

    def store(self, path: Path) -> Store:
        """Return a store as it is now; errors as `embedstore.open_store`."""
        key = state_of_store(path)
        return self._once("store", key, lambda: open_store(path))

    def cases(self, store: Store, task: str, targets: tuple[str, ...]) -> LabelledCases:
        """Return the labelled cases of a store's task."""
        key = (state_of_store(store.path), task, targets)
        return self._once(
            "cases", key, lambda: labelled_cases(store, read_task(store.path, task), list(targets))
        )

    def encoder(
        self, identity: Identity, *, holder: str, name: str | None, device: str, say: Notify
    ) -> Encoder:
        """Return the encoder of an identity; errors as `embedstore.encoders.registry.encoder_of_identity`."""
        return self._once(
            "encoder",
            (identity.sha256, name, device),
            lambda: encoder_of_identity(identity, holder=holder, name=name, device=device, say=say),
        )

    def _once(self, kind: str, key: object, opened: Callable[[], Found]) -> Found:
        if not self._keep:
            return opened()
        with self._turn:
            kept = self._kept.setdefault(kind, {})
            if key not in kept:
                found = opened()
                while len(kept) >= _KEPT:
                    del kept[next(iter(kept))]
                kept[key] = found
            kept[key] = kept.pop(key)  # the last to go
            return kept[key]  # type: ignore[return-value]


def state_of_store(path: Path) -> tuple[object, ...]:
    """Return what is another as soon as a store has changed: its folder, and when its files were written."""
    return (path, *map(_state, _changing(path)))


def _changing(path: Path) -> list[Path]:
    """Return what is written anew when a store changes: its document, and folders in which files come and go."""
    layout = StoreLayout(path)
    parts = sorted(entry for entry in (path / "parts").glob("*") if entry.is_dir())
    receipts = [entry for part in parts for entry in (part, *part.iterdir()) if entry.is_dir()]
    return [layout.store_file, path / "tasks", *receipts]


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
