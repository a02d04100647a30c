"""Images that lie where their rows do not say: among another anatomy, or far from everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.audit.audited_rows import NEIGHBORS, AuditedRows
from embedstore.audit.findings import OUTLIER, STRANGER, Finding
from embedstore.queries.manifest_columns import column_text

# What an image is of; columns that a manifest may have.
KIND_COLUMNS = ("anatomy", "body_part", "plane", "modality")
_MOST_KINDS = 50
_AGREEING, _OWN = 9, 0
_FEWEST = 2 * NEIGHBORS
_MOST_SHARE, _ALWAYS = 0.02, 3
_NEAREST = 5
_FAR = 4.0


@dataclass(frozen=True, kw_only=True)
class Strangers:
    """Images among another kind.

    Parameters
    ----------
    findings
        The images.
    notices
        Columns that the vectors do not tell apart, so that neighbours say nothing about them.
    """

    findings: Sequence[Finding]
    notices: Sequence[str]


def kinds_of(rows: AuditedRows) -> npt.NDArray[np.str_]:
    """Return (n,) what each image is of: the values of all `KIND_COLUMNS` that tell images apart."""
    columns = [column_text(rows.table, name) for name in _columns(rows)]
    cells = zip(*(column.tolist() for column in columns), strict=True)
    return np.array([" ".join(filter(None, row)) for row in cells] if columns else [""] * len(rows), np.str_)


def strangers(rows: AuditedRows) -> Strangers:
    """Return the images of whose nearest ten of other patients nine or more are of one other kind, and none of theirs.

    Where that is so of more than 2 % of a column's images, the encoder does not tell its values apart, and they are not
    listed.
    """
    found, notices = [], []
    others, _ = rows.nearest_others
    for name in _columns(rows):
        values = column_text(rows.table, name)
        own = values[rows.firsts]
        near = np.where(others >= 0, values[others], "")
        counts = dict(zip(*np.unique(values, return_counts=True), strict=True))
        listed = []
        for place in range(len(rows.firsts)):
            if not own[place] or counts[own[place]] < _FEWEST:
                continue
            names, times = np.unique(near[place][near[place] != ""], return_counts=True)
            if not len(names):
                continue
            most = int(times.argmax())
            if (near[place] == own[place]).sum() <= _OWN and times[most] >= _AGREEING:
                why = (
                    f"{name} is {own[place]}, and {times[most]} of the nearest {NEIGHBORS} are {names[most]}"
                )
                image_id = rows.image_ids[rows.firsts[place]]
                score = float(times[most] / NEIGHBORS)
                listed.append(Finding(kind=STRANGER, image_ids=(image_id,), why=why, score=score))
        if len(listed) > max(_ALWAYS, _MOST_SHARE * len(rows.firsts)):
            agreement = float((near == own[:, None])[own != ""].mean())
            notices.append(
                f"{name}: {len(listed):,} images lie among another; the encoder hardly tells these apart "
                f"({agreement:.0%} of neighbours have the same), so they are not listed"
            )
        else:
            found += listed
    return Strangers(findings=found, notices=notices)


@dataclass(frozen=True, kw_only=True)
class Outliers:
    """Images that are far from all others; `beyond` is the mean distance from which they are."""

    findings: Sequence[Finding]
    beyond: float


def outliers(rows: AuditedRows) -> Outliers:
    """Return the images whose mean distance to the nearest five of other patients is unusual.

    Unusual is what lies four standard deviations above the median of the logarithms, whose upper half says how wide
    these are.
    """
    others, distances = rows.nearest_others
    full = others[:, min(_NEAREST, others.shape[1]) - 1] >= 0 if len(others) else np.zeros(0, np.bool_)
    means = distances[:, :_NEAREST].mean(axis=1)
    if full.sum() < _FEWEST:
        return Outliers(findings=[], beyond=float("nan"))
    logs = np.log(np.maximum(means, 1e-6))
    middle = float(np.median(logs[full]))
    spread = float(np.quantile(logs[full], 0.84)) - middle
    beyond = float(np.exp(middle + _FAR * spread))
    far = np.flatnonzero(full & (means > beyond))
    found = [
        Finding(
            kind=OUTLIER,
            image_ids=(rows.image_ids[rows.firsts[place]],),
            why=f"its nearest {_NEAREST} of other patients are {means[place]:.3f} away (1 - cosine)",
            score=float(means[place]),
        )
        for place in far[np.argsort(-means[far], kind="stable")]
    ]
    return Outliers(findings=found, beyond=beyond)


def _columns(rows: AuditedRows) -> list[str]:
    """Return the columns of what an image is of that have several values, and not too many."""
    known = [name for name in KIND_COLUMNS if name in rows.table.column_names]
    counts = {name: len(set(column_text(rows.table, name).tolist()) - {""}) for name in known}
    return [name for name in known if 1 < counts[name] <= _MOST_KINDS]
