"""Plans what a data set needs in a store: a part for its new records, and its tasks."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pyarrow.compute as pc

from embedstore.brief import in_bytes
from embedstore.datasets.base import Collection
from embedstore.errors import StoreBusy
from embedstore.extraction.options import ExtractOptions
from embedstore.extraction.same_key import kept_root, require_same_key
from embedstore.identity import Identity
from embedstore.manifest import Manifest
from embedstore.revisions.compare import changes_of, lines_of
from embedstore.revisions.revise import note_files, revise, withdraw_from
from embedstore.revisions.series import with_whole_series
from embedstore.revisions.sources import changed_files
from embedstore.store.documents import open_store_document, read_store_document
from embedstore.store.layout import FORMAT_VERSION, VECTORS, PartPlan, StoreLayout
from embedstore.store.part_reader import open_part
from embedstore.store.reader import Store, open_store
from embedstore.store.store_lock import BRIEF_WAIT_S, PLANNING, BrieflyBusy
from embedstore.store.tasks import DATASET, LABEL, holds_task, task_source, write_task
from embedstore.store.writer import StoreWriter, open_writer
from embedstore.tables.remarks import counted
from embedstore.task import Task

_NOTED_LIBRARIES = ("embedstore", "numpy", "pillow", "pydicom", "torch", "zarr")
_POLL_S = 0.1


def wanted_records(collection: Collection, options: ExtractOptions) -> Manifest:
    """Return the records that are asked for."""
    return collection.manifest.first(options.limit)


def planned_store(
    store_path: Path, identity: Identity, collection: Collection, wanted: Manifest
) -> Store | None:
    """Return the store if it agrees with the data set, else None.

    It has a row for every record of `wanted`, says of it what the data set says, holds no vector of a file that was
    changed since, and has every task of the data set. A task that is labelled by hand stands for
    the data set's of that name.

    Raises
    ------
    IdentityMismatch
        If the store holds embeddings of another identity.
    """
    if not StoreLayout(store_path).store_file.exists():
        return None
    store = open_store(store_path)
    store.identity.require_same(identity, holder=f"store {store_path}")
    if open_store_document(store_path)["format_version"] < FORMAT_VERSION:
        return None
    if changes_of(store, wanted) or changed_files(store, wanted, collection.root, kept=collection.kept_state):
        return None
    if len(_unknown(store, wanted)) or any(_is_stale(store_path, task) for task in collection.tasks):
        return None
    return store


def write_plan(
    writer: StoreWriter,
    collection: Collection,
    wanted: Manifest,
    options: ExtractOptions,
    *,
    say: Callable[[str], None],
) -> Store:
    """Bring the store's facts up to date, plan a part for records that no part holds yet, and return the store."""
    store = open_store(writer.root)
    require_same_key(store, collection)
    store = _revised(store, collection, wanted, say)
    new = _unknown(store, wanted)
    if len(new):
        plan = writer.plan_part(
            new,
            dataset=collection.dataset,
            data_root=kept_root(collection, writer.root),
            chunk_rows=options.chunk_rows,
            dtype=options.store_dtype,
            tables=collection.tables,
            phantom=collection.phantom,
            key_fingerprint=collection.key.fingerprint if collection.key else "",
            hides_paths=collection.hides_paths,
        )
        for line in sizes_of(plan):
            say(line)
        part = open_part(StoreLayout(writer.root).part(plan.number), plan)
        store = replace(store, parts=(*store.parts, part))
    for task in collection.tasks:
        if not _is_stale(writer.root, task):
            continue
        if task_source(writer.root, task.name) is not None:
            say(f"task {task.name} is written anew: the store's is not the one that the data set brings")
        write_task(writer.root, task, source=DATASET)
    return store


def sizes_of(plan: PartPlan) -> list[str]:
    """Return a line for people on each further array of a part: its size, beside that of the vectors."""
    beside = f"beside {in_bytes(plan.rows * plan.vectors.row_bytes)} of vectors"
    return [
        f"{name}: {' x '.join(map(str, array.row_shape))} numbers of {array.dtype}, "
        f"{in_bytes(array.row_bytes)} an image: {in_bytes(plan.rows * array.row_bytes)} for "
        f"{counted(plan.rows, 'image')}, {beside}"
        for name, array in plan.arrays.items()
        if name != VECTORS
    ]


