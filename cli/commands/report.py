"""``embed report``: one HTML page from one or more runs."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.options import ProjectCommand, json_option, print_json
from cli.project import shown
from embedstore.errors import UsageError
from heads.reporting.page import COMPARISON_FILE, REPORT_FILE, save_report
from heads.runs.run import load_run


@click.command(name="report", cls=ProjectCommand)
@click.argument("folders", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
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
    runs = [load_run(folder) for folder in folders]
    page = out or _default_page(folders)
    save_report(page, runs)
    if as_json:
        print_json({"report": str(page), "runs": [str(folder) for folder in folders]})
    else:
        click.echo(f"wrote {shown(page)}")


def _default_page(folders: tuple[Path, ...]) -> Path:
    """Return where the page goes: into a run, or beside several, where no run's own page is overwritten."""
    if len(folders) == 1:
        return folders[0] / REPORT_FILE
    parents = {folder.absolute().parent for folder in folders}
    beside = Path(os.path.commonpath(parents))
    if beside == Path(beside.anchor):
        raise UsageError(
            f"runs {', '.join(map(str, folders))} have no folder in common: name the page with --out"
        )
    return beside / COMPARISON_FILE
