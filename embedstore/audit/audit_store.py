"""Looks for all that is wrong with a collection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedstore.audit.audited_rows import AuditedRows, audited_rows
from embedstore.audit.copies import (
    copies_that_matter,
    identical_pixels,
    near_duplicates,
    patients_across_splits,
)
from embedstore.audit.findings import BLANK, KINDS, Audit, Finding
from embedstore.audit.misplaced import kinds_of, outliers, strangers
from embedstore.audit.near_copies import (
    NearCandidates,
    PixelCopies,
    alike_pairs,
    copies_by_pixels,
    copies_by_vectors,
    near_candidates,
)
from embedstore.audit.picture_faults import blank_pictures, pictures_with_text, turned_and_negative
from embedstore.audit.pictures import KeptDetails, Pictures, add_details, jobs_of, look_at_pictures
from embedstore.files import StrPath
from embedstore.keys.key_file import Key
from embedstore.queries.manifest_columns import column_text
from embedstore.queries.search import zero_rows
from embedstore.store.reader import Store, as_store


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """How a store is looked at.

    Parameters
    ----------
    pictures
        Decode the images again, where their files lie where they lay: without it copies are told by vectors alone, and
        nothing is said of negatives, turned images and text.
    workers
        Decoding processes.
    key
        Key of stores whose paths are hidden.
    """

    pictures: bool = True
    workers: int = 1
    key: Key | None = None


def audit_store(
    store: Store | StrPath,
    options: AuditOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Look for copies, leaks, and images that are not what their rows say.

    Parameters
    ----------
    store
        The store, opened or by its folder.
    options
        How; the defaults where None.
    progress
        Told how many of how many pictures are decoded.

    Raises
    ------
    CorruptStore
        If the store's bytes are not the committed ones.
    """
    with KeptDetails() as details:
        return _audit(as_store(store), options or AuditOptions(), details, progress)


def _audit(
    opened: Store, asked: AuditOptions, details: KeptDetails, progress: Callable[[int, int], None] | None
) -> Audit:
    rows = audited_rows(opened)
    notices: list[str] = []
    thresholds: dict[str, float] = {}
    candidates = near_candidates(rows) if len(rows.firsts) else None
    if candidates is None:
        notices.append(
            "near duplicates: there are not two patients, so no distance of their own to learn from"
        )
    wanted = set() if candidates is None else {*candidates.pairs.ravel(), *candidates.usual.ravel()}
    pictures = None
    if asked.pictures:
        pictures = look_at_pictures(
            opened,
            rows.image_ids,
            detailed={int(row) for row in wanted},
            details=details,
            key=asked.key,
            workers=asked.workers,
            progress=progress,
        )
        unseen = len(rows) - len(pictures.rows)
        if unseen:
            notices.append(
                f"the files of {unseen:,} of {len(rows):,} images are not where they lay; not looked at"
            )
    copies = identical_pixels(rows)
    if candidates is not None:
        thresholds |= {"distance of a copy": candidates.below, "distance looked at": candidates.typical}
        if pictures is not None and len(pictures.rows):
            by_pixels = _copies_by_pixels(opened, rows, candidates, pictures, details, asked)
            thresholds |= {
                "likeness of a copy": by_pixels.as_they_are,
                "likeness of a turned copy": by_pixels.moved,
            }
            copies += near_duplicates(rows, by_pixels.pairs, "likeness of fine detail")
            if by_pixels.undecided:
                notices.append(f"{by_pixels.undecided:,} pairs were not compared turned and scaled: too many")
        else:
            copies += near_duplicates(rows, copies_by_vectors(candidates), "cosine")
    among = strangers(rows)
    far = outliers(rows)
    thresholds["distance of an outlier"] = far.beyond
    seen = _of_pictures(rows, pictures)
    # Where a picture that holds nothing lies says nothing.
    blank = {image_id for finding in seen if finding.kind == BLANK for image_id in finding.image_ids}
    placed = [
        finding for finding in (*among.findings, *far.findings) if not blank.intersection(finding.image_ids)
    ]
    found = [
        *patients_across_splits(rows),
        *copies_that_matter(rows, copies),
        *copies,
        *seen,
        *placed,
    ]
    order = list(KINDS)
    return Audit(
        findings=sorted(found, key=lambda finding: order.index(finding.kind)),
        images=len(rows),
        pictures=0 if pictures is None else len(pictures.rows),
        thresholds={name: number for name, number in thresholds.items() if np.isfinite(number)},
        notices=[*notices, *among.notices],
    )


def _copies_by_pixels(
    store: Store,
    rows: AuditedRows,
    candidates: NearCandidates,
    pictures: Pictures,
    details: KeptDetails,
    asked: AuditOptions,
) -> PixelCopies:
    """Compare the pairs that vectors propose, and those that are alike when very small."""
    known = {(one, other) for one, other in candidates.pairs.tolist()}
    alike = [pair for pair in alike_pairs(pictures, rows.content).tolist() if tuple(pair) not in known]
    lacking = {row for pair in alike for row in pair} - details.keys()
    jobs = jobs_of(store, rows.image_ids, asked.key) if lacking else {}
    add_details(details, {row: job for row, job in jobs.items() if row in lacking}, workers=asked.workers)
    # Those that are alike come first: they are fewer, and likelier.
    pairs = np.concatenate([np.array(alike, np.int64).reshape(-1, 2), candidates.pairs])
    return copies_by_pixels(pairs, candidates.usual, details)


def _of_pictures(rows: AuditedRows, pictures: Pictures | None) -> list[Finding]:
    """Return what is seen of each picture alone; without pictures, what a zero vector says."""
    if pictures is None or not len(pictures.rows):
        return [
            Finding(
                kind=BLANK,
                image_ids=(rows.image_ids[row],),
                why="its vector is zero",
                leave_out=(rows.image_ids[row],),
            )
            for row in zero_rows(rows.vectors).tolist()
        ]
    burned_in = column_text(rows.table, "burned_in")
    return [
        *blank_pictures(pictures, rows.image_ids),
        *turned_and_negative(pictures, rows.image_ids, kinds_of(rows), rows.patients),
        *pictures_with_text(pictures, rows.image_ids, burned_in),
    ]
