"""``embed report``: one HTML page from one or more runs."""

from __future__ import annotations

from pathlib import Path

import click

from cli.completion import complete_runs
from cli.jobs.report_runs import report_runs
from cli.key_options import key_option
from cli.options import ProjectCommand, json_option, print_json, print_notice, stores_option
from cli.printing.probe_progress import shown_stages
from cli.project import shown
from cli.wording import for_command_line
from heads.stages import watched


@click.command(name="report", cls=ProjectCommand)
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    metavar="RUN...",
    shell_complete=complete_runs,
    type=click.Path(path_type=Path),
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The page.  [default: report.html in the run; comparison.html beside several, one for each task]",
)
@click.option(
    "--thumbnails/--no-thumbnails",
    default=None,
    help="Put pictures of confident errors on the page, from the store.  [default: those of the run's own page]",
)
@stores_option
@key_option
@json_option
def command(
    folders: tuple[Path, ...],
    out: Path | None,
    thumbnails: bool | None,
    store: tuple[Path, ...],
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Draw one self-contained HTML page from one run, or compare several; what is no run folder is passed over.

    \b
    Example:
      embed report runs/abnormal-logistic --out report.html
      embed report runs/*
    """
    with shown_stages(first="reading the runs") as watch, watched(watch):
        pages = report_runs(
            folders,
            out=out,
            thumbnails=thumbnails,
            stores=store,
            key_file=key_file,
            notify=lambda line: print_notice(for_command_line(line)),
        )
    if as_json:
        print_json(
            {
                "report": str(pages[0]),
                "reports": [str(page) for page in pages],
                "runs": [str(folder) for folder in folders],
            }
        )
    else:
        for page in pages:
            click.echo(f"wrote {shown(page)}")
