"""Looks for what is wrong with a store, and leaves what was found: a page with pictures, and the list to leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from embedstore.audit.audit_store import AuditOptions, audit_store
from embedstore.audit.findings import GROUPS, KINDS, Audit
from embedstore.audit.keep_list import NO, write_keep_list
from embedstore.errors import UsageError, did_you_mean
from embedstore.files import StrPath, write_durable
from embedstore.keys.key_file import read_key
from embedstore.queries.thumbnails import thumbnails_of_units
from embedstore.store.reader import Store, as_store
from heads.reporting.audit_page import AuditSection, PicturedFinding, render_audit

# Of a kind; a page with all the pictures of a collection is not read, and --json and --keep have all.
_FINDINGS_SHOWN = 24
_PICTURES_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class AuditJob:
    """An audit as people ask for it.

    Parameters
    ----------
    store
        The store, opened or by its folder.
    pictures
        Decode the images again.
    out
        The page; None for none.
    keep_list
        The list of what to leave out; None for none.
    key_file
        Key of stores whose paths are hidden.
    workers
        Decoding processes.
    """

    store: Store | StrPath
    pictures: bool = True
    out: StrPath | None = None
    keep_list: StrPath | None = None
    key_file: StrPath | None = None
    workers: int = 1


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What was found, and how many images of the list are left out."""

    audit: Audit
    left_out: int = 0


def run_audit(job: AuditJob, *, progress: Callable[[int, int], None] | None = None) -> AuditResult:
    """Audit a store and write what is asked for; raises as `embedstore.audit.audit_store.audit_store`."""
    if job.out is not None and Path(job.out).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out writes a page: {job.out} must end in .html")
    for place in (job.out, job.keep_list):
        if place is not None and not Path(place).absolute().parent.is_dir():
            raise UsageError(f"the folder {Path(place).parent} does not exist; make it first")
    store = as_store(job.store)
    key = None if job.key_file is None else read_key(job.key_file)
    options = AuditOptions(pictures=job.pictures, workers=job.workers, key=key)
    audit = audit_store(store, options, progress=progress)
    counts: Counter[str] = Counter() if job.keep_list is None else write_keep_list(job.keep_list, audit)
    if job.out is not None:
        write_durable(Path(job.out), audit_page(store, audit, job.key_file).encode(), label="page")
    return AuditResult(audit=audit, left_out=counts[NO])


def audit_page(store: Store, audit: Audit, key_file: StrPath | None = None) -> str:
    """Return the page of an audit: of each kind the first findings, with pictures of the first images of each."""
    shown = {kind: audit.of_kind(kind)[:_FINDINGS_SHOWN] for kind in KINDS}
    wanted = {
        image_id
        for findings in shown.values()
        for found in findings
        for image_id in found.image_ids[:_PICTURES_SHOWN]
    }
    key = None if key_file is None else read_key(key_file)
    pictures = thumbnails_of_units([store], wanted, "image", key=key)
    sections = [
        AuditSection(
            kind=kind,
            means=KINDS[kind],
            count=audit.counts[kind],
            unseen=kind in audit.unseen,
            findings=[
                PicturedFinding(
                    why=found.why,
                    images=[
                        (image_id, pictures.get(image_id)) for image_id in found.image_ids[:_PICTURES_SHOWN]
                    ],
                    more=max(0, len(found.image_ids) - _PICTURES_SHOWN),
                    left_out=found.leave_out,
                )
                for found in findings
            ],
        )
        for kind, findings in shown.items()
    ]
    return render_audit(
        store.path.absolute().name,
        sections,
        images=audit.images,
        pictures=audit.pictures,
        thresholds=audit.thresholds,
        notices=audit.notices,
        phantom=all(source.phantom for source in store.sources),
    )


def kinds_of(names: Collection[str]) -> tuple[str, ...]:
    """Return the kinds of findings that are named, alone or by the word of a group; raises UsageError for others."""
    known = [*GROUPS, *KINDS]
    for name in names:
        if name not in known:
            raise UsageError(
                f"a kind of finding must be one of {', '.join(known)}; found {name!r}{did_you_mean(name, known)}"
            )
    return tuple(dict.fromkeys(kind for name in names for kind in GROUPS.get(name, (name,))))
