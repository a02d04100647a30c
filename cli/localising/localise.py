"""``embed localise``: where the levels of every spine are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from cli.localising.level_errors import print_level_errors
from cli.localising.levels_job import LocaliseJob, LookAgainJob, localise_store, look_again_in_store
from cli.options import (
    ProjectCommand,
    is_typed,
    json_option,
    print_json,
    print_notice,
    require,
    store_option,
)
from cli.printing.next_command import command_on
from cli.printing.probe_progress import shown_stages
from cli.project import shown
from embedstore.errors import UsageError
from embedstore.lumbar.level_points import LEVELS_FILE
from heads.localising.localiser_run import NOTICE
from heads.localising.look_again import SECOND
from heads.localising.recipe import Recipe
from heads.statistics.bootstrap import DRAWS

_DEFAULT = Recipe()


@click.command(name="localise", cls=ProjectCommand)
@store_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the localiser's run.  [default: runs/levels; with --near runs/levels-near]",
)
@click.option(
    "--near",
    type=click.Path(path_type=Path),
    help="Look again: a store of crops with token grids around the levels of a first run.",
)
@click.option(
    "--first",
    type=click.Path(path_type=Path),
    help="With --near: the first run.  [default: found beside --out by what the crops say]",
)
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="Folds of patients.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of folds, weights and order."
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help=f"Steps of learning for each fold and kind of series, of eight studies each, or with --near for each kind of "
    f"crop, of {SECOND.batch} crops.  [default: {_DEFAULT.steps}; with --near {SECOND.steps}]",
)
@click.option(
    "--draws", type=click.IntRange(1), default=DRAWS, show_default=True, help="Bootstrap draws of patients."
)
@click.option("--verbose", is_flag=True, help="Print a line for each stage.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    store: Path | None,
    out: Path | None,
    near: Path | None,
    first: Path | None,
    folds: int,
    seed: int,
    steps: int | None,
    draws: int,
    verbose: bool,
    as_json: bool,
) -> None:
    """Learn where the levels of a lumbar spine are, and find them in every study of the store.

    The store holds token grids (embed extract --tokens 64) and the readers' points (rsna-lumbar). A training study's
    levels come from networks that never saw its patient; studies without points, such as those of the test tree, are
    found by all of them. With --near a second look moves these levels by what crops around them show, by the same
    folds. Research software, not a medical device.

    \b
    Example:
      embed localise --store lumbar.store --out runs/levels
      embed extract --crops runs/levels --crop-neighbours 0 --tokens 64 --store near.store
      embed localise --store lumbar.store --near near.store --out runs/levels-near
    """
    source = Path(require(store, "--store"))
    if near is None:
        if first is not None:
            raise UsageError("--first is the run whose levels are looked at again; it needs --near")
        out = out or Path("runs/levels")
        recipe = replace(_DEFAULT, steps=steps or _DEFAULT.steps)
        job = LocaliseJob(store=source, folder=out, folds=folds, seed=seed, draws=draws, recipe=recipe)
        with shown_stages(verbose=verbose) as watch:
            done = localise_store(job, watch=watch, notify=print_notice)
    else:
        _require_own(context)
        out = out or Path("runs/levels-near")
        recipe = replace(SECOND, steps=steps or SECOND.steps)
        again = LookAgainJob(store=source, near=near, folder=out, first=first, draws=draws, recipe=recipe)
        with shown_stages(verbose=verbose) as watch:
            done = look_again_in_store(again, watch=watch, notify=print_notice)
    if as_json:
        print_json({"run": str(out), "levels": str(out / LEVELS_FILE), **done.document})
        return
    print_level_errors(done.document)
    click.echo(
        f"{shown(out)}: {LEVELS_FILE} has {len(done.levels):,} points. {NOTICE[0].upper()}{NOTICE[1:]}."
    )
    crops = command_on(source.with_name("crops.store"), "extract", "--crops", shown(out))
    if near is not None:
        click.echo(f"Next: {crops}")
        return
    looked = command_on(
        source.with_name("near.store"), "extract", "--crops", shown(out), "--crop-neighbours", "0"
    )
    click.echo(f"Next: {looked} --tokens 64, for a second look (embed localise --near)")
    click.echo(f"  or: {crops}")


def _require_own(context: click.Context) -> None:
    """Refuse options of a first look, which a second one takes from its run."""
    for name in ("folds", "seed"):
        if is_typed(context, name):
            raise UsageError(f"--{name} is that of the first look, which --near goes on from; leave it out")
