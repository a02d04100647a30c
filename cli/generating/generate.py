"""``embed generate``: answers of a generative model, one line for each study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.exit_codes import DONE, IMAGES_FAILED, STOPPED
from cli.generating.generate_progress import print_generated, shown_studies
from cli.jobs.extract_store import default_workers
from cli.key_options import key_option
from cli.options import (
    ProjectCommand,
    json_option,
    print_json,
    print_notice,
    require,
    store_option,
    where_option,
)
from cli.stop_signal import stop_on_signal
from cli.wording import for_command_line

if TYPE_CHECKING:
    from embedstore.generation.generation_options import Generated, GenerateOptions


@click.command(name="generate", cls=ProjectCommand)
@store_option
@click.option(
    "--model",
    required=True,
    metavar="FOLDER|HUB_ID",
    help="A MedGemma or another Gemma 3 that reads images, instruction-tuned.",
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A LoRA adapter in PEFT's files, merged into the model; refused unless every weight of it is used.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The file of JSON lines, gone on with if it is there.",
)
@click.option(
    "--task",
    "labelled_by",  # the key `task` of embed.toml is what is probed
    help="Only studies that this task labels.",
)
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this study; repeatable.")
@where_option
@click.option("--limit", type=int, help="Only the first so many studies.")
@click.option(
    "--images",
    metavar="N|VIEW=N,...",
    default="8",
    show_default=True,
    help="Slices to show, dealt out over the views or by view: 8 is sagittal-t2=1,sagittal-t1=2,axial-t2=5.",
)
@click.option(
    "--prompt",
    "prompt_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The question, in which {count} becomes the number of images and {views} their views.",
)
@click.option(
    "--score-slots", is_flag=True, help="Also read the probabilities of N, M and S at each of the 25 codes."
)
@click.option(
    "--max-new-tokens",
    type=int,
    default=400,
    show_default=True,
    help="Where an answer without an end is cut off.",
)
@click.option(
    "--temperature",
    type=float,
    default=0.0,
    show_default=True,
    help="0 takes the likeliest token; above, draws.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the draws; each study has its own by it."
)
@click.option("--batch", type=int, default=1, show_default=True, help="Studies at once.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option(
    "--workers", type=click.IntRange(1), help="Decoding processes.  [default: one per core, at most 16]"
)
@key_option
@json_option
def command(store: Path | None, model: str, out: Path, as_json: bool, **given: Any) -> int:
    """Ask a generative model about the lumbar studies of a store: 25 severity codes as JSON, one line for each study.

    Slices are chosen by where they lie: the middle sagittal T2, sagittal T1 beside it, axial T2 from head to foot. The
    file is what `embed compare --responses` reads. Every batch is kept when it is done; the same command goes on, and
    one with another model, prompt or seed is refused.

    \b
    Example:
      embed generate --store lumbar.store --model google/medgemma-1.5-4b-it --out medgemma.jsonl --score-slots
    """
    from embedstore.generation.generate import generate_responses

    source = Path(require(store, "--store"))
    options = _options(given)

    def say(line: str) -> None:
        print_notice(for_command_line(line))

    with stop_on_signal("the current batch is abandoned, finished ones stay") as stopping:
        states = generate_responses(source, model, out, options, say=say, stopping=stopping)
        state = _followed(states)
        stopped = stopping() and state.done < state.studies
    if as_json:
        print_json(
            {
                "out": str(out),
                "studies": state.studies,
                "before": state.before,
                "answered": state.answered,
                "without_image": state.without_image,
                "cut_off": state.cut_off,
                "failed_images": state.failed_images,
                "stopped": stopped,
            }
        )
    else:
        print_generated(state, out, stopped=stopped)
    if stopped:
        return STOPPED
    return IMAGES_FAILED if state.without_image else DONE


def _followed(states: Iterator[Generated]) -> Generated:
    """Show the states as they come, and return the last."""
    state = next(states)
    with shown_studies(state) as show:
        for reached in states:
            state = reached
            show(state)
    return state


def _options(given: dict[str, Any]) -> GenerateOptions:
    from embedstore.generation.generation_options import GenerateOptions
    from embedstore.generation.prompt import Prompt, read_prompt
    from embedstore.keys.key_file import read_key

    prompt, key = given.pop("prompt_file"), given.pop("key_file")
    task = given.pop("labelled_by")
    return GenerateOptions(
        **given | {"workers": given["workers"] or default_workers()},
        task=task,
        prompt=Prompt() if prompt is None else read_prompt(prompt),
        key=None if key is None else read_key(key),
    )
