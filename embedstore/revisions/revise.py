"""Commits what changed: vectors that are stale first, then all manifests at once.

A kill at any moment leaves the store before or after. A row whose pixels may differ loses its vector by a receipt that
says so, before the manifest that makes it stale; the next extraction computes it. Manifests and plans of all changed
parts are written under new names, and ``store.json``, replaced last and whole, makes them the store's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from embedstore.errors import Reason
from embedstore.files import FileState, parquet_bytes, sha256_bytes, write_durable
from embedstore.revisions.compare import PartChanges
from embedstore.store.commit import timestamp
from embedstore.store.documents import read_store_document, write_document, write_store_document
from embedstore.store.layout import CONTENT, Revision, StoreLayout, crc32c, encode_chunk
from embedstore.store.part_reader import Part
from embedstore.store.receipt import ArrayDigest, Failure, pack_sources, series_of


def revise(root: Path, changes: Sequence[PartChanges]) -> None:
    """Make the manifests of parts what the data set says; the caller holds the store alone.

    Parameters
    ----------
    root
        The store's folder.
    changes
        At most one for each part.
    """
    withdraw_from(
        {entry.part.plan.number: entry.part for entry in changes},
        {entry.part.plan.number: entry.stale for entry in changes},
        seeds={entry.part.plan.number: entry.own for entry in changes},
    )
    changes = [entry for entry in changes if entry.is_revision]
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


def withdraw_from(
    parts: Mapping[int, Part],
    stale: Mapping[int, Mapping[int, str]],
    *,
    seeds: Mapping[int, Collection[int]],
) -> None:
    """Withdraw rows of several parts (`withdraw`).

    Parameters
    ----------
    parts
        The parts by number; the caller holds their store alone.
    stale
        Number of the part -> row of the part -> why.
    seeds
        The rows whose own facts or file changed: others go first, so that after a kill the seeds lead to them again.
    """
    for last in (False, True):
        for number, reasons in sorted(stale.items()):
            chunk_rows = parts[number].plan.chunk_rows
            chunks = {row // chunk_rows for row in seeds.get(number, ())}
            chosen = {row: why for row, why in reasons.items() if (row // chunk_rows in chunks) is last}
            withdraw(parts[number], chosen)


def withdraw(part: Part, reasons: Mapping[int, str]) -> None:
    """Take vectors away that are no longer those of their images; the caller holds the store alone.

    Parameters
    ----------
    part
        The part.
    reasons
        Row of the part -> why, for people; rows that have a vector.
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
    kept = [failure for failure in receipt.failures if failure.row not in reasons]
    failures = [*kept, *(Failure(row, Reason.CHANGED, why) for row, why in reasons.items())]
    failures.sort(key=lambda failure: failure.row)
    lost = [failure.row - receipt.start for failure in failures]
    covered = {name: np.delete(rows, lost, axis=0) for name, rows in stored.items()}
    arrays = {
        name: ArrayDigest(sha256_bytes(covered[name].tobytes()), crc32c(covered[name]), digest.rounding_error)
        for name, digest in receipt.arrays.items()
    }
    series = part.manifest.table.column("series_id").take(pa.array(list(reasons), pa.int64())).to_pylist()
    ranges = {name: limits for name, limits in receipt.series_ranges.items() if series_of(name) not in series}
    notes = {code: tuple(row for row in rows if row not in reasons) for code, rows in receipt.notes.items()}
    withdrawn = replace(
        receipt,
        arrays=arrays,
        content_sha256=sha256_bytes(covered[CONTENT].tobytes()),
        failures=tuple(failures),
        series_ranges=ranges,
        notes={code: rows for code, rows in notes.items() if rows},
    )
    # The receipt comes first: what it no longer covers may stand below it or not.
    write_document(part.layout.receipt(chunk), withdrawn.to_json(), label="receipt")
    for name, rows in stored.items():
        rows[lost] = plan.stored_arrays[name].fill
        payload = encode_chunk(rows, plan.stored_arrays[name], chunk_rows=plan.chunk_rows)
        label = name if name in ("vectors", CONTENT) else "further"
        write_durable(part.layout.chunk(name, plan.stored_arrays[name], chunk), payload, label=label)


def note_files(part: Part, files: Mapping[int, FileState]) -> None:
    """Note in receipts how files are that were written again with the content they had.

    Parameters
    ----------
    part
        The part; the caller holds the store alone.
    files
        Row of the part -> its file.
    """
    by_chunk: dict[int, dict[int, FileState]] = {}
    for row, file in files.items():
        by_chunk.setdefault(row // part.plan.chunk_rows, {})[row] = file
    for chunk, rows in by_chunk.items():
        receipt = part.receipts[chunk]
        noted = [rows.get(receipt.start + at, before) for at, before in enumerate(receipt.files)]
        document = replace(receipt, sources=pack_sources(noted)).to_json()
        write_document(part.layout.receipt(chunk), document, label="receipt")


def _remove_before_last(root: Path, part: Part) -> None:
    """Remove documents that no open reader can still need: those before the ones that were just replaced."""
    for revision in range(len(part.plan.revisions)):
        layout = StoreLayout(root).part(part.plan.number, revision)
        layout.plan_file.unlink(missing_ok=True)
        layout.manifest.unlink(missing_ok=True)
