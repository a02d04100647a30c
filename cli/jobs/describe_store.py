"""What a store holds, as plain JSON values."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.errors import words_of_note
from embedstore.files import StrPath
from embedstore.store.layout import VECTORS
from embedstore.store.part_reader import notes_of
from embedstore.store.reader import FAILED, PENDING, VALID, Part, Store, open_store
from embedstore.store.tasks import read_task, task_names


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


def _rounding_error(part: Part, array: str) -> float:
    errors = [receipt.arrays[array].rounding_error for receipt in part.receipts.values()]
    return max(errors, default=0.0)


def _describe_task(store: Store, name: str) -> dict[str, Any]:
    task = read_task(store.path, name)
    counts: Counter[str] = Counter()
    for target in task.targets:
        counts.update(cell for cell in task.labels.column(target).to_pylist() if cell is not None)
    return {
        **task.to_json(),
        "labelled": sum(counts.values()),
        "counts": ", ".join(f"{label} {counts[label]:,}" for label in task.classes),
    }
