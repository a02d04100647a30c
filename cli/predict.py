"""``embed predict``: answers for images, study folders or a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from cli.main import DONE, IMAGES_FAILED
from cli.options import ProjectCommand, plural
from embedstore.embed import embed_records, encoder_of_identity
from embedstore.errors import UsageError
from embedstore.inputs import gather_inputs
from embedstore.store.reader import open_store
from embedstore.view import Units, load_units
from heads.predict import predict_units
from heads.run import Run, load_run


@click.command(name="predict", cls=ProjectCommand)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option(
    "--probe", "run_folder", required=True, type=click.Path(path_type=Path), help="The run of a probe."
)
@click.option(
    "--threshold", default="half", show_default=True, help="Rule of the run (half, youden, ...) or a number."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write .jsonl or .parquet instead of printing.")
@click.option("--encoder", help="Folder or hub id of the run's encoder.  [default: its registered name]")
@click.option("--device", default="auto", show_default=True, help="Device of the encoder.")
def command(
    inputs: tuple[Path, ...],
    run_folder: Path,
    threshold: str,
    out: Path | None,
    encoder: str | None,
    device: str,
) -> int:
    """Answer for images, study folders or a store with calibrated probabilities, as JSON lines.

    The images directly in one folder are one study.

    \b
    Example:
      embed predict --probe runs/abnormal-logistic MURA-v1.1/valid/XR_WRIST/patient11185/study1_positive
    """
    if out is not None and out.suffix not in (".jsonl", ".parquet"):
        raise UsageError(f"--out: the suffix must be .jsonl or .parquet; found {out.suffix!r}")
    run = load_run(run_folder)
    unit = run.document["task"]["unit"]
    failed: list[str] = []
    if len(inputs) == 1 and (inputs[0] / "store.json").is_file():
        units = _units_of_store(run, inputs[0], unit)
    else:
        units, failed = _units_of_files(run, inputs, unit, encoder, device)
    predictions = []
    if len(units.unit_ids):
        predictions = predict_units(
            run, units.X, units.unit_of_image, units.unit_ids.tolist(), threshold=threshold
        )
    for line in failed:
        click.echo(f"no vector: {line}", err=True)
    if out is None:
        for prediction in predictions:
            click.echo(json.dumps(prediction, ensure_ascii=False))
    else:
        _write(out, predictions)
        click.echo(f"wrote {out}: {plural(len(predictions), 'prediction')}")
    return IMAGES_FAILED if failed else DONE


def _units_of_store(run: Run, path: Path, unit: str) -> Units:
    store = open_store(path)
    run.require_identity(store.identity)
    return load_units(store, unit)


def _units_of_files(
    run: Run, inputs: tuple[Path, ...], unit: str, encoder_name: str | None, device: str
) -> tuple[Units, list[str]]:
    encoder = encoder_of_identity(run.identity, holder=f"run {run.folder}", name=encoder_name, device=device)
    gathered = gather_inputs(inputs)
    embedded = embed_records(gathered.records, gathered.root, encoder)
    failed = [
        f"{gathered.records[row].path}: {reason}: {message}"
        for row, (reason, message) in embedded.failures.items()
    ]
    kept = [row for row in range(len(gathered.records)) if row not in embedded.failures]
    image_ids = [gathered.records[row].image_id for row in kept]
    names = [gathered.studies[row] for row in kept] if unit == "study" else image_ids
    number = {name: position for position, name in enumerate(dict.fromkeys(names))}
    units = Units(
        X=embedded.vectors[kept],
        image_ids=np.array(image_ids, dtype=np.str_),
        unit_of_image=np.array([number[name] for name in names], dtype=np.int64),
        unit_ids=np.array(list(number), dtype=np.str_),
    )
    return units, failed


def _write(out: Path, predictions: list[dict[str, Any]]) -> None:
    if out.suffix == ".jsonl":
        out.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in predictions))
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(_flat(predictions))), out)


def _flat(predictions: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield one row per unit and target, with a column per class."""
    for entry in predictions:
        for target, answer in entry["targets"].items():
            yield {
                "unit_id": entry["unit_id"],
                "target": target,
                **{f"prob_{name}": value for name, value in answer["probabilities"].items()},
                "decision": answer["decision"],
                "threshold": answer.get("threshold"),
                "images": entry["images"],
                "run_id": entry["run_id"],
            }
