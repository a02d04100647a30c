"""One key for a store: a patient under two ids would be in two folds, learned from and evaluated on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from embedstore.datasets.base import Collection
from embedstore.errors import StoreError
from embedstore.keys.key_file import Key, require_outside
from embedstore.keys.owner_map import remember
from embedstore.store.layout import StoreLayout
from embedstore.store.part_reader import Part
from embedstore.store.reader import Store, open_store

_ID_COLUMNS = ("patient_id", "study_id", "series_id")


def keep_key(collection: Collection, store_path: Path, *, say: Callable[[str], None]) -> Collection:
    """Compare the collection's key with that of the store, write it if it is new, and bring the owner's map up to date.

    Returns
    -------
    Collection
        With a key whose file is there; as it was where it has none.

    Raises
    ------
    StoreError
        If the store was made with another key.
    DataError
        If the key file lies in the store, or it or the map cannot be written.
    """
    key = collection.key
    if key is None:
        return collection
    require_outside(key, store_path)
    if StoreLayout(store_path).store_file.exists():
        store = open_store(store_path)
        require_same_key(store, collection)
        if unknown := _not_comparable(store, collection):
            say(unknown)
    if key.is_new:
        key = key.save()
        say(
            f"made a new key {key.path} (0600): keep it, and outside of the store; without it nobody can make the "
            "same ids again"
        )
    if collection.owner_rows is not None:
        remember(key, collection.owner_rows)
    # What the map holds now has no business in the processes and machines that compute.
    return replace(collection, key=key, owner_rows=None)


def require_same_key(store: Store, collection: Collection) -> None:
    """Refuse a collection whose pseudonyms were made with another key than the store's, or whose paths it shows.

    Raises
    ------
    StoreError
        Which part it is, and what to do.
    """
    key = collection.key
    if key is None:
        return
    for part in store.parts:
        plan, where = part.plan, f"part {part.plan.number} of store {store.path}"
        if plan.key_fingerprint and plan.key_fingerprint != key.fingerprint:
            raise _another_key(key, plan.key_fingerprint, where)
        if plan.dataset == collection.dataset and plan.hides_paths != collection.hides_paths:
            raise StoreError(_other_ids(where, hidden=plan.hides_paths))
        if not plan.key_fingerprint and _shares_ids(part, collection) is False:
            raise _another_key(key, "another fingerprint", where)


def kept_root(collection: Collection, store_path: Path) -> str:
    """Return what a part keeps of its data set's folder: its place seen from the store's, or a pseudonym."""
    root = os.path.abspath(collection.root)
    if collection.key is not None and collection.hides_paths:
        return collection.key.id_of("root", root)
    return os.path.relpath(root, os.path.abspath(store_path.parent))


def _another_key(key: Key, fingerprint: str, where: str) -> StoreError:
    if key.is_new and key.path.exists():
        return StoreError(
            f"{key.path}: another process has made this key file meanwhile; run the same command again"
        )
    if key.is_new:
        return StoreError(
            f"there is no key file {key.path}, and a new key would give the patients of {where} other ids. Name the "
            "key file that the store was made with, or extract into another store"
        )
    return StoreError(
        f"{key.path} is another key than that of {where}: its fingerprint is {key.fingerprint}, the part was made "
        f"with {fingerprint}. Name the key file that the store was made with, or extract into another store"
    )


def _other_ids(where: str, *, hidden: bool) -> str:
    if hidden:
        return f"{where} hides the paths of its images; leave `keep_paths` out, or extract into another store"
    return (
        f"{where} holds images under their paths, from before these were hidden. To hide them, extract into a new "
        "store; to add images to this one as it was begun, give `keep_paths`"
    )


def _shares_ids(part: Part, collection: Collection) -> bool | None:
    """Say whether a part without fingerprint was made with the collection's key; None where nothing can be compared."""
    if part.plan.dataset != collection.dataset:
        return None
    held, found = part.manifest, collection.manifest
    for column in _ID_COLUMNS:
        if (set(held.column(column)) & set(found.column(column))) - {None}:
            return True
    known = dict(zip(held.column("image_id"), held.column("patient_id"), strict=True))
    pairs = zip(found.column("image_id"), found.column("patient_id"), strict=True)
    differs = any(patient is not None and known.get(image_id) is not None for image_id, patient in pairs)
    return False if differs else None


def _not_comparable(store: Store, collection: Collection) -> str | None:
    """Return a line on parts that do not say which key they were made with, and share nothing with the collection."""
    key = collection.key
    parts = [
        part.plan.number
        for part in store.parts
        if part.plan.dataset == collection.dataset
        and not part.plan.key_fingerprint
        and _shares_ids(part, collection) is None
    ]
    if key is None or not parts or any(part.plan.key_fingerprint for part in store.parts):
        return None
    return (
        f"part {parts[0]} of store {store.path} was made before keys were noted, and has no image or patient of this "
        f"data set: whether {key.path} is its key cannot be told. With another key one patient has two ids"
    )
