"""``embed escalate``: whether fine-tuning is worth it."""

from __future__ import annotations

from pathlib import Path

import click

from cli.completion import complete_encoders, complete_runs
from cli.escalating.answer_text import print_answer
from cli.escalating.escalate_job import EscalateJob, escalate_run
from cli.exit_codes import ANOTHER_ENCODER, DONE, FINE_TUNE, MORE_DATA, UNLIKELY
from cli.options import (
    ProjectCommand,
    is_typed,
    json_option,
    print_json,
    print_notice,
    stores_option,
)
from cli.printing.probe_progress import shown_stages
from cli.project import shown
from cli.wording import for_command_line
from finetune.escalation.decide import Decision
from heads.stages import watched

EXIT_CODES = {
    Decision.ENOUGH: DONE,
    Decision.MORE_DATA: MORE_DATA,
    Decision.ANOTHER_ENCODER: ANOTHER_ENCODER,
    Decision.FINE_TUNE: FINE_TUNE,
    Decision.UNLIKELY: UNLIKELY,
}


@click.command(name="escalate", cls=ProjectCommand)
@click.option(
    "--probe",
    required=True,
    metavar="RUN",
    shell_complete=complete_runs,
    type=click.Path(path_type=Path),
    help="Run folder of `embed probe`.",
)
@click.option(
    "--goal",
    required=True,
    metavar="GOAL",
    help="[TARGET:]METRIC OPERATOR NUMBER, as 'kappa>=0.75', 'log_loss<=0.4' or 'left:auroc>0.9'.",
)
@click.option(
    "--other",
    "others",
    multiple=True,
    metavar="RUN",
    shell_complete=complete_runs,
    type=click.Path(path_type=Path),
    help="Another run of the task: of another head, or of another encoder's store; repeatable.",
)
@click.option(
    "--beside/--no-beside",
    default=True,
    show_default=True,
    help="Also take the runs of the task that lie beside RUN.",
)
@stores_option
# Not by the names of the project's settings, which are for extractions to come.
@click.option(
    "--encoder",
    "base",
    metavar="FOLDER|HUB_ID",
    shell_complete=complete_encoders,
    help="The store's encoder, where its name does not say where it lies.",
)
@click.option(
    "--doctor",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Output of `embed doctor --encoder ENCODER --device cuda --json`, for GPU hours.  [default: the speed at "
    "which the store was made]",
)
@click.option(
    "--learning-curve",
    "with_curve",
    is_flag=True,
    help="Make the learning curve that the run lacks, from its store, with the logistic head.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where the answer is kept.  [default: RUN/escalation.json]"
)
@click.option("--verbose", is_flag=True, help="Print every stage to stderr, also where that is no terminal.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    probe: Path,
    goal: str,
    others: tuple[Path, ...],
    beside: bool,
    store: tuple[Path, ...],
    base: str | None,
    doctor: Path | None,
    with_curve: bool,
    out: Path | None,
    verbose: bool,
    as_json: bool,
) -> int:
    """Say whether a run is worth fine-tuning its encoder, from what the run and those beside it hold.

    The answer is one of: enough already (exit code 0), more data first (10), another encoder first (11), fine-tune
    (12), unlikely to help (13). Nothing is trained, and nothing is spent.

    \b
    Example:
      embed escalate --probe runs/abnormal-logistic --goal "kappa>=0.75"
    """
    job = EscalateJob(
        run=probe,
        goal=goal,
        others=others,
        beside=beside,
        # That of embed.toml may be of other vectors than the run's, which names its own.
        stores=store if is_typed(context, "store") else (),
        encoder=base,
        doctor=doctor,
        with_curve=with_curve,
        out=out,
    )

    def notify(line: str) -> None:
        print_notice(for_command_line(line))

    with shown_stages(verbose=verbose, first="reading the runs") as watch, watched(watch):
        answer, kept = escalate_run(job, notify=notify)
    code = EXIT_CODES[answer.decision]
    if as_json:
        print_json({**answer.to_json(), "file": str(kept), "exit_code": code})
    else:
        print_answer(answer)
        click.echo(f"kept in {shown(kept)}")
    return code
