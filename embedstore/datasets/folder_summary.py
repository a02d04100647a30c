"""What a reader tells a person: counts that are true, and folders described when they are something else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import DataError, first_few
from embedstore.manifest import Manifest, count_distinct

_SHOWN_ENTRIES = 5


def count_records(manifest: Manifest) -> dict[str, str | int]:
    """Count images, and patients, studies and series where the manifest knows them; then images per split.

    Images of no known patient are counted too: a split by patients cannot keep them apart.
    """
    counts: dict[str, str | int] = {"images": len(manifest)}
    for column, name in (("patient_id", "patients"), ("study_id", "studies"), ("series_id", "series")):
        distinct = count_distinct(manifest.table.column(column))
        if distinct:
            counts[name] = int(distinct)
    if unknown := manifest.table.column("patient_id").null_count:
        counts["of unknown patient"] = (
            f"{unknown:,} image{'' if unknown == 1 else 's'}, each taken for another patient"
        )
    for entry in manifest.table.column("split").value_counts().to_pylist():
        if entry["values"] is not None:
            counts[f"images in {entry['values']}"] = int(entry["counts"])
    return counts


def count_in_several(table: pa.Table, name: str, other: str) -> int:
    """Count the values of a column that stand beside several values of another one, as a patient in two splits."""
    if table.column(other).null_count == len(table):
        return 0
    pairs = table.select([name, other]).group_by([name, other]).aggregate([]).drop_null()
    counts = pairs.group_by(name).aggregate([(other, "count")]).column(f"{other}_count")
    return int(pc.sum(pc.greater(counts, 1)).as_py() or 0)


def absent_files(root: Path, paths: Iterable[str]) -> list[str]:
    """Return those of `paths` (relative to `root`) that name no file."""
    prefix = os.path.join(root, "")  # a Path per file would double the time of indexing
    return [path for path in paths if not os.path.isfile(prefix + path)]


def describe_absent(absent: list[str], total: int) -> str:
    """Say how many files are absent, with one name."""
    return f"{len(absent):,} of {total:,} files, such as {absent[0]}"


def count_frames(frames: Iterable[int]) -> dict[str, str | int]:
    """Say how many files have several frames, where one does; each frame is a record."""
    several = [count for count in frames if count > 1]
    return {"files of several frames": f"{len(several):,} with {sum(several):,} frames"} if several else {}


def refuse_folder(root: Path, *, expected: str, advice: str) -> DataError:
    """Build the error for a folder that is something else: expected, found, do."""
    if not root.exists():
        found = "nothing of that name"
    elif not root.is_dir():
        found = f"a file of {root.stat().st_size:,} bytes"
    else:
        try:
            names = sorted(entry.name for entry in os.scandir(root))
        except OSError as error:
            names = [f"({error.strerror})"]
        found = f"{len(names):,} entries ({first_few(map(repr, names), shown=_SHOWN_ENTRIES)})"
        if not names:
            found = "an empty folder"
    return DataError(f"{root}: expected {expected}; found {found}. {advice}")
