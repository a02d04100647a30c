"""What a store was made from, without the paths of the machine that made it."""

from __future__ import annotations

from pathlib import PurePath

from embedstore.store.reader import Store
from embedstore.view import Source


def sources_of(store: Store) -> tuple[Source, ...]:
    """Return the data sets of a store's parts, each once, in the order of the parts."""
    name = store.path.absolute().name
    plans = (part.plan for part in store.parts)
    found = (Source(name, plan.dataset, PurePath(plan.root).name, plan.phantom) for plan in plans)
    return tuple(dict.fromkeys(found))
