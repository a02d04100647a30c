"""What ``embed finetune`` prints: progress, what came of it, the table of an ablation, and what to type next."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.comparing.table_text import estimate_in_words, print_comparison
from cli.options import plural
from cli.printing.progress import clock
from cli.project import shown
from heads.statistics.bootstrap import estimates_to_json

if TYPE_CHECKING:
    from cli.finetuning.judging import Judged
    from cli.finetuning.predicted import Predicted
    from finetune.cross_fitting import CrossFitted
    from finetune.job import FineTuned, FineTuning
    from finetune.training.lesson import Reached

OUT_OF_FOLD = "out_of_fold.parquet"
_PLAIN_EVERY_S = 10.0
_PLAIN_READERS = ("mura", "rsna-lumbar", "rsna-pneumonia")


@contextmanager
def shown_training(began: float) -> Iterator[Callable[[Reached], None]]:
    """Yield a callback that shows on stderr how far a training is: a moving line, or a plain one every ten seconds."""
    last = began

    def plain(reached: Reached) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_EVERY_S:
            click.echo(line_of(reached), err=True)
            last = now

    if not sys.stderr.isatty():
        yield plain
        return
    from rich.progress import BarColumn, TextColumn

    from cli.moving_line import moving_line

    with moving_line(BarColumn(), TextColumn("{task.description}")) as bar:
        task = bar.add_task("the head alone", total=None)
        yield lambda reached: bar.update(
            task, total=reached.of_images, completed=reached.images, description=line_of(reached)
        )


def line_of(reached: Reached) -> str:
    """Return one line: epoch, images, loss, speed, time left of the epoch."""
    left_s = (reached.of_images - reached.images) / max(reached.images_per_s, 1e-9)
    if not reached.epoch:
        return (
            f"frozen blocks: {reached.images:,} of {plural(reached.of_images, 'picture')}, {reached.images_per_s:.1f} "
            f"pictures/s, {clock(left_s)} left"
        )
    return (
        f"epoch {reached.epoch}: {reached.images:,} of {plural(reached.of_images, 'image')}, loss {reached.loss:.4f}, "
        f"{reached.images_per_s:.1f} images/s, {clock(left_s)} left"
    )


def tuned_document(job: FineTuning, tuned: FineTuned) -> dict[str, Any]:
    """Return what came of a training as plain JSON values."""
    progress = tuned.progress
    return {
        "encoder": str(tuned.folder),
        "method": job.recipe.method,
        "blocks": job.recipe.blocks,
        "best_epoch": progress.best_epoch,
        "history": progress.history,
        "seconds": round(progress.seconds, 1),
        "images_per_s": _speed(tuned),
        "trained_weights": tuned.trained_weights,
        "patients": tuned.patients,
        "images": tuned.images,
        "recipe": job.recipe.to_json(),
    }


def ablation_document(finished: Sequence[tuple[FineTuning, FineTuned]]) -> dict[str, Any]:
    """Return several trainings as plain JSON values."""
    return {"trainings": [tuned_document(*pair) for pair in finished]}


def print_ablation(finished: Sequence[tuple[FineTuning, FineTuned]]) -> None:
    """Print one row for each number of blocks."""
    click.echo(
        f"{'blocks':>6} {'weights':>12} {'epoch':>5} {'loss':>7} {'AUROC':>6} {'accuracy':>8} {'time':>8}"
    )
    for job, tuned in finished:
        best = _best(tuned)
        area = "" if best["auroc"] is None else f"{best['auroc']:.3f}"
        click.echo(
            f"{_blocks(job):>6} {tuned.trained_weights:>12,} {best['epoch']:>5} {best['loss']:>7.4f} {area:>6} "
            f"{best['accuracy']:>8.3f} {clock(tuned.progress.seconds):>8}"
        )
    click.echo("Validation patients chose epoch and row: these numbers are too good for others.")


def print_tuned(job: FineTuning, tuned: FineTuned, *, judged: Judged | None = None) -> None:
    """Print what came of a training, and the commands that judge it."""
    before, best = tuned.progress.history[0], _best(tuned)
    folder = shown(tuned.folder)
    click.echo(
        f"{folder}: {job.recipe.method}, {_blocks_in_words(job)}, {tuned.trained_weights:,} weights trained on "
        f"{plural(tuned.images, 'image')}, {clock(tuned.progress.seconds)} ({_speed(tuned):.1f} images/s)"
    )
    click.echo(
        f"  validation loss {before['loss']:.4f} with the head alone, {best['loss']:.4f} after epoch {best['epoch']}"
    )
    if not best["epoch"]:
        quantised = job.recipe.lora is not None and job.recipe.lora.is_quantised
        rounded = ", rounded to four bits" if quantised else ""
        click.echo(f"  no epoch was better than the frozen base: this encoder's tower is its base's{rounded}")
    if judged is not None:
        print_judged(judged)
        return
    click.echo("  not yet evidence: these patients chose the epoch")
    for line in next_commands(job, tuned):
        click.echo(line)


def print_judged(judged: Judged) -> None:
    """Print the comparison of the probes before and after, on patients whom the encoder has never seen."""
    click.echo(f"  {shown(judged.store)}: its own store; judged on patients whom it has never seen")
    print_comparison(judged.table)
    for line in predicted_in_words(judged.predicted):
        click.echo(line)
    click.echo(f"wrote {shown(judged.page)}")


def predicted_in_words(predicted: Predicted | None) -> list[str]:
    """Return what `embed escalate` had said beside what was obtained."""
    if predicted is None:
        return ["embed escalate was not asked about these vectors: no prediction to hold this against"]
    name = predicted.goal.metric
    said = f"predicted for {predicted.goal} ({shown(predicted.run)}): {predicted.decision}"
    if predicted.gain is not None:
        low, middle, high = predicted.gain
        said += f"; {name} better by {middle:.3f} [{low:.3f}, {high:.3f}]"
    if predicted.hours is not None:
        said += f"; {predicted.hours:.2g} hours"
    if predicted.obtained_gain is None:
        return [said, f"obtained: the comparison has no {name} of that target"]
    value, low, high = predicted.obtained_gain
    if value < 0:
        return [said, f"obtained: {name} worse by {-value:.3f} [{-high:.3f}, {-low:.3f}]"]
    return [said, f"obtained: {name} better by {value:.3f} [{low:.3f}, {high:.3f}]"]


def judged_document(judged: Judged) -> dict[str, Any]:
    """Return the same as plain JSON values."""
    return {
        "store": str(judged.store),
        "before": str(judged.before.folder),
        "after": str(judged.after.folder),
        "comparison": judged.table.to_json(),
        "predicted": judged.predicted and judged.predicted.to_json(),
        "page": str(judged.page),
    }


def print_cross_fitted(fitted: CrossFitted) -> None:
    """Print how good the out-of-fold answers are, and where they lie."""
    units = len(set(fitted.table.column("unit_id").to_pylist()))
    click.echo(
        f"{shown(fitted.folder / OUT_OF_FOLD)}: {plural(units, 'unit')} out of fold, calibrated on other folds; "
        f"{clock(fitted.seconds)} of training"
    )
    for target, metrics in fitted.metrics.items():
        numbers = ", ".join(f"{name} {estimate_in_words(found)}" for name, found in metrics.items())
        click.echo(f"  {target}: {numbers}")


def cross_fitted_document(found: CrossFitted) -> dict[str, Any]:
    """Return the same as plain JSON values."""
    return {
        "folder": str(found.folder),
        "table": str(found.folder / OUT_OF_FOLD),
        "seconds": round(found.seconds, 1),
        "metrics": {target: estimates_to_json(metrics) for target, metrics in found.metrics.items()},
    }


def next_commands(job: FineTuning, tuned: FineTuned) -> list[str]:
    """Return the commands that extract with the encoder, and probe without the patients that taught it.

    Of a reader with settings of its own nobody can say here how the data set was read: the training's own command
    judges the encoder from what the store knows.
    """
    from embedstore.queries.image_files import root_of
    from embedstore.store.reader import open_store

    name = Path(tuned.folder).name
    store = open_store(Path(job.stores[0]))
    part = store.parts[0]
    if part.plan.dataset not in _PLAIN_READERS:
        return ["Next: the same command with --resume --then-probe (extracts, probes and compares)"]
    data = ["--dataset", part.plan.dataset]
    if not part.plan.hides_paths:
        data += ["--root", shown(root_of(store, part))]
    task = ["--task", job.task or (store.tasks[0] if store.tasks else "TASK")]
    return [
        "Next: "
        + shlex.join(
            ["embed", "extract", *data, "--store", f"{name}.store", "--encoder", shown(tuned.folder)]
        ),
        "      "
        + shlex.join(
            ["embed", "probe", "--store", f"{name}.store", *task, "--trained-patients", "leave-out"]
        ),
    ]


def _best(tuned: FineTuned) -> dict[str, Any]:
    found: dict[str, Any] = next(
        entry for entry in tuned.progress.history if entry["epoch"] == tuned.progress.best_epoch
    )
    return found


def _blocks(job: FineTuning) -> str:
    return "all" if job.recipe.blocks is None else str(job.recipe.blocks)


def _blocks_in_words(job: FineTuning) -> str:
    return "all blocks" if job.recipe.blocks is None else plural(job.recipe.blocks, "block")


def _speed(tuned: FineTuned) -> float:
    return tuned.progress.images / max(tuned.progress.seconds, 1e-9)
