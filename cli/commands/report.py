"""``embed report``: one HTML page from one or more runs."""

from __future__ import annotations

from pathlib import Path

import click

from cli.completion import complete_runs
from cli.jobs.report_runs import report_runs
from cli.options import ProjectCommand, json_option, print_json
from cli.project import shown


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
    help="The page.  [default: report.html in the run; comparison.html beside several]",
)
@json_option
def command(folders: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Draw one self-contained HTML page from one run, or compare several.

    \b
    Example:
      embed report runs/abnormal-logistic --out report.html
    """
    page = report_runs(folders, out=out)
    if as_json:
        print_json({"report": str(page), "runs": [str(folder) for folder in folders]})
    else:
        click.echo(f"wrote {shown(page)}")
