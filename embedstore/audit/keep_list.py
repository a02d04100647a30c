"""The list of an audit: which images are better left out, and why; made by us, edited by people, read again.

A CSV with the columns ``image_id``, ``keep`` (``yes`` or ``no``), ``kinds`` and ``why``, a row for each image that a
finding is about. Images that it does not name are kept.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection as Names
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from embedstore.audit.findings import Audit, Finding
from embedstore.datasets.base import Collection
from embedstore.datasets.folder_summary import count_records
from embedstore.errors import DataError
from embedstore.files import StrPath, write_durable

YES, NO = "yes", "no"
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class KeepList:
    """A list that was read.

    Parameters
    ----------
    path
        The file.
    left_out
        The images to leave out.
    """

    path: Path
    left_out: frozenset[str]


def write_keep_list(path: StrPath, audit: Audit) -> Counter[str]:
    """Write the images that findings are about, and return how many are kept and left out."""
    found: dict[str, list[Finding]] = {}
    for finding in audit.findings:
        for image_id in finding.image_ids:
            found.setdefault(image_id, []).append(finding)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["image_id", "keep", "kinds", "why"])
    counts: Counter[str] = Counter()
    for image_id, findings in sorted(found.items()):
        keep = NO if any(image_id in finding.leave_out for finding in findings) else YES
        counts[keep] += 1
        kinds = dict.fromkeys(finding.kind for finding in findings)
        whys = dict.fromkeys(finding.why for finding in findings)
        writer.writerow([image_id, keep, " ".join(kinds), "; ".join(whys)])
    write_durable(Path(path), buffer.getvalue().encode("utf-8"), label="keep list")
    return counts


def read_keep_list(path: StrPath) -> KeepList:
    """Read a list.

    Raises
    ------
    DataError
        If the file cannot be read, has no columns ``image_id`` and ``keep``, or says neither yes nor no somewhere.
    """
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise DataError(f"keep list {place} cannot be read: {why}") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    lacking = [name for name in ("image_id", "keep") if name not in (rows.fieldnames or ())]
    if lacking:
        raise DataError(
            f"keep list {place} needs the columns image_id and keep; found {', '.join(rows.fieldnames or ())}"
        )
    left_out = set()
    for row in rows:
        said = (row["keep"] or "").strip().lower()
        if said not in (YES, NO):
            raise DataError(
                f"keep list {place}, line {rows.line_num}: keep must be yes or no; found {row['keep']!r}"
            )
        if said == NO:
            left_out.add(row["image_id"])
    return KeepList(path=place, left_out=frozenset(left_out))


def without_left_out(collection: Collection, kept: KeepList) -> Collection:
    """Return a collection without the images that a list leaves out; the summary says how many.

    Raises
    ------
    DataError
        If none of the listed images is in the data set, or none is left.
    """
    manifest = collection.manifest
    stays = [image_id not in kept.left_out for image_id in manifest.table.column("image_id").to_pylist()]
    count = len(stays) - sum(stays)
    require_known(kept, count, holder="the data set")
    if not any(stays):
        raise DataError(f"keep list {kept.path} leaves no image of the data set")
    left = replace(manifest, table=manifest.table.filter(pa.array(stays)))
    counted = count_records(manifest)
    rest = {name: fact for name, fact in collection.summary.items() if name not in counted}
    said = {f"left out by {kept.path.name}": count}
    return replace(collection, manifest=left, summary=count_records(left) | said | rest)


def require_known(kept: KeepList, count: int, *, holder: str) -> None:
    """Refuse a list of which no image is there: it is of other data; raises DataError."""
    if kept.left_out and not count:
        raise DataError(
            f"keep list {kept.path}: none of its {len(kept.left_out):,} images is in {holder}, the first "
            f"{_first(kept.left_out)}; is it the list of another store?"
        )


def _first(names: Names[str]) -> str:
    return ", ".join(sorted(names)[:_SHOWN])
