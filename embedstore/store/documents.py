"""Reads and writes the JSON documents of a store, each sealed with the SHA-256 of its own content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedstore.errors import Advice, CorruptStore, DataError, StoreError, first_few, nearest
from embedstore.files import content_sha256, sealed, write_durable
from embedstore.identity import Identity, identity_from_json
from embedstore.store.layout import (
    FORMAT,
    FORMAT_VERSION,
    OLDEST_READ,
    STORE_FILE,
    PartLayout,
    PartPlan,
    StoreLayout,
)
from embedstore.store.receipt import Receipt

# Stands in store.json while an upgrade rewrites the other documents: whoever opens the store then is sent back to it.
UPGRADING = "upgrading_from"


def write_document(path: Path, document: Mapping[str, Any], *, label: str) -> str:
    """Write a JSON document with the digest of its own content, durably; return that digest."""
    with_digest = sealed(document)
    text = json.dumps(with_digest, indent=1, ensure_ascii=False, allow_nan=False)
    write_durable(path, (text + "\n").encode(), label=label)
    return str(with_digest["sha256"])


def read_document(path: Path) -> tuple[dict[str, Any], str]:
    """Read a document that `write_document` wrote; return its content and digest.

    Raises
    ------
    CorruptStore
        If the file is missing, is no JSON object, or its content is not what was written.
    """
    try:
        with path.open("rb", buffering=0) as file:
            document = json.loads(file.readall())
    except FileNotFoundError as error:
        raise CorruptStore(f"{path} is missing", advice=Advice.REPAIR) from error
    except (ValueError, RecursionError) as error:
        raise CorruptStore(
            f"{path} is damaged: it must hold JSON, found {error}", advice=Advice.REPAIR
        ) from error
    if not isinstance(document, dict) or "sha256" not in document:
        raise CorruptStore(
            f"{path} is damaged: it must hold a JSON object with its sha256", advice=Advice.REPAIR
        )
    stated = document.pop("sha256")
    digest = content_sha256(document)
    if digest != stated:
        raise CorruptStore(
            f"{path} was changed after it was written: its content has sha256 {digest[:12]}…, "
            f"it says {str(stated)[:12]}…",
            advice=Advice.REPAIR,
        )
    return document, digest


def read_store_document(path: Path) -> tuple[Identity, list[dict[str, Any]]]:
    """Read ``store.json``; return the identity and, of each part, ``{"number", "sha256", "revision"}``.

    Raises
    ------
    StoreError
        If the folder is not a store, or of another format version.
    CorruptStore
        If ``store.json`` was changed after it was written.
    """
    document = open_store_document(path)
    if document["format_version"] < OLDEST_READ or UPGRADING in document:
        state = "is half upgraded" if UPGRADING in document else "is older"
        raise StoreError(
            f"{path} must have format version {FORMAT_VERSION}; it {state} (version "
            f"{document.get(UPGRADING, document['format_version'])})",
            advice=Advice.UPGRADE,
        )
    return parse_store_document(path, document)


def open_store_document(path: Path) -> dict[str, Any]:
    """Return the content of ``store.json`` of this or an earlier format version; raises as `read_store_document`."""
    layout = StoreLayout(path)
    if not layout.store_file.is_file():
        raise _not_a_store(path)
    document, _ = read_document(layout.store_file)
    version = document.get("format_version")
    if document.get("format") != FORMAT or not isinstance(version, int):
        raise StoreError(
            f"{layout.store_file} belongs to something else: format must be {FORMAT!r}, "
            f"found {document.get('format')!r}"
        )
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}; this program reads up to {FORMAT_VERSION}. "
            "Install a newer embedstore"
        )
    return document


def parse_store_document(path: Path, document: Mapping[str, Any]) -> tuple[Identity, list[dict[str, Any]]]:
    """Return the identity and the listed parts of a ``store.json``'s content; raises CorruptStore."""
    file = StoreLayout(path).store_file
    try:
        identity = identity_from_json(document["identity"], source=str(file))
        parts = [
            {
                "number": int(entry["number"]),
                "sha256": str(entry["sha256"]),
                "revision": int(entry.get("revision", 0)),
            }
            for entry in document["parts"]
        ]
    except (KeyError, TypeError, DataError) as error:
        raise CorruptStore(f"{file} is damaged: {error}", advice=Advice.REPAIR) from error
    if identity.sha256 != document.get("identity_sha256"):
        raise CorruptStore(f"{file}: identity_sha256 does not belong to its identity", advice=Advice.REPAIR)
    return identity, parts


