"""Re-reads every byte of a store against its documents and names what is wrong; see `repair` for healing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedstore.errors import CorruptStore, EmbedError, StoreError
from embedstore.files import TEMPORARY_SUFFIX, StrPath, sha256_bytes
from embedstore.identity import Identity
from embedstore.store.documents import read_part_plan, read_receipt, read_store_document
from embedstore.store.layout import CONTENT, CRC_BYTES, PART_NAME, PartLayout, PartPlan, StoreLayout, crc32c
from embedstore.store.receipt import Receipt
from embedstore.store.tasks import read_task, task_names
from embedstore.store.zarr_arrays import array_problem, group_problem


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Parameters
    ----------
    place
        File or folder, relative to the store.
    problem
        What is wrong with it, for people.
    part, chunk
        Numbers, where the finding concerns a part or a chunk.
    rows
        First row and end (excluded) in the part, for a chunk.
    remedy
        What `embedstore.store.repair.repair_store` does about it.
    """

    place: str
    problem: str
    remedy: str
    part: int | None = None
    chunk: int | None = None
    rows: tuple[int, int] | None = None

    def __str__(self) -> str:
        where = self.place
        if self.chunk is not None and self.rows is not None:
            where += f" (part {self.part}, chunk {self.chunk}, rows {self.rows[0]} to {self.rows[1] - 1})"
        return f"{where}: {self.problem}"


@dataclass(frozen=True)
class Verification:
    """What a verification saw.

    Parameters
    ----------
    findings
        What is wrong, in store order; empty for a sound store.
    chunks, rows
        Finished chunks and rows whose every byte was read.
    pending
        Planned rows without a finished chunk.
    """

    findings: tuple[Finding, ...]
    chunks: int
    rows: int
    pending: int = 0


