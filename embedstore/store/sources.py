"""What a store was made from, without the paths of the machine that made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from embedstore.store.reader import Store


@dataclass(frozen=True)
class Source:
    """A data set in a store.

    Parameters
    ----------
    store
        Name of the store's folder.
    dataset
        Registered name of the reader.
    folder
        Name of the data set's folder.
    phantom
        Whether the images are drawn by a computer and show no patient.
    """

    store: str
    dataset: str
    folder: str
    phantom: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "store": self.store,
            "dataset": self.dataset,
            "folder": self.folder,
            "phantom": self.phantom,
        }


def sources_of(store: Store) -> tuple[Source, ...]:
    """Return the data sets of a store's parts, each once, in the order of the parts."""
    name = store.path.absolute().name
    plans = (part.plan for part in store.parts)
    found = (Source(name, plan.dataset, PurePath(plan.root).name, plan.phantom) for plan in plans)
    return tuple(dict.fromkeys(found))