def write_store_document(
    root: Path, identity: Identity, parts: list[dict[str, Any]], *, upgrading_from: int | None = None
) -> None:
    """Write ``store.json``; from that moment the listed parts belong to the store.

    Parameters
    ----------
    root, identity, parts
        The store's folder, what its vectors are, and ``{"number", "sha256", "revision"}`` of each part; the last is
        left out of the document where it is 0.
    upgrading_from
        The format version that the other documents may still have; nobody but the upgrade opens such a store.
    """
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "identity": identity.to_json(),
        "identity_sha256": identity.sha256,
        "parts": [{key: entry[key] for key in entry if key != "revision" or entry[key]} for entry in parts],
    }
    if upgrading_from is not None:
        document[UPGRADING] = upgrading_from
    write_document(StoreLayout(root).store_file, document, label="store")


def read_part_plan(layout: PartLayout) -> tuple[PartPlan, str]:
    """Read ``part.json``; return the plan and its digest.

    Raises
    ------
    CorruptStore
        If it is missing or damaged.
    """
    document, digest = read_document(layout.plan_file)
    try:
        return PartPlan.from_json(document, source=str(layout.plan_file)), digest
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptStore(f"{layout.plan_file} is damaged: {error}", advice=Advice.REPAIR) from error


def read_receipt(layout: PartLayout, plan: PartPlan, chunk: int) -> Receipt:
    """Read a chunk's receipt.

    Raises
    ------
    CorruptStore
        If it is missing, damaged, or belongs to another chunk.
    """
    path = layout.receipt(chunk)
    document, _ = read_document(path)
    try:
        receipt = Receipt.from_json(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptStore(f"{path} is damaged: {error}", advice=Advice.REPAIR) from error
    if (receipt.chunk, receipt.start, receipt.stop) != (chunk, *plan.bounds(chunk)):
        raise CorruptStore(
            f"{path} belongs to chunk {receipt.chunk}, rows {receipt.start} to {receipt.stop - 1}",
            advice=Advice.REPAIR,
        )
    if receipt.arrays.keys() != plan.arrays.keys():
        raise CorruptStore(
            f"{path} must have digests of {', '.join(plan.arrays)}; found {', '.join(receipt.arrays)}",
            advice=Advice.REPAIR,
        )
    return receipt


def _not_a_store(path: Path) -> StoreError:
    if not path.exists():
        return StoreError(
            f"{path} does not exist; a store is a folder that an extraction makes{_store_beside(path)}"
        )
    if not path.is_dir():
        return StoreError(f"{path} is a file; a store is a folder that an extraction makes")
    found = sorted(entry.name for entry in path.iterdir())
    if "parts" in found:
        return StoreError(
            f"{path} holds parts but no {STORE_FILE}: the store is half deleted", advice=Advice.REPAIR
        )
    return StoreError(
        f"{path} is not a store: {STORE_FILE} must lie in it, found {first_few(found) or 'nothing'}"
    )


def _store_beside(path: Path) -> str:
    """Name the store of nearly the same name in the same folder."""
    try:
        stores = {entry.parent.stem: entry.parent.name for entry in path.parent.glob(f"*/{STORE_FILE}")}
    except OSError:
        return ""
    # Without the usual suffix, which makes any two names alike.
    near = nearest(path.stem, stores)
    return f". Did you mean {stores[near]!r}?" if near else ""
