"""``embed localise``: where the levels of every spine are."""

from __future__ import annotations

from pathlib import Path

import click

from cli.localising.level_errors import print_level_errors
from cli.localising.levels_job import LocaliseJob, localise_store
from cli.options import ProjectCommand, json_option, print_json, print_notice, require, store_option
from cli.printing.next_command import command_on
from cli.printing.probe_progress import shown_stages
from cli.project import shown
from embedstore.lumbar.level_points import LEVELS_FILE
from heads.localising.localiser_run import NOTICE
from heads.localising.recipe import Recipe
from heads.statistics.bootstrap import DRAWS

_DEFAULT = Recipe()


@click.command(name="localise", cls=ProjectCommand)
@store_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/levels"),
    show_default=True,
    help="Folder of the localiser's run.",
)
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="Folds of patients.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of folds, weights and order."
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=_DEFAULT.steps,
    show_default=True,
    help="Steps of learning for each fold and kind of series, of eight studies each.",
)
@click.option(
    "--draws", type=click.IntRange(1), default=DRAWS, show_default=True, help="Bootstrap draws of patients."
)
@click.option("--verbose", is_flag=True, help="Print a line for each stage.")
@json_option
def command(
    store: Path | None,
    out: Path,
    folds: int,
    seed: int,
    steps: int,
    draws: int,
    verbose: bool,
    as_json: bool,
) -> None:
    """Learn where the levels of a lumbar spine are, and find them in every study of the store.

    The store holds token grids (embed extract --tokens 64) and the readers' points (rsna-lumbar). A training study's
    levels come from networks that never saw its patient; studies without points, such as those of the test tree, are
    found by all of them. Research software, not a medical device.

    \b
    Example:
      embed localise --store lumbar.store --out runs/levels
    """
    source = Path(require(store, "--store"))
    job = LocaliseJob(
        store=source, folder=out, folds=folds, seed=seed, draws=draws, recipe=Recipe(steps=steps)
    )
    with shown_stages(verbose=verbose) as watch:
        done = localise_store(job, watch=watch, notify=print_notice)
    if as_json:
        print_json({"run": str(out), "levels": str(out / LEVELS_FILE), **done.document})
        return
    print_level_errors(done.document)
    click.echo(
        f"{shown(out)}: {LEVELS_FILE} has {len(done.levels):,} points. {NOTICE[0].upper()}{NOTICE[1:]}."
    )
    click.echo(f"Next: {command_on(source.with_name('crops.store'), 'extract', '--crops', shown(out))}")
