"""Commits what changed: vectors that are stale first, then all manifests at once.

A kill at any moment leaves the store before or after. A row whose pixels may differ loses its vector by a receipt that
says so, before the manifest that makes it stale; the next extraction computes it. Manifests and plans of all changed
parts are written under new names, and ``store.json``, replaced last and whole, makes them the store's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedstore.errors import Reason
from embedstore.files import parquet_bytes, sha256_bytes, write_durable
from embedstore.revisions.compare import PartChanges
from embedstore.store.commit import timestamp
from embedstore.store.documents import read_store_document, write_document, write_store_document
from embedstore.store.layout import CONTENT, Revision, StoreLayout, crc32c, encode_chunk
from embedstore.store.part_reader import Part
from embedstore.store.receipt import ArrayDigest, Failure


def revise(root: Path, changes: Sequence[PartChanges]) -> None:
    """Make the manifests of parts what the data set says; the caller holds the store alone.

    Parameters
    ----------
    root
        The store's folder.
    changes
        At most one for each part.
    """
    for entry in changes:
        withdraw(entry.part, entry.withdrawn)
    identity, listed = read_store_document(root)
    listing = {item["number"]: item for item in listed}
    for entry in changes:
        plan = entry.part.plan
        layout = StoreLayout(root).part(plan.number, len(plan.revisions) + 1)
        payload = parquet_bytes(entry.table)
        write_durable(layout.manifest, payload, label="manifest")
        revision = Revision(
            before=plan.manifest_sha256,
            after=sha256_bytes(payload),
            columns={name: len(rows) for name, rows in entry.columns.items()},
            added=entry.added,
            dropped=entry.dropped,
            revised=timestamp(),
        )
        revised = replace(plan, manifest_sha256=revision.after, revisions=(*plan.revisions, revision))
        digest = write_document(layout.plan_file, revised.to_json(), label="part")
        listing[plan.number] = {"number": plan.number, "sha256": digest, "revision": layout.revision}
    write_store_document(root, identity, list(listing.values()))
    for entry in changes:
        _remove_before_last(root, entry.part)


def withdraw(part: Part, reasons: Mapping[int, str]) -> None:
    """Take away what was made of images and no longer holds; the next extraction computes the rows again.

    The caller holds the store alone.

    Parameters
    ----------
    part
        The part.
    reasons
        Row of the part -> why, for people; rows of finished chunks, with a vector or without.
    """
    by_chunk: dict[int, dict[int, str]] = {}
    for row, why in sorted(reasons.items()):
        by_chunk.setdefault(row // part.plan.chunk_rows, {})[row] = why
    for chunk, rows in by_chunk.items():
        _withdraw_from_chunk(part, chunk, rows)


def _withdraw_from_chunk(part: Part, chunk: int, reasons: Mapping[int, str]) -> None:
    receipt, plan = part.receipts[chunk], part.plan
    stored = {
        name: part.read_content(chunk) if name == CONTENT else part.read_chunk(chunk, array=name)
        for name in plan.stored_arrays
    }
    failures = [failure for failure in receipt.failures if failure.row not in reasons]
    failures += [Failure(row, Reason.CHANGED, why) for row, why in reasons.items()]
    failures.sort(key=lambda failure: failure.row)
    lost = [failure.row - receipt.start for failure in failures]
    covered = {name: np.delete(rows, lost, axis=0) for name, rows in stored.items()}
    arrays = {
        name: ArrayDigest(sha256_bytes(covered[name].tobytes()), crc32c(covered[name]), digest.rounding_error)
        for name, digest in receipt.arrays.items()
    }
    notes = {code: tuple(row for row in rows if row not in reasons) for code, rows in receipt.notes.items()}
    withdrawn = replace(
        receipt,
        arrays=arrays,
        content_sha256=sha256_bytes(covered[CONTENT].tobytes()),
        failures=tuple(failures),
        notes={code: rows for code, rows in notes.items() if rows},
    )
    # The receipt comes first: what it no longer covers may stand below it or not.
    write_document(part.layout.receipt(chunk), withdrawn.to_json(), label="receipt")
    for name, rows in stored.items():
        rows[lost] = plan.stored_arrays[name].fill
        payload = encode_chunk(rows, plan.stored_arrays[name], chunk_rows=plan.chunk_rows)
        label = name if name in ("vectors", CONTENT) else "further"
        write_durable(part.layout.chunk(name, plan.stored_arrays[name], chunk), payload, label=label)


def _remove_before_last(root: Path, part: Part) -> None:
    """Remove documents that no open reader can still need: those before the ones that were just replaced."""
    for revision in range(len(part.plan.revisions)):
        layout = StoreLayout(root).part(part.plan.number, revision)
        layout.plan_file.unlink(missing_ok=True)
        layout.manifest.unlink(missing_ok=True)