def verify_store(
    root: StrPath, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Verification:
    """Read every byte of the store at `root` against its digests.

    Parameters
    ----------
    root
        The store's folder.
    progress
        Called with finished and total chunks of the current part.

    Raises
    ------
    StoreError
        If the folder is not a store, or of a newer format version.

    Examples
    --------
    >>> verification = es.verify_store("mura.store")
    >>> verification.findings, verification.rows == store.rows
    ((), True)
    """
    root = Path(root)
    findings: list[Finding] = []
    plans, identity = _check_documents(root, findings)
    chunks = rows = planned = 0
    for plan in plans:
        layout = StoreLayout(root).part(plan.number, len(plan.revisions))
        receipts = _check_part(layout, plan, findings)
        planned += plan.rows
        for done, receipt in enumerate(receipts.values(), start=1):
            finding = _check_chunk(layout, plan, receipt, receipts)
            if finding:
                findings.append(finding)
            chunks, rows = chunks + 1, rows + receipt.stop - receipt.start
            progress(done, len(receipts))
    if identity is not None:
        _check_tasks(root, findings)
    return Verification(tuple(findings), chunks, rows, planned - rows)


FORGET_CHUNK = "forget the chunk, so that the next extraction does it again"
CLEAR_FAILED_ROWS = "write NaN below the failed rows again"
REWRITE_METADATA = "write it again from part.json"
SET_ASIDE_PART = "set the part aside, so that the next extraction plans its images again"
SET_ASIDE_TASK = "set the task aside, so that the next extraction writes it again"
REBUILD_STORE = "rebuild it from the parts' copies of the identity"
REMOVE = "remove it"


def _check_documents(root: Path, findings: list[Finding]) -> tuple[list[PartPlan], Identity | None]:
    try:
        identity, listed = read_store_document(root)
    except CorruptStore as error:
        findings.append(Finding("store.json", _words(error), REBUILD_STORE))
        return readable_plans(root), None
    except StoreError as error:
        if not is_half_deleted(root):
            raise
        findings.append(Finding("store.json", _words(error), REBUILD_STORE))
        return readable_plans(root), None
    numbers = {entry["number"] for entry in listed}
    for folder in _part_folders(root):
        # Without receipts it is a part whose planning was interrupted; the next one takes its place.
        if int(folder.name) not in numbers and any(PartLayout(folder).receipts.glob("*.json")):
            problem = "holds finished chunks but store.json does not list it"
            findings.append(
                Finding(str(folder.relative_to(root)), problem, SET_ASIDE_PART, part=int(folder.name))
            )
    plans = []
    for entry in listed:
        layout = StoreLayout(root).part(entry["number"], entry["revision"])
        place = str(layout.plan_file.relative_to(root))
        try:
            plan, digest = read_part_plan(layout)
        except CorruptStore as error:
            findings.append(Finding(place, _words(error), SET_ASIDE_PART, part=entry["number"]))
            continue
        if digest != entry["sha256"] or plan.identity != identity:
            findings.append(
                Finding(place, "is not the plan that store.json lists", SET_ASIDE_PART, part=entry["number"])
            )
            continue
        plans.append(plan)
    return plans, identity


def readable_plans(root: Path) -> list[PartPlan]:
    """Return the plans of all part folders whose ``part.json`` is sound, listed or not; the last sound revision."""
    plans = [_last_readable_plan(folder) for folder in _part_folders(root)]
    return [plan for plan in plans if plan is not None]


def _last_readable_plan(folder: Path) -> PartPlan | None:
    numbers = {path.name.split(".")[1] for path in folder.glob(f"{PART_NAME}.*.json")}
    revisions = sorted((int(number) for number in numbers if number.isdecimal()), reverse=True)
    for layout in (PartLayout(folder, revision) for revision in [*revisions, 0]):
        try:
            plan, _ = read_part_plan(layout)
            if len(plan.revisions) == layout.revision and _digest_of(layout.manifest) == plan.manifest_sha256:
                return plan
        except (CorruptStore, OSError):
            continue
    return None


def _digest_of(path: Path) -> str:
    return sha256_bytes(path.read_bytes())


def _part_folders(root: Path) -> list[Path]:
    return sorted(folder for folder in (root / "parts").glob("*") if folder.name.isdecimal())


def _check_part(layout: PartLayout, plan: PartPlan, findings: list[Finding]) -> dict[int, Receipt]:
    """Check manifest, tables, array metadata and receipts; return the receipts that can be read."""
    root = layout.folder.parent.parent
    stated = {layout.manifest: plan.manifest_sha256}
    stated |= {layout.table(name): digest for name, digest in plan.tables.items()}
    for path, digest in stated.items():
        try:
            problem = "" if sha256_bytes(path.read_bytes()) == digest else "was changed after it was planned"
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        if problem:
            findings.append(Finding(str(path.relative_to(root)), problem, SET_ASIDE_PART, part=plan.number))
    metadata = {layout.metadata(name): array_problem(layout, plan, name) for name in plan.stored_arrays}
    if not any(metadata.values()):
        metadata[layout.group_metadata] = group_problem(layout, plan)
    for path, problem in metadata.items():
        if problem:
            place = str(path.relative_to(root))
            findings.append(Finding(place, problem, REWRITE_METADATA, part=plan.number))
    receipts = {}
    known = {layout.receipt(chunk).name: chunk for chunk in range(plan.chunks)}
    for path in sorted(layout.receipts.glob("*")):
        if path.name.endswith(TEMPORARY_SUFFIX):
            continue  # of a write that was interrupted; the next writer removes it
        chunk = known.get(path.name)
        place = str(path.relative_to(root))
        if chunk is None:
            findings.append(Finding(place, "belongs to no chunk of the part", REMOVE, part=plan.number))
            continue
        try:
            receipts[chunk] = read_receipt(layout, plan, chunk)
        except CorruptStore as error:
            findings.append(_chunk_finding(place, _words(error), plan, chunk))
    return receipts


def _check_chunk(
    layout: PartLayout, plan: PartPlan, receipt: Receipt, receipts: dict[int, Receipt]
) -> Finding | None:
    root = layout.folder.parent.parent
    for name, array in plan.stored_arrays.items():
        path = layout.chunk(name, array, receipt.chunk)
        place = str(path.relative_to(root))
        try:
            payload = path.read_bytes()
        except OSError as error:
            return _chunk_finding(place, f"cannot be read: {error.strerror}", plan, receipt.chunk)
        wanted = plan.chunk_rows * array.row_bytes + CRC_BYTES
        if len(payload) != wanted:
            problem = f"must have {wanted:,} bytes, found {len(payload):,}"
            return _chunk_finding(place, problem, plan, receipt.chunk)
        rows = np.frombuffer(payload[:-CRC_BYTES], array.numpy_dtype).reshape(plan.chunk_rows, -1)
        rows = rows[: receipt.stop - receipt.start]
        digest = sha256_bytes(np.delete(rows, receipt.failed, axis=0).tobytes())
        if digest != receipt.sha256_of(name):
            return _chunk_finding(place, _what_it_holds(digest, name, receipts), plan, receipt.chunk)
        if name != CONTENT and not np.isnan(rows[receipt.failed].astype(np.float32)).all():
            problem = "holds values below failed rows: a retry was interrupted"
            return replace(_chunk_finding(place, problem, plan, receipt.chunk), remedy=CLEAR_FAILED_ROWS)
        # The rows are sound; this finds a flipped bit in the padding or the checksum itself, over which
        # plain Zarr would stumble.
        if (
            crc32c(np.frombuffer(payload[:-CRC_BYTES], np.uint8)).to_bytes(CRC_BYTES, "little")
            != payload[-CRC_BYTES:]
        ):
            return _chunk_finding(place, "its checksum does not belong to its bytes", plan, receipt.chunk)
    return None


def _what_it_holds(digest: str, name: str, receipts: dict[int, Receipt]) -> str:
    for chunk, receipt in receipts.items():
        if receipt.sha256_of(name) == digest:
            return f"holds the bytes of chunk {chunk}"
    return "its bytes are not the committed ones"


def _chunk_finding(place: str, problem: str, plan: PartPlan, chunk: int) -> Finding:
    return Finding(place, problem, FORGET_CHUNK, part=plan.number, chunk=chunk, rows=plan.bounds(chunk))


def _check_tasks(root: Path, findings: list[Finding]) -> None:
    # A folder without task.json is a task whose first writing was interrupted: it is not there yet.
    for name in task_names(root):
        try:
            read_task(root, name)
        except EmbedError as error:
            findings.append(Finding(f"tasks/{name}", _words(error), SET_ASIDE_TASK))


def is_half_deleted(root: Path) -> bool:
    """Whether the folder holds parts but no ``store.json``."""
    return (root / "parts").is_dir() and not StoreLayout(root).store_file.exists()


def _words(error: EmbedError) -> str:
    """Return the message without the advice that verify itself follows."""
    return error.problem
