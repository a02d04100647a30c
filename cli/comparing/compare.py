"""``embed compare``: encoders and heads against a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from cli.comparing.responses_text import print_responses
from cli.comparing.table_text import print_comparison
from cli.completion import complete_runs
from cli.jobs.report_runs import compare_responses, compare_runs
from cli.options import ProjectCommand, json_option, print_json, print_notice, subgroups_option
from cli.printing.probe_progress import shown_stages
from cli.project import shown
from cli.wording import for_command_line
from heads.stages import watched


@click.command(name="compare", cls=ProjectCommand)
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    metavar="RUN...",
    shell_complete=complete_runs,
    type=click.Path(path_type=Path),
)
@click.option(
    "--baseline",
    metavar="RUN",
    shell_complete=complete_runs,
    type=click.Path(path_type=Path),
    help="The run that the others are compared with.  [default: the first]",
)
@subgroups_option
@click.option("--draws", type=int, help="Bootstrap draws of patients.  [default: those of the baseline]")
@click.option("--seed", type=int, help="Seed of the draws.  [default: that of the baseline]")
@click.option(
    "--responses",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Generated answers about RSNA lumbar studies, JSON lines with study_id and response; repeatable.",
)
@click.option(
    "--trained-patients",
    type=click.Choice(["refuse", "use"]),
    default="refuse",
    show_default=True,
    help="Whether a run counts that was evaluated on patients of its encoder's own fine-tuning.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write an HTML page, too.")
@json_option
def command(
    folders: tuple[Path, ...],
    baseline: Path | None,
    subgroups: tuple[str, ...],
    draws: int | None,
    seed: int | None,
    responses: tuple[Path, ...],
    trained_patients: Literal["refuse", "use"],
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare runs of one task, of one store or of stores of several encoders, with a baseline.

    Only units that every run evaluated count, matched by id, images, patient, label and split, whatever the order of
    rows. Differences are paired on the same draws of patients; p-values are corrected for all runs (Holm). Without
    --subgroup, results are split by all columns that the baseline keeps.

    With --responses, generated severity codes are compared with the runs on the same studies, one run or more: kappa,
    accuracy and the like of all cells and by condition, and of what has probabilities the RSNA score and calibration.
    What cannot be read is counted by its kind, and counts as Normal/Mild and, in a row of its own, as missing.

    \b
    Example:
      embed compare runs/hog runs/medsiglip --subgroup manufacturer,sex,age
      embed compare runs/abnormal-* --baseline runs/abnormal-hog --out encoders.html
      embed compare runs/lumbar --responses medgemma.jsonl --out generated.html
    """

    def notify(line: str) -> None:
        print_notice(for_command_line(line))

    page = {"page": None if out is None else str(out)}
    if responses:
        if subgroups:
            notify("`subgroups` has no part beside `responses`: results are split by condition")
        with shown_stages(first="reading the runs") as watch, watched(watch):
            answers = compare_responses(
                folders, responses, baseline=baseline, draws=draws, seed=seed, out=out, notify=notify
            )
        if as_json:
            print_json({**answers.to_json(), **page})
            return
        print_responses(answers)
        _print_page(out)
        return
    with shown_stages(first="reading the runs") as watch, watched(watch):
        table = compare_runs(
            folders,
            baseline=baseline,
            subgroups=subgroups or None,
            draws=draws,
            seed=seed,
            out=out,
            trained_patients=trained_patients,
            notify=notify,
        )
    if as_json:
        print_json({**table.to_json(), **page})
        return
    print_comparison(table)
    _print_page(out)


def _print_page(out: Path | None) -> None:
    if out is not None:
        click.echo(f"wrote {shown(out)}")
