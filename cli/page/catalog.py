"""The stores and runs that the page shows, by short names: the only names that it takes from a browser."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.studying.predict_options import ProjectData
from embedstore.errors import DataError, UsageError
from embedstore.store.layout import StoreLayout
from heads.runs.run_files import RUN_FILE

_SUFFIX = ".store"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """What may be looked at.

    Parameters
    ----------
    stores, runs
        Short name -> folder.
    project
        The project's data set, whose files have the ids that they have in the store.
    key_file
        Key of stores whose paths are hidden; without it they have no pictures.
    levels, level_places
        As `cli.studying.predict_options.PredictOptions`.
    device
        Device of encoders.
    encoder
        Folder or hub id of the store's encoder; its registered name by default.
    workers
        Decoding processes of an upload.
    """

    stores: Mapping[str, Path]
    runs: Mapping[str, Path] = field(default_factory=dict)
    project: ProjectData = field(default_factory=ProjectData)
    key_file: Path | None = None
    levels: Path | None = None
    level_places: Sequence[Path] = ()
    device: str = "auto"
    encoder: str | None = None
    workers: int = 1

    def store(self, name: object) -> Path:
        """Return a store's folder; raises UsageError for a name that is none."""
        return _named(self.stores, name, "store")

    def run(self, name: object) -> Path:
        """Return a run's folder; raises UsageError for a name that is none."""
        return _named(self.runs, name, "run")

    def runs_of(self, store: Path, identity_sha256: str) -> tuple[list[str], list[str]]:
        """Return the names of the runs that learned from a store, and of others that learned from vectors of its kind.

        Parameters
        ----------
        store
            The store's folder.
        identity_sha256
            Of its vectors.
        """
        own: list[str] = []
        others: list[str] = []
        for name, folder in self.runs.items():
            document = run_document(folder)
            if document.get("identity_sha256") == identity_sha256:
                learned = {source.get("store") for source in document.get("sources") or ()}
                (own if store.name in learned else others).append(name)
        return own, others


def find_stores(named: Sequence[Path], beside: Path) -> dict[str, Path]:
    """Return the stores that are named, and then those that lie in a folder.

    Raises
    ------
    DataError
        If one that is named is no store.
    UsageError
        If there is none at all.
    """
    for path in named:
        if not StoreLayout(path).store_file.is_file():
            raise DataError(f"{path} is no store; `embed extract` makes one")
    others = sorted(entry for entry in beside.glob(f"*{_SUFFIX}") if StoreLayout(entry).store_file.is_file())
    found = _short_names([*named, *others])
    if not found:
        raise UsageError(f"{beside} holds no store; name one with --store, or run `embed extract`")
    return found


def find_runs(places: Sequence[Path]) -> dict[str, Path]:
    """Return the runs in folders of runs, newest first, and those that are named themselves."""
    found: list[Path] = []
    for place in places:
        if (place / RUN_FILE).is_file():
            found.append(place)
        elif place.is_dir():
            inside = [entry for entry in place.iterdir() if "task" in run_document(entry)]
            found += sorted(inside, key=lambda entry: -(entry / RUN_FILE).stat().st_mtime)
    return _short_names(found)


def run_document(folder: Path) -> dict[str, Any]:
    """Return the content of ``run.json``, unchecked, for a list of runs; empty where there is none to be read."""
    try:
        found = json.loads((folder / RUN_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _short_names(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    seen = set()
    for path in paths:
        place = path.resolve()
        if place in seen:
            continue
        seen.add(place)
        base = place.name.removesuffix(_SUFFIX) or place.name
        name, number = base, 2
        while name in found:
            name, number = f"{base}-{number}", number + 1
        found[name] = place
    return found


def _named(known: Mapping[str, Path], name: object, what: str) -> Path:
    if not isinstance(name, str) or name not in known:
        raise UsageError(f"there is no such {what} here")
    return known[name]