def _revised(store: Store, collection: Collection, wanted: Manifest, say: Callable[[str], None]) -> Store:
    """Take over what the data set says of rows that the store holds; return the store as it is then."""
    changes = changes_of(store, wanted, collection.root)
    if changes:
        revise(store.path, changes)
        for line in lines_of(changes):
            say(f"revised, {line}")
        _say_requeued((entry.stale for entry in changes), "what the data set says of the pixels changed", say)
        store = open_store(store.path)
    files = changed_files(store, wanted, collection.root, kept=collection.kept_state)
    if not files:
        return store
    for part in store.parts:
        note_files(part, files.rewritten.get(part.plan.number, {}))
    store = open_store(store.path)
    stale = with_whole_series(store, files.other)
    withdraw_from({part.plan.number: part for part in store.parts}, stale, seeds=files.other)
    _say_requeued(stale.values(), "the files were changed since they were read", say)
    return open_store(store.path)


def _say_requeued(stale: Iterable[Mapping[int, str]], why: str, say: Callable[[str], None]) -> None:
    requeued = sum(map(len, stale))
    if requeued:
        say(f"{counted(requeued, 'image')} will be computed again: {why}")


def ensure_planned(
    store_path: Path,
    identity: Identity,
    collection: Collection,
    wanted: Manifest,
    options: ExtractOptions,
    *,
    say: Callable[[str], None],
    wait_s: float = BRIEF_WAIT_S,
) -> Store:
    """Plan what is missing, or wait until another process has: whoever comes first does it for all.

    Returns
    -------
    The store, with a row for every record of `wanted`.

    Raises
    ------
    StoreBusy
        If the store is held by a process that does not plan, or workers are busy with an older plan.
    """
    deadline = time.monotonic() + wait_s
    told = False
    while (store := planned_store(store_path, identity, collection, wanted)) is None:
        try:
            with open_writer(
                store_path, identity, say=say, versions=library_versions(), purpose=PLANNING
            ) as writer:
                return write_plan(writer, collection, wanted, options, say=say)
        except BrieflyBusy as error:
            if time.monotonic() > deadline:
                raise
            if not told:
                say(f"waiting: {error}")
                told = True
            time.sleep(_POLL_S)
        except StoreBusy:
            # The holders may be workers that began as soon as another process had planned.
            store = planned_store(store_path, identity, collection, wanted)
            if store is None:
                raise
            return store
    return store


def revision_numbers(store_path: Path) -> dict[int, int]:
    """Return how often each part was revised; nothing without a store."""
    if not StoreLayout(store_path).store_file.exists():
        return {}
    _, listed = read_store_document(store_path)
    return {entry["number"]: entry["revision"] for entry in listed}


def revised_columns(store: Store, *, since: Mapping[int, int]) -> dict[str, int]:
    """Return column -> rows that revisions have changed since a state of `revision_numbers`."""
    changed: Counter[str] = Counter()
    for part in store.parts:
        for revision in part.plan.revisions[since.get(part.plan.number, 0) :]:
            changed.update(revision.columns)
    return dict(changed)


def say_kept_tasks(store_path: Path, collection: Collection, say: Callable[[str], None]) -> None:
    """Say which tasks of the data set are left out, as a person has labelled others of their names."""
    for task in collection.tasks:
        if _is_labelled(store_path, task) and not holds_task(store_path, task):
            say(
                f"task {task.name} is kept as `embed label` wrote it; remove tasks/{task.name} from the store to "
                "take the data set's"
            )


def say_rows_left_over(store: Store, collection: Collection, say: Callable[[str], None]) -> None:
    """Say how many images the store holds that the data set it was made from does not have, or no longer has."""
    ids = collection.manifest.table.column("image_id").combine_chunks()
    made_from = (collection.dataset, kept_root(collection, store.path))
    count = sum(
        int(pc.sum(pc.invert(pc.is_in(part.image_id_table().column("image_id"), value_set=ids))).as_py() or 0)
        for part in store.parts
        if (part.plan.dataset, part.plan.root) == made_from
    )
    if count:
        say(
            f"{counted(count, 'image')} of the store {'is' if count == 1 else 'are'} not in the data set (removed from "
            "it, or left out by conditions); what was computed stays. A new store leaves them out"
        )


def library_versions() -> dict[str, str]:
    """Return the versions that receipts note."""
    return {"python": platform.python_version(), **{name: version(name) for name in _NOTED_LIBRARIES}}


def _is_labelled(store_path: Path, task: Task) -> bool:
    """Whether the store's task of this name was written by a person and not for the data set."""
    return task_source(store_path, task.name) == LABEL


def _is_stale(store_path: Path, task: Task) -> bool:
    """Whether the store lacks the data set's task, or holds another that is the data set's to replace."""
    return not _is_labelled(store_path, task) and not holds_task(store_path, task)


def _unknown(store: Store, wanted: Manifest) -> Manifest:
    """Return the records of `wanted` that no part of the store holds."""
    if not store.parts:
        return wanted
    return wanted.without(store.table.column("image_id").combine_chunks())
