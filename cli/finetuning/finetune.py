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
    cross_fitted_document,
    judged_document,
    print_ablation,
    print_cross_fitted,
    print_tuned,
    shown_training,
    tuned_document,
)
from cli.finetuning.recipe_options import blocks_of, cache_options, recipe_of, recipe_options
from cli.jobs.extract_store import default_workers
from cli.key_options import key_option
from cli.options import (
    ProjectCommand,
    is_typed,
    json_option,
    plural,
    print_json,
    print_notice,
    project_of,
    require,
    stores_option,
)
from cli.project import shown
from cli.stop_signal import stop_on_signal
from cli.wording import for_command_line
from embedstore.errors import UsageError

if TYPE_CHECKING:
    from cli.finetuning.judging import Judged
    from finetune.job import FineTuned, FineTuning

_OF_LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_targets", "lora_init", "dora", "rslora")
_OF_ADAPTERS = {"adapter", "encoder", "revision", "preset", "pooling", "out", "yes", "device", "as_json"}


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
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Train nothing: make an encoder of --encoder and a LoRA adapter that others trained on it.",
)
@recipe_options
@cache_options
@click.option(
    "--folds",
    type=click.IntRange(2),
    metavar="N",
    help="Fine-tune once for each of N folds of patients, and answer every study by an encoder that never saw its "
    "patient; OUT gets one encoder for each.",
)
@click.option(
    "--then-probe",
    is_flag=True,
    help="Then extract with the new encoder, probe without its patients, and compare with the store before.",
)
@click.option("--head", default="logistic", show_default=True, help="--then-probe: head of both probes.")
@click.option("--runs", hidden=True, type=click.Path(path_type=Path))
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

    if given["adapter"] is not None:
        _require_untrained(context)
        return _adopted(given, as_json=as_json)
    numbers = blocks_of(given["blocks"], given["method"])
    _require_one_way(given, numbers)
    _require_effect(context, given)
    job = _job(context, given, numbers[0])
    jobs = [job] if len(numbers) == 1 else [_of_blocks(job, given, number) for number in numbers]
    if len(jobs) > 1:
        _require_blocks(jobs)
    if given["then_probe"]:
        from cli.finetuning.judging import require_judgeable

        require_judgeable(job)
    finished: list[tuple[FineTuning, FineTuned]] = []
    with stop_on_signal("the state is saved; the same command with --resume goes on") as stopping:
        try:
            if given["folds"]:
                return _cross_fitted(job, given["folds"], stopping, yes=given["yes"], as_json=as_json)
            for one in jobs:
                finished.append((one, _run(one, stopping, yes=given["yes"])))
        except Stopped:
            print_notice(f"stopped; the state is in {one.out}")
            return STOPPED
    best = min(finished, key=lambda pair: pair[1].progress.best_loss)
    judged = _judged(context, *best, head=given["head"], runs=given["runs"]) if given["then_probe"] else None
    if as_json:
        document = tuned_document(*best) if len(finished) == 1 else ablation_document(finished)
        print_json(document | ({} if judged is None else {"judged": judged_document(judged)}))
        return DONE
    if len(finished) > 1:
        print_ablation(finished)
    print_tuned(*best, judged=judged)
    return DONE


def _require_untrained(context: click.Context) -> None:
    """Refuse what would change a training, because with ``--adapter`` there is none."""
    for parameter in context.command.params:
        name = str(parameter.name)
        if is_typed(context, name) and name not in _OF_ADAPTERS:
            raise UsageError(
                f"{parameter.opts[0]} says how to train, and --adapter trains nothing; leave it out"
            )


def _adopted(given: dict[str, Any], *, as_json: bool) -> int:
    from finetune.adopting import Adoption, adopt

    encoder, out = require(given["encoder"], "--encoder"), require(given["out"], "--out")
    same = {name: given[name] for name in ("adapter", "revision", "preset", "pooling")}
    folder = adopt(Adoption(encoder=encoder, out=out, **same), _say)
    if as_json:
        print_json({"encoder": str(out), "method": "adapter", "base": dict(folder.base)})
    else:
        click.echo(
            f"{shown(out)}: {encoder} with the adapter merged; nobody knows on whose images it was trained"
        )
        click.echo(f"Next: embed extract --store {out.name}.store --encoder {shown(out)}")
    return DONE


def _require_one_way(given: dict[str, Any], numbers: list[int | None]) -> None:
    if given["folds"] and (len(numbers) > 1 or given["then_probe"]):
        raise UsageError("--folds answers every study itself; leave --then-probe and several --blocks out")


def _require_effect(context: click.Context, given: dict[str, Any]) -> None:
    """Refuse options that were typed and would do nothing."""
    idle = {
        "--method lora": [] if given["method"] == "lora" else [*_OF_LORA],
        "--then-probe": [] if given["then_probe"] else ["head"],
        "no --from-run, whose head has its own": [] if given["from_run"] is None else ["head_shape"],
    }
    for needed, names in idle.items():
        for name in names:
            if is_typed(context, name):
                raise UsageError(f"--{name.replace('_', '-')} needs {needed}")


def _require_blocks(jobs: list[FineTuning]) -> None:
    """Refuse more blocks than there are before the first of several trainings begins."""
    from embedstore.store.reader import open_store
    from finetune.base import base_encoder

    stores = [open_store(Path(path)) for path in jobs[0].stores]
    for job in jobs:
        base_encoder(stores, job)


def _cross_fitted(job: FineTuning, folds: int, stopping: Any, *, yes: bool, as_json: bool) -> int:
    from finetune.cross_fitting import cross_fit
    from finetune.job import Watchers

    _require_device(job, yes=yes)
    with shown_training(time.monotonic()) as show:
        found = cross_fit(job, folds, Watchers(stopping=stopping, say=_say, show=show))
    if as_json:
        print_json(cross_fitted_document(found))
    else:
        print_cross_fitted(found)
    return DONE


def _judged(
    context: click.Context, job: FineTuning, tuned: FineTuned, *, head: str, runs: Path | None
) -> Judged:
    from cli.finetuning.judging import judge

    return judge(job, tuned, head=head, runs=runs or project_of(context).folder / "runs", say=_say)


def _say(line: str) -> None:
    print_notice(for_command_line(line))


def _run(job: FineTuning, stopping: Any, *, yes: bool) -> FineTuned:
    from finetune.fine_tuning import fine_tune
    from finetune.job import Watchers

    _require_device(job, yes=yes)
    with shown_training(time.monotonic()) as show:
        return fine_tune(job, Watchers(stopping=stopping, say=_say, show=show))


def _require_device(job: FineTuning, *, yes: bool) -> None:
    """Refuse to train a tower on a CPU, with how long it would take, unless somebody asked for it."""
    from embedstore.compute_device import resolve_device

    if resolve_device(job.device).type != "cpu" or yes:
        return
    from finetune.estimate import estimated_seconds
    from finetune.fine_tuning import prepare
    from finetune.job import Watchers

    one, whole = estimated_seconds(prepare(job, Watchers(say=_say)))
    epochs = plural(job.recipe.epochs, "epoch")
    raise UsageError(
        f"there is no GPU: a picture takes {one:.2g} s forwards on this CPU, and {epochs} about "
        f"{whole / 3600:.2g} hours, less with a prefix cache; --yes goes on all the same"
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
