"""What a store holds, as plain JSON values."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import words_of_note
from embedstore.files import StrPath
from embedstore.store.layout import VECTORS
from embedstore.store.part_reader import notes_of
from embedstore.store.reader import FAILED, PENDING, VALID, Part, Store, open_store
from embedstore.store.receipt import Failure
from embedstore.store.tasks import read_task, task_names
from embedstore.task import Task

# Column of the manifest -> what its different values are called.
_ID_COLUMNS = {"patient_id": "patients", "study_id": "studies", "series_id": "series"}
_GROUP_COLUMNS = ("split", "modality", "anatomy", "plane")
_CROP_COLUMNS = ("crop", "level", "side", "points")
# Of each reason.
FIRST_FAILURES = 3


def describe_store(path: StrPath) -> dict[str, Any]:
    """Return a store's identity, parts, tasks, failed images, and what was mended to show the others.

    Raises
    ------
    EmbedError
        If there is no store, or its documents are damaged.
    """
    store = open_store(Path(path))
    status = store.status
    return {
        "store": str(store.path),
        "identity": store.identity.to_json(),
        "identity_sha256": store.identity.sha256,
        "rows": store.rows,
        "valid": int(np.sum(status == VALID)),
        "failed": int(np.sum(status == FAILED)),
        "pending": int(np.sum(status == PENDING)),
        "data": _describe_data(store.table, crops=store.identity.crop is not None),
        "parts": [
            {
                "number": part.plan.number,
                "dataset": part.plan.dataset,
                "root": None if part.plan.hides_paths else part.plan.root,
                "key_fingerprint": part.plan.key_fingerprint or None,
                "rows": part.plan.rows,
                "chunk_rows": part.plan.chunk_rows,
                "dtype": part.plan.vectors.dtype,
                "chunks": part.plan.chunks,
                "finished_chunks": len(part.receipts),
                "created": part.plan.created,
                "rounding_error": _rounding_error(part, VECTORS),
                "arrays": {
                    name: asdict(array) | {"rounding_error": _rounding_error(part, name)}
                    for name, array in part.plan.arrays.items()
                },
            }
            for part in store.parts
        ],
        "notes": {
            code: {"images": len(rows), "first": store.image_ids[rows[0]], "meaning": words_of_note(code)}
            for code, rows in notes_of(store.offsets()).items()
        },
        "tasks": [_describe_task(store, name) for name in task_names(store.path)],
        "failed_by_reason": _failed_by_reason(store),
        "failures": [
            {
                "image_id": store.image_ids[failure.row],
                "row": failure.row,
                "reason": failure.reason.value,
                "message": failure.message,
            }
            for failure in store.failures
        ],
    }


def _describe_data(table: pa.Table, *, crops: bool) -> dict[str, Any]:
    """Count patients, studies and series, and the images of each split, modality and anatomy; of crops, their kinds."""
    columns = [name for name in _ID_COLUMNS if name in table.column_names]
    ids = {name: pc.count_distinct(table.column(name), mode="only_valid").as_py() for name in columns}
    counts = {_ID_COLUMNS[name]: count for name, count in ids.items() if count}
    groups = {}
    columns = [*_GROUP_COLUMNS, *(_CROP_COLUMNS if crops else ())]
    for name in (name for name in columns if name in table.column_names):
        cells = Counter(cell for cell in table.column(name).to_pylist() if cell not in (None, ""))
        if cells:
            groups[name] = dict(sorted(cells.items()))
    return {"images": table.num_rows, **counts, "images_by": groups}


def _failed_by_reason(store: Store) -> dict[str, dict[str, Any]]:
    """Return reason -> how many images, and the first of them with their messages; the most frequent first."""
    grouped: dict[str, list[Failure]] = {}
    for failure in store.failures:
        grouped.setdefault(failure.reason.value, []).append(failure)
    return {
        reason: {
            "images": len(failures),
            "first": [
                {"image_id": store.image_ids[failure.row], "message": failure.message}
                for failure in failures[:FIRST_FAILURES]
            ],
        }
        for reason, failures in sorted(grouped.items(), key=lambda group: (-len(group[1]), group[0]))
    }


def _rounding_error(part: Part, array: str) -> float:
    errors = [receipt.arrays[array].rounding_error for receipt in part.receipts.values()]
    return max(errors, default=0.0)


def _describe_task(store: Store, name: str) -> dict[str, Any]:
    return described_task(read_task(store.path, name))


def described_task(task: Task) -> dict[str, Any]:
    """Return everything of a task but the labels, which are counted: all together, and for each target."""
    counts: Counter[str] = Counter()
    for target in task.counts.values():
        counts.update(target)
    return {
        **task.to_json(),
        "units": task.labels.num_rows,
        "labelled": sum(counts.values()),
        "counts": ", ".join(f"{label} {counts[label]:,}" for label in task.classes),
        "counts_of_target": task.counts,
    }
