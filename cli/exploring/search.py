"""``embed search``: the nearest cases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli.completion import complete_runs
from cli.exploring.hits_text import print_hits
from cli.key_options import by_option
from cli.options import (
    ProjectCommand,
    is_typed,
    json_option,
    of_store,
    plural,
    print_json,
    print_notice,
    require,
    store_option,
    where_option,
)
from cli.searching.hits_document import hits_document
from cli.searching.search_options import IMAGE, STUDY, SearchOptions, SearchQuery, SearchTools
from cli.searching.search_store import open_search
from cli.wording import for_command_line
from embedstore.errors import UsageError
from embedstore.indexing.list_index import RECALL

_INDEXES = {"auto": None, "exact": False, "lists": True}


@click.command(name="search", cls=ProjectCommand)
@click.argument("images", nargs=-1, metavar="[IMAGE]...", type=click.Path(path_type=Path))
@click.option(
    "--id", "ids", multiple=True, metavar="ID", help="An image or a study of the store; repeatable."
)
@click.option("--text", help="Words instead of images; needs a store of a SigLIP checkpoint.")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="How many studies.")
@where_option
@click.option("--all-images", is_flag=True, help="Every similar image, instead of each study once.")
@click.option(
    "--same-patient",
    is_flag=True,
    help="Show other images of a patient who is searched for too, and the store's own copy of a file.",
)
@click.option("--task", help="Show the labels of this task.  [default: of all tasks]")
@click.option(
    "--probe",
    shell_complete=complete_runs,
    type=click.Path(path_type=Path),
    help="A run whose probabilities stand beside: out of fold or of its evaluation where it kept them.",
)
@click.option(
    "--sheet",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Also write the pictures, side by side: .png or .html; repeatable.",
)
@click.option(
    "--evaluate",
    is_flag=True,
    help="Instead of searching: let labelled units ask, and see whether the nearest of other patients agree.",
)
@click.option(
    "--space",
    shell_complete=complete_runs,
    type=click.Path(path_type=Path),
    help="With --evaluate: also in the hidden layer of this run of an mlp.",
)
@click.option(
    "--queries",
    type=click.IntRange(1),
    default=2000,
    show_default=True,
    help="With --evaluate: units that ask at most, drawn at random.",
)
@click.option(
    "--trained-patients",
    type=click.Choice(["refuse", "leave-out", "use"]),
    default="refuse",
    show_default=True,
    help="With --evaluate: patients on whom the store's encoder was fine-tuned.",
)
@click.option("--draws", type=click.IntRange(1), default=2000, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of queries and draws.")
@click.option(
    "--index",
    type=click.Choice([*_INDEXES]),
    default="auto",
    show_default=True,
    help="Compare all vectors, or search lists, which are kept beside the store; auto: lists from a million rows on.",
)
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    default=RECALL,
    show_default=True,
    help="Of lists: share of the ten nearest that must be found; it is measured when they are made.",
)
@click.option("--encoder", help="Folder or hub id of the store's encoder.  [default: its registered name]")
@click.option("--device", default="auto", show_default=True, help="Device of the encoder.")
@by_option
@store_option
@json_option
@click.pass_context
def command(
    context: click.Context, /, images: tuple[Path, ...], store: Path | None, as_json: bool, **given: Any
) -> None:
    """Find the studies most similar to IMAGE, or to images, studies or words: exact cosine of their vectors.

    IMAGE is a file, one of its frames or pages (loop.dcm#3, counted from 0), or a folder. What is asked for together is
    one question: a study is as similar as its image that is nearest to any of them. A file that the store holds counts
    as the store's. With --key-file, --id may be a StudyInstanceUID or SOPInstanceUID, and --where may name clinical
    ids: --where PatientID=4711.

    \b
    Example:
      embed search MURA-v1.1/valid/XR_ELBOW/patient00022/study1_positive/image1.png -k 5 --where anatomy=XR_ELBOW
    """
    given |= {name: of_store(context, name, store) for name in ("task", "encoder")}
    if given["evaluate"]:
        _evaluate(images, store, as_json, given)
        return
    for name in ("space", "queries", "draws", "seed", "trained_patients"):
        if is_typed(context, name):
            raise UsageError(f"--{name.replace('_', '-')} belongs to --evaluate")
    if not (images or given["ids"] or given["text"] is not None):
        raise UsageError("give one of: image files, --id IMAGE_OR_STUDY, --text WORDS")
    if given["sheet"]:
        from cli.searching.contact_sheet import require_sheet, save_sheet

        for path in given["sheet"]:
            require_sheet(path)
    tools = SearchTools(
        encoder=given["encoder"],
        device=given["device"],
        workers=(os.cpu_count() or 1) if len(images) > 1 or any(path.is_dir() for path in images) else 1,
        key_file=given["key_file"],
        lists=_INDEXES[given["index"]],
        recall=given["recall"],
    )
    opened = open_search(require(store, "--store"), tools)
    query = SearchQuery(images=images, ids=given["ids"], text=given["text"], by=given["by"])
    options = SearchOptions(
        k=given["k"],
        where=given["where"],
        group=IMAGE if given["all_images"] else STUDY,
        same_patient=given["same_patient"],
        task=given["task"],
        probe=given["probe"],
    )
    found = opened.search(query, options, notify=print_notice)
    if as_json:
        if found.why_none:
            print_notice(for_command_line(found.why_none))
        print_json(hits_document(found))
    else:
        print_hits(found)
    for path in given["sheet"]:
        gone = save_sheet(path, opened, found).gone
        print_notice(
            f"wrote {path}" + (f"; the files of {plural(gone, 'picture')} have moved" if gone else "")
        )


def _evaluate(images: tuple[Path, ...], store: Path | None, as_json: bool, given: Mapping[str, Any]) -> None:
    from cli.exploring.quality_text import print_search_quality
    from cli.searching.evaluate_search import evaluate_search
    from heads.retrieval.evaluate_retrieval import RetrievalOptions

    named = {"IMAGE": images, "--id": given["ids"], "--text": given["text"], "--sheet": given["sheet"]}
    if wrong := [name for name, entry in named.items() if entry]:
        raise UsageError(f"--evaluate asks with the store's own units; leave {', '.join(wrong)} out")
    options = RetrievalOptions(
        k=given["k"], queries=given["queries"], draws=given["draws"], seed=given["seed"]
    )
    found = evaluate_search(
        require(store, "--store"),
        given["task"],
        options,
        space=given["space"],
        where=given["where"],
        trained_patients=given["trained_patients"],
    )
    if as_json:
        print_json(found.to_json())
    else:
        print_search_quality(found)
