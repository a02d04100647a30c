"""What stores that are asked together must be, and which task is meant where none is named."""

from __future__ import annotations

from collections.abc import Sequence

from embedstore.errors import Advice, DataError, UsageError, first_few
from embedstore.store.reader import Store
from embedstore.store.tasks import DATASET, task_names, task_source

_SHOWN = 3


def require_disjoint(stores: Sequence[Store]) -> None:
    """Refuse stores that plan the same image; also one that failed in one of them, for it would count twice."""
    if len(stores) == 1:
        return
    holder: dict[str, Store] = {}
    for store in stores:
        doubled = [image_id for image_id in store.image_ids if image_id in holder]
        if doubled:
            raise DataError(
                f"{len(doubled):,} images are in store {holder[doubled[0]].path} and in store {store.path}: "
                f"{first_few(map(repr, doubled), shown=_SHOWN)}; stores that "
                "are used together must hold different images"
            )
        holder.update(dict.fromkeys(store.image_ids, store))


def only_task(store: Store) -> str:
    """Return the task of a store that has one, or that brought one; raises UsageError where there are several."""
    names = task_names(store.path)
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError(f"store {store.path} has no task", advice=Advice.ADD_TASK)
    # A label that somebody added for a trial does not change what the store is asked by default.
    brought = [name for name in names if task_source(store.path, name) == DATASET]
    if len(brought) == 1:
        return brought[0]
    raise UsageError(f"`task_name` is needed: store {store.path} has {', '.join(names)}")
