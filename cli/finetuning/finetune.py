"""``embed finetune``: train blocks or adapters of an encoder, and get an encoder back."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.completion import complete_encoders, complete_targets, complete_tasks
from cli.exit_codes import DONE, STOPPED
from cli.finetuning.finetune_text import (
    ablation_document,
    print_ablation,
    print_tuned,
    shown_training,
    tuned_document,
)
from cli.finetuning.recipe_options import blocks_of, cache_options, recipe_of, recipe_options
from cli.jobs.extract_store import default_workers
from cli.key_options import key_option
from cli.options import (
    ProjectCommand,
    json_option,
    print_json,
    print_notice,
    project_of,
    require,
    stores_option,
)
from cli.stop_signal import stop_on_signal
from cli.wording import for_command_line
from embedstore.errors import UsageError

if TYPE_CHECKING:
    from finetune.job import FineTuned, FineTuning


@click.command(name="finetune", cls=ProjectCommand)
@stores_option
@click.option("--task", shell_complete=complete_tasks, help="Task of the store.  [default: its only one]")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_targets,
    help="Only this target of the task; repeatable.",
)
@click.option(
    "--encoder",
    shell_complete=complete_encoders,
    metavar="FOLDER|HUB_ID",
    help="The base, a SigLIP or Gemma 3 checkpoint.  [default: the store's encoder]",
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option("--preprocess", "preset", help="Preset: pad, eval or hf.  [default: the encoder's own]")
@click.option("--encoder-pooling", "pooling", help="map or mean.  [default: the encoder's]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the encoder.  [default: encoders/TASK-METHOD-BLOCKS]",
)
@click.option(
    "--from-run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Go on from the head of a probe (logistic, mlp) in place of a new one.",
)
@recipe_options
@cache_options
@click.option("--resume", is_flag=True, help="Go on with an unfinished training in --out.")
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="Minutes between two saved states; one is saved after every epoch, too.",
)
@click.option("--yes", is_flag=True, help="Go on without a GPU.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Decoding processes; 0 decodes in this one.  [default: one per core, at most 16]",
)
@key_option
@json_option
@click.pass_context
def command(context: click.Context, /, as_json: bool, **given: Any) -> int:
    """Fine-tune the encoder of a store on one of its tasks; what comes out is an encoder again.

    The folder it leaves is taken by `embed extract --encoder`. Patients are held out to stop in time; the encoder keeps
    digests of those that taught it, and probes and comparisons refuse to judge it by them. A state is saved every few
    minutes and on Ctrl-C or SIGTERM; --resume goes on, on a CPU to the same bits.

    \b
    Example:
      embed finetune --store mura.store --task abnormal --encoder google/medsiglip-448 --blocks 2 --out encoders/k2
      embed finetune --store mura.store --task abnormal --method lora --lr 2e-4 --out encoders/lora
    """
    from finetune.training.lesson import Stopped

    numbers = blocks_of(given["blocks"], given["method"])
    job = _job(context, given, numbers[0])
    jobs = [job] if len(numbers) == 1 else [_of_blocks(job, given, number) for number in numbers]
    finished: list[tuple[FineTuning, FineTuned]] = []
    with stop_on_signal("the state is saved; the same command with --resume goes on") as stopping:
        try:
            for one in jobs:
                finished.append((one, _run(one, stopping, yes=given["yes"])))
        except Stopped:
            print_notice(f"stopped; the state is in {one.out}")
            return STOPPED
    if as_json:
        print_json(tuned_document(*finished[0]) if len(finished) == 1 else ablation_document(finished))
        return DONE
    if len(finished) > 1:
        print_ablation(finished)
    best = min(finished, key=lambda pair: pair[1].progress.best_loss)
    print_tuned(*best)
    return DONE


def _run(job: FineTuning, stopping: Any, *, yes: bool) -> FineTuned:
    from finetune.fine_tuning import fine_tune
    from finetune.job import Watchers

    _require_device(job.device, yes=yes)
    began = time.monotonic()

    def say(line: str) -> None:
        print_notice(for_command_line(line))

    with shown_training(began) as show:
        return fine_tune(job, Watchers(stopping=stopping, say=say, show=show))


def _require_device(device: str, *, yes: bool) -> None:
    """Refuse to train a tower on a CPU unless somebody asked for it."""
    from embedstore.compute_device import resolve_device

    if resolve_device(device).type == "cpu" and not yes:
        raise UsageError(
            "there is no GPU, and a tower of 400 million weights learns from a few images a minute on a CPU; --yes "
            "goes on all the same (small checkpoints, small stores)"
        )


def _job(context: click.Context, given: dict[str, Any], blocks: int | None) -> FineTuning:
    from embedstore.keys.key_file import read_key
    from finetune.job import FineTuning
    from finetune.prefix import CacheOptions

    stores = require(given["store"] or None, "--store")
    key = given["key_file"]
    name = f"{given['task'] or 'task'}-{given['method']}-{'all' if blocks is None else blocks}"
    workers = default_workers() if given["workers"] is None else given["workers"]
    return FineTuning(
        stores=stores,
        out=given["out"] or project_of(context).folder / "encoders" / name,
        recipe=recipe_of(given, blocks),
        key=None if key is None else read_key(key),
        workers=workers,
        minutes=given["checkpoint_minutes"],
        cache=CacheOptions(asked=given["cache"], folder=given["cache_folder"], limit_gb=given["cache_limit"]),
        **{
            name: given[name]
            for name in (
                "task",
                "targets",
                "encoder",
                "revision",
                "preset",
                "pooling",
                "from_run",
                "device",
                "resume",
            )
        },
    )


def _of_blocks(job: FineTuning, given: dict[str, Any], blocks: int | None) -> FineTuning:
    """Return the job with another number of blocks, in a folder of its own."""
    out = Path(job.out)
    named = "all" if blocks is None else str(blocks)
    return replace(job, recipe=recipe_of(given, blocks), out=out.with_name(f"{out.name}-k{named}"))
