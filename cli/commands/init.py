"""``embed init``: write embed.toml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cli.completion import complete_datasets, complete_encoders
from cli.dataset_options import reader_options, table_options
from cli.options import json_option, print_json
from cli.own_options import encoder_option, named_values, reader_option
from cli.project import FILE_NAME, shown, write_settings
from embedstore.datasets.base import dataset_reader, first_task
from embedstore.encoders.registry import require_encoder_options
from embedstore.errors import DataError, UsageError


@click.command(name="init")
@click.option(
    "--dataset",
    required=True,
    shell_complete=complete_datasets,
    help="Reader of the data set: mura, table, dicom-folder, ...",
)
@click.option(
    "--root", required=True, type=click.Path(path_type=Path), help="The data set's folder or table."
)
@table_options
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    help="dicom-folder, and table with --hide-paths: file with the secret behind the ids; made by the first extract.",
)
@reader_option
@click.option(
    "--store", type=click.Path(path_type=Path), help="The store's folder.  [default: DATASET.store]"
)
@click.option(
    "--encoder",
    default="hog",
    show_default=True,
    help="Encoder of the store.",
    shell_complete=complete_encoders,
)
@encoder_option
@click.option("--preprocess", help="Preset: pad, eval or hf.  [default: the encoder's own]")
@click.option("--task", help="Task to probe.  [default: the data set's first]")
@click.option("--force", is_flag=True, help="Replace an embed.toml that is there.")
@json_option
def command(
    dataset: str,
    root: Path,
    store: Path | None,
    encoder: str,
    key_file: Path | None,
    reader_option: tuple[str, ...],
    encoder_option: tuple[str, ...],
    preprocess: str | None,
    task: str | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Write embed.toml into the current folder, so that the other commands need no options.

    \b
    Example:
      embed init --dataset mura --root MURA-v1.1
      embed init --dataset table --root images.csv --label fracture --positive yes
    """
    target = Path.cwd() / FILE_NAME
    if target.exists() and not force:
        raise UsageError(f"{FILE_NAME} is already here; edit it, or replace it with --force")
    tables = {
        "options": reader_options(given | {"reader_option": reader_option}, {}),
        "encoder_options": named_values(encoder_option, "--encoder-option"),
    }
    reader = dataset_reader(dataset, tables["options"] | ({"key_file": key_file} if key_file else {}))
    task = task or first_task(reader)
    if key_file is None and getattr(reader, "needs_key", False) and "key_file" not in tables["options"]:
        raise UsageError(
            f"{dataset} needs --key-file FILE: ids become digests made with its secret. A file that is not there is "
            "made by the first extract; keep it outside of the store, in a folder that is not handed on"
        )
    require_encoder_options(encoder, tables["encoder_options"])
    if not root.exists():
        raise DataError(f"--root: {root} does not exist")
    settings: dict[str, Any] = {
        "dataset": dataset,
        "root": os.path.relpath(root),
        "store": str(store or f"{dataset}.store"),
        "encoder": encoder,
    }
    if key_file is not None:
        settings["key_file"] = os.path.relpath(key_file)
    settings |= {key: entry for key, entry in (("preprocess", preprocess), ("task", task)) if entry}
    settings |= {key: table for key, table in tables.items() if table}
    write_settings(target, settings)
    if as_json:
        print_json({"file": str(target), "settings": settings})
    else:
        asked = f" with task {task}" if task else ""
        click.echo(f"wrote {shown(target)}{asked}. Next: embed extract")
