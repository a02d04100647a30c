"""``embed search``: the nearest cases."""

from __future__ import annotations

from pathlib import Path

import click

from cli.jobs.search_store import SearchOptions, search_by_file, search_by_id, search_by_words
from cli.key_options import by_option
from cli.options import (
    ProjectCommand,
    json_option,
    print_json,
    print_notice,
    require,
    store_option,
    where_option,
)
from cli.printing.neighbors import neighbors_document, print_neighbors
from cli.wording import for_command_line
from embedstore.errors import UsageError


@click.command(name="search", cls=ProjectCommand)
@click.argument("image", required=False, type=click.Path(path_type=Path))
@click.option("--id", "image_id", help="An image of the store instead of a file.")
@click.option("--text", help="Words instead of an image; needs a store of a SigLIP checkpoint.")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="How many.")
@where_option
@click.option("--same-patient", is_flag=True, help="With --id: show images of the same patient too.")
@click.option("--encoder", help="Folder or hub id of the store's encoder.  [default: its registered name]")
@click.option("--device", default="auto", show_default=True, help="Device of the encoder.")
@by_option
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
    by: str | None,
    key_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Find the images whose vectors are most similar (exact cosine) to IMAGE or to an image of the store.

    IMAGE is a file, or one of its frames or pages: loop.dcm#3, counted from 0. With --key-file, --id may be a SOP
    instance UID, and --where may name clinical ids: --where PatientID=4711.

    \b
    Example:
      embed search MURA-v1.1/valid/XR_ELBOW/patient00022/study1_positive/image1.png -k 5 --where anatomy=XR_ELBOW
    """
    if sum(given is not None for given in (image, image_id, text)) != 1:
        raise UsageError("give one of: an image file, --id IMAGE_ID, --text WORDS")
    source = require(store, "--store")
    options = SearchOptions(k=k, where=where, encoder=encoder, device=device, by=by, key_file=key_file)
    if text is not None:
        found = search_by_words(source, text, options, notify=print_notice)
    elif image is not None:
        found = search_by_file(source, image, options, notify=print_notice)
    else:
        found = search_by_id(source, str(image_id), options, same_patient=same_patient)
    if as_json:
        if found.why_none:
            print_notice(for_command_line(found.why_none))
        print_json({"query": str(image or found.query or text), "neighbors": neighbors_document(found)})
    else:
        print_neighbors(found)
