"""Rewrites the documents of a store of format version 1 as version 2; no vector and no pixel digest is touched.

The order makes a crash harmless. ``store.json`` says first that an upgrade is under way: from then on every program, of
either version, refuses the store, and only this module goes on. Plans and receipts follow, each replaced whole and
recognised by its content when it is met again. ``store.json`` with the new digests comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedstore.errors import CorruptStore
from embedstore.files import StrPath, content_sha256, remove_temporaries
from embedstore.identity import Identity
from embedstore.store.documents import (
    UPGRADING,
    open_store_document,
    parse_store_document,
    read_document,
    read_part_plan,
    write_document,
    write_store_document,
)
from embedstore.store.layout import OLDEST_READ, VECTORS, PartLayout, StoreLayout, planned_arrays
from embedstore.store.store_lock import writer_lock
from embedstore.store.zarr_arrays import create_arrays

VERSION = 1


def upgrade_store(root: StrPath, *, say: Callable[[str], None] = lambda line: None) -> bool:
    """Bring a store to the present format version; a store that has it is left alone.

    Documents that are damaged stay as they are: a verification names them afterwards.

    Parameters
    ----------
    root
        The store's folder.
    say
        Receives one line for each document that could not be upgraded, and when the lock of a dead writer is
        taken over.

    Returns
    -------
    Whether there was anything to do.

    Raises
    ------
    StoreError
        If the folder is not a store, of a newer format version, or its ``store.json`` is damaged.
    StoreBusy
        If another process writes to it.

    Examples
    --------
    >>> es.upgrade_store("mura.store")
    False
    """
    root = Path(root)
    if _is_present(open_store_document(root)):
        return False
    with writer_lock(StoreLayout(root).lock_file, say=say):
        document = open_store_document(root)
        if _is_present(document):
            return False
        remove_temporaries(root)
        identity, listed = parse_store_document(root, document)
        write_store_document(root, identity, listed, upgrading_from=VERSION)
        upgraded = [
            {
                "number": entry["number"],
                "sha256": _upgrade_part(
                    StoreLayout(root).part(entry["number"]), identity, entry["sha256"], say
                ),
            }
            for entry in listed
        ]
        write_store_document(root, identity, upgraded)
    return True


def _is_present(document: Mapping[str, Any]) -> bool:
    return document["format_version"] >= OLDEST_READ and UPGRADING not in document


def _upgrade_part(layout: PartLayout, identity: Identity, listed: str, say: Callable[[str], None]) -> str:
    """Rewrite a part's documents; return the digest of its plan, which is the listed one if it is damaged."""
    try:
        document, digest = _read_plan(layout, identity, listed)
    except CorruptStore as error:
        say(f"not upgraded: {error}")
        return listed
    for path in sorted(layout.receipts.glob("*.json")):
        _upgrade_receipt(path, say)
    if "arrays" not in document:
        digest = write_document(layout.plan_file, _present_plan(document, identity), label="part")
    create_arrays(layout, read_part_plan(layout)[0])
    return digest


def _read_plan(layout: PartLayout, identity: Identity, listed: str) -> tuple[dict[str, Any], str]:
    """Return a plan of either version and its digest, once it is known to be the one that ``store.json`` lists."""
    document, digest = read_document(layout.plan_file)
    # A plan that an interrupted upgrade has rewritten leads back to the one that store.json still lists.
    before = _earlier_plan(document) if "arrays" in document else document
    if content_sha256(before) != listed or before["identity"] != identity.to_json():
        raise CorruptStore(f"{layout.plan_file} is not the plan that store.json lists")
    return document, digest


def _upgrade_receipt(path: Path, say: Callable[[str], None]) -> None:
    try:
        document, _ = read_document(path)
    except CorruptStore as error:
        say(f"not upgraded: {error}")
        return
    if "arrays" not in document:
        write_document(path, _present_receipt(document), label="receipt")


def _present_plan(document: Mapping[str, Any], identity: Identity) -> dict[str, Any]:
    arrays = {name: asdict(array) for name, array in planned_arrays(identity, document["dtype"]).items()}
    return _replaced(document, {"dim": ("arrays", arrays), "dtype": None})


def _earlier_plan(document: Mapping[str, Any]) -> dict[str, Any]:
    vectors = document["arrays"][VECTORS]
    without = {key: document[key] for key in document if key != "arrays"}
    return {**without, "dim": vectors["row_shape"][0], "dtype": vectors["dtype"]}


def _present_receipt(document: Mapping[str, Any]) -> dict[str, Any]:
    vectors = {
        "sha256": document["vectors_sha256"],
        "crc32c": document["vectors_crc32c"],
        "rounding_error": document["rounding_error"],
    }
    return _replaced(
        document,
        {
            "unit": ("chunk", document.get("unit")),
            "vectors_sha256": ("arrays", {VECTORS: vectors}),
            "vectors_crc32c": None,
            "rounding_error": None,
        },
    )


def _replaced(document: Mapping[str, Any], changes: Mapping[str, tuple[str, Any] | None]) -> dict[str, Any]:
    """Return a document with members replaced by ``(name, value)`` in place, or left out."""
    found: dict[str, Any] = {}
    for key, entry in document.items():
        change = changes.get(key, (key, entry))
        if change is not None:
            found[change[0]] = change[1]
    return found
