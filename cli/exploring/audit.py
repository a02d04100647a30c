"""``embed audit``: what is wrong with a collection."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from cli.exit_codes import DONE, FAILED
from cli.exploring.audit_text import print_audit
from cli.jobs.extract_store import default_workers
from cli.key_options import key_option
from cli.options import ProjectCommand, json_option, print_json, print_notice, require, store_argument
from cli.searching.audit_job import AuditJob, kinds_of, run_audit
from embedstore.audit.findings import GROUPS, KINDS
from embedstore.errors import UsageError

_EVERY_S = 10.0


@click.command(name="audit", cls=ProjectCommand)
@store_argument
@click.option(
    "--pictures/--no-pictures",
    default=True,
    show_default=True,
    help="Decode the images again: copies are then told by pixels, and negatives, turned images and text are seen.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write a page with pictures of what was found.")
@click.option(
    "--keep",
    "--keep-list",
    "keep_list",
    type=click.Path(path_type=Path),
    help="Write the list of images to leave out, which `embed extract --keep-list` and `embed probe --keep-list` take.",
)
@click.option(
    "--fail-on",
    metavar="KIND,...",
    help=f"Exit with 1 if there is a finding of these kinds, or they were not looked at: "
    f"{', '.join([*GROUPS, *KINDS])}.",
)
@click.option("--force", is_flag=True, help="Replace the list of --keep, which somebody may have edited.")
@click.option(
    "--workers", type=click.IntRange(1), help="Decoding processes.  [default: one per core, at most 16]"
)
@key_option
@json_option
def command(
    store_argument: Path | None,
    store: Path | None,
    pictures: bool,
    out: Path | None,
    keep_list: Path | None,
    fail_on: str | None,
    force: bool,
    workers: int | None,
    key_file: Path | None,
    as_json: bool,
) -> int:
    """Find copies, patients and pictures on both sides of a split, and images that are not what their rows say.

    Nothing is changed. What is found is to be looked at: --out writes a page with pictures.

    \b
    Example:
      embed audit mura.store --out audit.html --keep keep.csv --fail-on leakage,duplicates
    """
    failing = () if fail_on is None else kinds_of([name.strip() for name in fail_on.split(",")])
    if keep_list is not None and keep_list.exists() and not force:
        raise UsageError(f"{keep_list} exists and may have been edited; --force replaces it")
    job = AuditJob(
        store=require(store_argument or store, "--store"),
        pictures=pictures,
        out=out,
        keep_list=keep_list,
        key_file=key_file,
        workers=workers or default_workers(),
    )
    found = run_audit(job, progress=_progress())
    if as_json:
        print_json(found.audit.to_json())
    else:
        print_audit(found.audit)
    if out is not None:
        print_notice(f"wrote {out}")
    if keep_list is not None:
        print_notice(f"wrote {keep_list}: {found.left_out:,} images to leave out")
    unseen = [kind for kind in failing if kind in found.audit.unseen]
    if unseen:
        print_notice(
            f"--fail-on {','.join(unseen)}: of {found.audit.images:,} images the pixels of {found.audit.pictures:,} "
            "were looked at, so that nothing is known of the others"
        )
    return FAILED if unseen or any(found.audit.counts[kind] for kind in failing) else DONE


def _progress() -> Callable[[int, int], None]:
    """Return what says now and then how many pictures are decoded."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY_S:
            last = time.monotonic()
            click.echo(f"{done:,} of {total:,} pictures", file=sys.stderr)

    return show
