"""``embed search``: the nearest cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from cli.jobs.text_tower import text_tower_of
from cli.options import ProjectCommand, json_option, print_json, print_notice, require, store_option
from embedstore.encoders.registry import encoder_of_identity
from embedstore.errors import DataError, UsageError
from embedstore.manifest import Record
from embedstore.pipeline.embed_images import embed_records
from embedstore.queries.search import Neighbor, build_index, parse_where
from embedstore.store.reader import Store, open_store


@click.command(name="search", cls=ProjectCommand)
@click.argument("image", required=False, type=click.Path(path_type=Path))
@click.option("--id", "image_id", help="An image of the store instead of a file.")
@click.option("--text", help="Words instead of an image; needs a store of a SigLIP checkpoint.")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="How many.")
@click.option(
    "--where", multiple=True, metavar="COLUMN=VALUE", help="Only images with this value; repeatable."
)
@click.option("--same-patient", is_flag=True, help="With --id: show images of the same patient too.")
@click.option("--encoder", help="Folder or hub id of the store's encoder.  [default: its registered name]")
@click.option("--device", default="auto", show_default=True, help="Device of the encoder.")
@store_option
@json_option
def command(
    image: Path | None,
    image_id: str | None,
    text: str | None,
    k: int,
    where: tuple[str, ...],
    same_patient: bool,
    encoder: str | None,
    device: str,
    store: Path | None,
    as_json: bool,
) -> None:
    """Find the images whose vectors are most similar (exact cosine) to IMAGE or to an image of the store.

    \b
    Example:
      embed search MURA-v1.1/valid/XR_ELBOW/patient00022/study1_positive/image1.png -k 5 --where anatomy=XR_ELBOW
    """
    if sum(given is not None for given in (image, image_id, text)) != 1:
        raise UsageError("give one of: an image file, --id IMAGE_ID, --text WORDS")
    opened = open_store(require(store, "--store"))
    if text is not None:
        vector = text_tower_of(opened, encoder=encoder, device=device).encode([text])[0]
    elif image is not None:
        vector = _vector_of_file(opened, image, encoder, device)
    else:
        vector = opened.vector(str(image_id))
    patient = None if image_id is None or same_patient else _patient(opened, image_id)
    index = build_index(opened, where=parse_where(where))
    neighbors = index.search(vector, k=k, exclude_patient=patient, exclude_id=image_id or "")
    if as_json:
        print_json(
            {"query": str(image or image_id or text), "neighbors": [_as_json(entry) for entry in neighbors]}
        )
        return
    if not neighbors:
        click.echo("no image to compare with: the conditions leave none")
    for entry in neighbors:
        facts = " ".join(
            f"{name}={cell}"
            for name, cell in entry.record.items()
            if name in {"patient_id", "split", *_extra(opened)}
        )
        click.echo(f"{entry.similarity:.4f}  {entry.image_id}  {facts}")


def _vector_of_file(
    store: Store, image: Path, encoder_name: str | None, device: str
) -> npt.NDArray[np.float32]:
    encoder = encoder_of_identity(
        store.identity, holder=f"store {store.path}", name=encoder_name, device=device, say=print_notice
    )
    record = Record(image.name, image.name)
    embedded = embed_records([record], image.resolve().parent, encoder)
    for reason, message in embedded.failures.values():
        raise DataError(f"{image}: {reason}: {message}")
    vector: npt.NDArray[np.float32] = embedded.vectors[0]
    return vector


def _patient(store: Store, image_id: str) -> str | None:
    patient: str | None = store.table.column("patient_id")[store.row_of[image_id]].as_py()
    return patient


def _extra(store: Store) -> list[str]:
    return [column for part in store.parts for column in part.manifest.extra_columns][:6]


def _as_json(entry: Neighbor) -> dict[str, Any]:
    return {
        "image_id": entry.image_id,
        "similarity": entry.similarity,
        "row": entry.row,
        "record": dict(entry.record),
    }
