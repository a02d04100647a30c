"""Heals what a verification found, without inventing a vector.

A damaged chunk is forgotten, so that the next extraction does it again; a damaged document is rebuilt only
from copies whose digests agree; what cannot be trusted is set aside.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from embedstore.errors import CorruptStore, StoreError
from embedstore.files import StrPath, fsync_folder, make_folder_durable, remove_temporaries, write_durable
from embedstore.store.documents import read_part_plan, read_store_document, write_store_document
from embedstore.store.layout import (
    CONTENT,
    SET_ASIDE_FOLDER,
    PartLayout,
    PartPlan,
    StoreLayout,
    encode_chunk,
)
from embedstore.store.part_reader import open_part
from embedstore.store.store_lock import writer_lock
from embedstore.store.verify import (
    CLEAR_FAILED_ROWS,
    REMOVE,
    REWRITE_METADATA,
    SET_ASIDE_PART,
    SET_ASIDE_TASK,
    Finding,
    Verification,
    is_half_deleted,
    readable_plans,
    verify_store,
)
from embedstore.store.zarr_arrays import create_arrays


def repair_store(root: StrPath, *, say: Callable[[str], None] = lambda line: None) -> Verification:
    """Verify the store and heal what can be healed; the next extraction does what was forgotten.

    Returns
    -------
    The verification as it was before the repair.

    Raises
    ------
    StoreError
        If the store cannot be healed (not a store; identity lost in every copy), or is being written.

    Examples
    --------
    >>> es.repair_store("mura.store").findings
    ()
    """
    root = Path(root)
    if not StoreLayout(root).store_file.exists() and not is_half_deleted(root):
        read_store_document(root)  # it has the right words for what else this is
    with writer_lock(StoreLayout(root).lock_file, say=say):
        remove_temporaries(root)
        _heal_store_document(root, say)
        before = verify_store(root)
        damaged = {finding.part for finding in before.findings if finding.remedy == SET_ASIDE_PART}
        for number in sorted(part for part in damaged if part is not None):
            _set_part_aside(root, number, say)
        for finding in before.findings:
            if finding.part not in damaged:
                _heal(root, finding, say)
    return before


def _heal_store_document(root: Path, say: Callable[[str], None]) -> None:
    try:
        read_store_document(root)
    except StoreError as error:
        if not isinstance(error, CorruptStore) and not is_half_deleted(root):
            raise
        _rebuild_store_document(root, error)
        say("store.json: rebuilt from the parts")


def _rebuild_store_document(root: Path, problem: StoreError) -> None:
    plans = readable_plans(root)
    if not plans:
        raise StoreError(f"{problem}; no part holds a readable copy of the identity, so it cannot be rebuilt")
    if len({plan.identity.sha256 for plan in plans}) > 1:
        raise StoreError(f"{problem}; the parts name different identities, so it cannot be rebuilt")
    listed = [
        {
            "number": plan.number,
            "sha256": read_part_plan(StoreLayout(root).part(plan.number, len(plan.revisions)))[1],
            "revision": len(plan.revisions),
        }
        for plan in plans
    ]
    write_store_document(root, plans[0].identity, listed)


def _set_part_aside(root: Path, number: int, say: Callable[[str], None]) -> None:
    identity, listed = read_store_document(root)
    # Unlisted first: from then on no reader trusts the part, whatever happens to the rename.
    write_store_document(root, identity, [entry for entry in listed if entry["number"] != number])
    layout = StoreLayout(root).part(number)
    if layout.folder.exists():
        _move_aside(root, layout.folder)
    say(f"parts/{number:04d}: set aside in {SET_ASIDE_FOLDER}/; its images will be planned again")


def _heal(root: Path, finding: Finding, say: Callable[[str], None]) -> None:
    if finding.remedy == SET_ASIDE_TASK:
        _move_aside(root, root / finding.place)
    elif finding.remedy == REMOVE:
        (root / finding.place).unlink(missing_ok=True)
    elif finding.part is not None:
        _, listed = read_store_document(root)
        revision = next(entry["revision"] for entry in listed if entry["number"] == finding.part)
        layout = StoreLayout(root).part(finding.part, revision)
        plan, _ = read_part_plan(layout)
        if finding.remedy == REWRITE_METADATA:
            create_arrays(layout, plan)
        elif finding.chunk is not None and finding.remedy == CLEAR_FAILED_ROWS:
            _clear_failed_rows(layout, plan, finding.chunk)
        elif finding.chunk is not None:
            forget_chunk(layout, plan, finding.chunk)
    say(f"{finding}: {finding.remedy}")


def forget_chunk(layout: PartLayout, plan: PartPlan, chunk: int) -> None:
    """Take a chunk's receipt away, then its files: the chunk is pending from the first step on."""
    layout.receipt(chunk).unlink(missing_ok=True)
    fsync_folder(layout.receipts)
    for name, array in plan.stored_arrays.items():
        layout.chunk(name, array, chunk).unlink(missing_ok=True)


def _clear_failed_rows(layout: PartLayout, plan: PartPlan, chunk: int) -> None:
    part = open_part(layout, plan)
    for name, array in plan.stored_arrays.items():
        rows = part.read_content(chunk) if name == CONTENT else part.read_chunk(chunk, array=name)
        payload = encode_chunk(rows, array, chunk_rows=plan.chunk_rows)
        write_durable(layout.chunk(name, array, chunk), payload, label=name)


def _move_aside(root: Path, path: Path) -> None:
    folder = root / SET_ASIDE_FOLDER
    make_folder_durable(folder)
    target = folder / path.name
    count = 1
    while target.exists():
        target = folder / f"{path.name}-{count}"
        count += 1
    shutil.move(path, target)
