"""What ``embed info`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli.options import plural, print_facts
from cli.project import shown
from embedstore.errors import and_more, first_few
from embedstore.finetuned.trained_patients import FINETUNED
from embedstore.lumbar.crop_rule import ORACLE
from embedstore.store.layout import VECTORS

_SHOWN_VALUES = 8


def print_store(document: Mapping[str, Any], *, all_failures: bool) -> None:
    """Print what `cli.jobs.describe_store.describe_store` found; the first failures, or all of them."""
    identity = document["identity"]
    click.echo(f"{shown(Path(document['store']))}")
    print_facts(
        {
            "  encoder": f"{identity['encoder']}, revision {identity['revision']}, {identity['dim']}-d",
            **_origin(identity),
            "  identity": document["identity_sha256"],
            "  images": f"{document['valid']:,} with a vector, {document['failed']:,} failed, "
            f"{document['pending']:,} pending",
            **_data_facts(document["data"]),
        }
    )
    for part in document["parts"]:
        click.echo(
            f"  part {part['number']}: {part['dataset']}, {plural(part['rows'], 'row')}, {part['dtype']}, "
            f"{part['finished_chunks']} of {plural(part['chunks'], 'chunk')} finished, "
            f"largest rounding error {_rounding_error(part, part)}"
        )
        if part["key_fingerprint"]:
            kept = (
                "paths hidden"
                if part["root"] is None
                else "paths kept: to hide them, extract into a new store"
            )
            click.echo(f"    ids are digests of the key {part['key_fingerprint']}; {kept}")
        for name, array in part["arrays"].items():
            if name != VECTORS:
                shape = " x ".join(f"{length:,}" for length in array["row_shape"])
                click.echo(
                    f"    array {name}: {shape} per row ({array['row']}), {array['dtype']}, "
                    f"largest rounding error {_rounding_error(part, array)}"
                )
    for task in document["tasks"]:
        click.echo(
            f"  task {task['name']}: {task['unit']} level, {plural(task['labelled'], 'label')}, {task['counts']}"
            + (
                f"; {len(task['targets'])} targets, --task {task['name']} counts each"
                if task["targets"][1:]
                else ""
            )
        )
    for code, note in document["notes"].items():
        click.echo(
            f"  note, {code}: {plural(note['images'], 'image')}, such as {note['first']}: {note['meaning']}"
        )
    if all_failures:
        for failure in document["failures"]:
            click.echo(f"  failed: {failure['image_id']}: {failure['reason']}: {failure['message']}")
    else:
        _print_failures(document["failed_by_reason"])


def _print_failures(by_reason: Mapping[str, Any]) -> None:
    """Print the failures of each reason: their number and the first of them."""
    for reason, failed in by_reason.items():
        click.echo(f"  failed, {reason}: {plural(failed['images'], 'image')}")
        for failure in failed["first"]:
            click.echo(f"    {failure['image_id']}: {failure['message']}")
        left = failed["images"] - len(failed["first"])
        if left:
            click.echo(f"   {and_more(left)}; --failures lists all")


def _data_facts(data: Mapping[str, Any]) -> dict[str, str]:
    """Return who and what the images show, in lines."""
    counted = [f"{data[name]:,} {name}" for name in ("patients", "studies", "series") if name in data]
    facts = {"  data": ", ".join(counted)} if counted else {}
    for name, counts in data["images_by"].items():
        facts[f"  {name}"] = first_few(
            (f"{value} {count:,}" for value, count in counts.items()), shown=_SHOWN_VALUES
        )
    return facts


def print_task(task: Mapping[str, Any]) -> None:
    """Print how many units of a task have which label, target by target."""
    acted_on = f", positive: {task['positive']}" if task["positive"] is not None else ""
    click.echo(
        f"task {task['name']}: per {task['unit']}, {plural(task['units'], 'row')}, "
        f"classes {', '.join(task['classes'])}{acted_on}"
    )
    rows = [["target", *task["classes"], "no label"]]
    for target, counts in task["counts_of_target"].items():
        rows.append(
            [target, *(f"{count:,}" for count in (*counts.values(), task["units"] - sum(counts.values())))]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        click.echo("  ".join([f"  {row[0]:<{widths[0]}}", *cells]))


def _origin(identity: Mapping[str, Any]) -> dict[str, str]:
    """Return how images became vectors, or what is declared of vectors that were imported."""
    if declared := identity.get("declared"):
        facts = ", ".join(f"{name}={fact}" for name, fact in declared.items())
        return {
            "  declared": f"{facts} (imported, not computed here: no image can be encoded for this store)"
        }
    tuned = identity.get("options", {}).get(FINETUNED)
    preprocess = identity["preprocess"]
    if tuned is not None:
        shorter = {**identity, "options": {}}
        return {"  fine-tuned": f"{tuned['method']} of {tuned['base']}", **_origin(shorter)}
    square = ", square pixels" if preprocess.get("square_pixels") and preprocess["preset"] == "pad" else ""
    crop = preprocess.get("crop")
    if crop is None:
        return {"  preprocess": f"{preprocess['preset']}, {preprocess['size_px']} px{square}"}
    where = (
        "ORACLE points: true coordinates, which no new study has"
        if crop["points"] == ORACLE
        else f"points of localiser {crop['localiser_sha256'][:12]}"
    )
    return {
        "  preprocess": f"{preprocess['preset']}, {preprocess['size_px']} px",
        "  crops": f"{crop['size_mm']:g} mm, {plural(crop['neighbours'], 'neighbour')} on each side, around {where}",
    }


def _rounding_error(part: Mapping[str, Any], array: Mapping[str, Any]) -> str:
    """Return an array's largest rounding error; ``-`` where nothing of its part is finished yet."""
    return f"{array['rounding_error']:.2g}" if part["finished_chunks"] else "-"
