"""``embed info``: what a store holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from cli.options import ProjectCommand, json_option, plural, print_facts, print_json, require, store_argument
from cli.project import shown
from embedstore.store.layout import VECTORS
from embedstore.store.reader import FAILED, PENDING, VALID, Part, Store, open_store
from embedstore.store.tasks import read_task, task_names

_SHOWN_FAILURES = 10


@click.command(name="info", cls=ProjectCommand)
@store_argument
@click.option("--failures", "all_failures", is_flag=True, help="List every failed image, not the first ten.")
@json_option
def command(store_argument: Path | None, store: Path | None, all_failures: bool, as_json: bool) -> None:
    """Show a store's identity, parts, tasks and failed images.

    \b
    Example:
      embed info mura.store
    """
    opened = open_store(require(store_argument or store, "--store"))
    document = describe(opened)
    if as_json:
        print_json(document)
        return
    click.echo(f"{shown(opened.path)}")
    print_facts(
        {
            "  encoder": f"{opened.identity.encoder}, revision {opened.identity.revision}, {opened.identity.dim}-d",
            "  preprocess": f"{opened.identity.preprocess['preset']}, {opened.identity.preprocess['size_px']} px",
            "  identity": opened.identity.sha256,
            "  images": f"{document['valid']:,} with a vector, {document['failed']:,} failed, "
            f"{document['pending']:,} pending",
        }
    )
    for part in document["parts"]:
        click.echo(
            f"  part {part['number']}: {part['dataset']}, {plural(part['rows'], 'row')}, {part['dtype']}, "
            f"{part['finished_chunks']} of {plural(part['chunks'], 'chunk')} finished, "
            f"largest rounding error {part['rounding_error']:.2g}"
        )
        for name, array in part["arrays"].items():
            if name != VECTORS:
                shape = " x ".join(f"{length:,}" for length in array["row_shape"])
                click.echo(
                    f"    array {name}: {shape} per row ({array['row']}), {array['dtype']}, "
                    f"largest rounding error {array['rounding_error']:.2g}"
                )
    for task in document["tasks"]:
        click.echo(
            f"  task {task['name']}: {task['unit']} level, {plural(task['labelled'], 'label')}, {task['counts']}"
        )
    failures = document["failures"] if all_failures else document["failures"][:_SHOWN_FAILURES]
    for failure in failures:
        click.echo(f"  failed: {failure['image_id']}: {failure['reason']}: {failure['message']}")
    if len(failures) < len(document["failures"]):
        click.echo(f"  ... and {len(document['failures']) - len(failures):,} more; --failures lists all")


def describe(store: Store) -> dict[str, Any]:
    """Return what `info` shows, as plain JSON values."""
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
                "root": part.plan.root,
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
