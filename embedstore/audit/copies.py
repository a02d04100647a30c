"""Pictures that are there more than once, and what that means for patients and splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embedstore.audit.audited_rows import AuditedRows
from embedstore.audit.findings import (
    IDENTICAL,
    IMAGES_SPLIT,
    NEAR,
    PATIENTS_SPLIT,
    TWO_PATIENTS,
    Finding,
)
from embedstore.similarity.scan import Rows

# Splits that are learned from: where a picture or patient is in several, it is taken out of these.
_LEARNED = ("train", "training")


def identical_pixels(rows: AuditedRows) -> list[Finding]:
    """Return the images with the same pixels; the first stays, or the first that is not learned from."""
    return [
        Finding(
            kind=IDENTICAL,
            image_ids=tuple(rows.image_ids[row] for row in group),
            why=f"{len(group):,} images have the same pixels{_where(rows, group)}",
            leave_out=_all_but_one(rows, group),
        )
        for group in _groups(rows.content)
    ]


def near_duplicates(
    rows: AuditedRows, pairs: Sequence[tuple[int, int, float]], measure: str
) -> list[Finding]:
    """Return clusters of near duplicates.

    Parameters
    ----------
    rows
        The images.
    pairs
        Two rows that are copies, and how alike they are.
    measure
        What that number is, for people.
    """
    groups = list(_joined(len(rows), [(one, other) for one, other, _ in pairs]))
    group_of = {int(row): number for number, group in enumerate(groups) for row in group}
    least: dict[int, float] = {}
    for one, _, score in pairs:
        least[group_of[one]] = min(score, least.get(group_of[one], score))
    found = []
    for number, group in enumerate(groups):
        alike = least[number]
        found.append(
            Finding(
                kind=NEAR,
                image_ids=tuple(rows.image_ids[row] for row in group),
                why=f"{len(group):,} images are near copies ({measure} {alike:.3f}){_where(rows, group)}",
                score=alike,
                leave_out=_all_but_one(rows, group) if _matters(rows, group) else (),
            )
        )
    return sorted(found, key=lambda finding: -(finding.score or 0))


def patients_across_splits(rows: AuditedRows) -> list[Finding]:
    """Return the patients with images in several splits; their images that are learned from are to be left out."""
    found = []
    known = np.flatnonzero((rows.named_patients != "") & (rows.splits != ""))
    for group in _groups(rows.named_patients[known]):
        own = known[group]
        splits = sorted(set(rows.splits[own].tolist()))
        if len(splits) > 1:
            found.append(
                Finding(
                    kind=PATIENTS_SPLIT,
                    image_ids=tuple(rows.image_ids[row] for row in own),
                    why=f"patient {rows.named_patients[own[0]]} has images in {' and '.join(splits)}",
                    leave_out=_learned(rows, own),
                )
            )
    return found


def copies_that_matter(rows: AuditedRows, copies: Iterable[Finding]) -> list[Finding]:
    """Return which copies, identical or near, lie in several splits or belong to several patients."""
    place = {image_id: row for row, image_id in enumerate(rows.image_ids)}
    found = []
    for copy in copies:
        group = [place[image_id] for image_id in copy.image_ids]
        splits = sorted({split for split in rows.splits[group].tolist() if split})
        patients = sorted({name for name in rows.named_patients[group].tolist() if name})
        kind = "the same pixels" if copy.kind == IDENTICAL else "near copies"
        if len(splits) > 1:
            why = f"{kind} in {' and '.join(splits)}"
            out = _learned(rows, group) or copy.leave_out
            found.append(
                Finding(kind=IMAGES_SPLIT, image_ids=copy.image_ids, why=why, score=copy.score, leave_out=out)
            )
        if len(patients) > 1:
            why = f"{kind} of the patients {', '.join(patients)}: whose they are must be looked up"
            found.append(Finding(kind=TWO_PATIENTS, image_ids=copy.image_ids, why=why, score=copy.score))
    return found


def _groups(values: npt.NDArray[np.generic]) -> Iterator[Rows]:
    """Yield the places of each value that is there more than once, in the order of their first place."""
    order = np.argsort(values, kind="stable")
    starts = 1 + np.flatnonzero(values[order][1:] != values[order][:-1])
    groups = [group for group in np.split(order, starts) if len(group) > 1]
    yield from sorted((np.sort(group) for group in groups), key=lambda group: int(group[0]))


def _joined(count: int, pairs: Sequence[tuple[int, int]]) -> Iterator[Rows]:
    if not pairs:
        return
    ones, others = np.array(pairs, np.int64).T
    graph = coo_array((np.ones(len(pairs), np.int8), (ones, others)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    yield from _groups(component)


def _all_but_one(rows: AuditedRows, group: Sequence[int] | Rows) -> tuple[str, ...]:
    """Return the images of a group but the first that is not learned from, or the first of all."""
    held_out = [row for row in group if rows.splits[row] not in ("", *_LEARNED)]
    stays = held_out[0] if held_out else group[0]
    return tuple(rows.image_ids[row] for row in group if row != stays)


def _learned(rows: AuditedRows, group: Sequence[int] | Rows) -> tuple[str, ...]:
    """Return the images of a group in a split that is learned from; without such a split those of all but the last."""
    splits = sorted(set(rows.splits[np.asarray(group)].tolist()) - {""})
    learned = [split for split in splits if split in _LEARNED] or splits[:-1]
    return tuple(rows.image_ids[row] for row in group if rows.splits[row] in learned)


def _matters(rows: AuditedRows, group: Rows) -> bool:
    """Return whether copies lie in several studies or splits; two views that look alike do not."""
    return len(set(rows.studies[group].tolist())) > 1 or len(set(rows.splits[group].tolist())) > 1


def _where(rows: AuditedRows, group: Rows) -> str:
    patients = len({name for name in rows.named_patients[group].tolist() if name})
    splits = sorted({split for split in rows.splits[group].tolist() if split})
    parts = [f"{patients:,} patients"] * (patients > 1) + [f"splits {', '.join(splits)}"] * (len(splits) > 1)
    return f" ({'; '.join(parts)})" if parts else ""
