"""A run and those beside it in, an answer out: what ``embed escalate`` does. It trains nothing and asks no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.jobs.open_probe import ProbeJob, open_probe
from cli.jobs.report_runs import stores_of_run
from cli.notify import Notify, ignore
from cli.project import shown
from embedstore.errors import EmbedError, UsageError
from embedstore.files import StrPath, write_durable
from embedstore.store.reader import Store
from finetune.escalation.base_encoder import measured_rates, trainable_base
from finetune.escalation.escalation import Escalation, escalate
from finetune.escalation.goal import Goal, parse_goal
from heads.protocol.learning_curve import SMALLEST, learning_curve
from heads.protocol.options import ProbeOptions
from heads.runs.run import Run
from heads.runs.run_files import ESCALATION_FILE, RUN_FILE, load_run, read_document
from heads.stages import stage

# A curve that is made for the answer alone: the quickest head, and few repeats.
_CURVE_HEAD = "logistic"
_CURVE_REPEATS = 3
# With fewer patients, sizes are halved from all, so that there are enough of them.
_HALVINGS = 3
_LEAST_PATIENTS = 16


@dataclass(frozen=True, kw_only=True)
class EscalateJob:
    """What is asked.

    Parameters
    ----------
    run
        Folder of the run that is judged.
    goal
        What it is to reach, as `finetune.escalation.goal.parse_goal` reads it.
    others
        Folders of other runs of its task.
    beside
        Look for such runs beside its folder, too.
    stores
        Stores of its vectors; by default those that it names, beside its folder or the current one.
    encoder
        Folder or hub id of its encoder's checkpoint; its registered name by default.
    doctor
        File with the output of ``embed doctor --json``, for the encoder's speed.
    with_curve
        Make a learning curve from the store where the run has none that speaks of the goal.
    out
        Where the answer is kept; in the run's folder by default.
    """

    run: StrPath
    goal: str
    others: Sequence[StrPath] = ()
    beside: bool = True
    stores: Sequence[StrPath] = ()
    encoder: str | None = None
    doctor: StrPath | None = None
    with_curve: bool = False
    out: StrPath | None = None


def escalate_run(job: EscalateJob, *, notify: Notify = ignore) -> tuple[Escalation, Path]:
    """Answer, keep the answer as JSON, and return both the answer and where it lies.

    Parameters
    ----------
    job
        What is asked.
    notify
        Takes what a person should know: runs that were passed over.

    Raises
    ------
    UsageError
        If the goal cannot be read or is not one of this run, or no store is there to make a curve from.
    EmbedError
        If a run or a file that was named cannot be read.
    """
    goal = parse_goal(job.goal)
    run = load_run(Path(job.run))
    out = run.folder / ESCALATION_FILE if job.out is None else Path(job.out)
    if not out.parent.is_dir():
        raise UsageError(f"`out`: the folder {out.parent} does not exist")
    others = _others(run, job, notify)
    base = trainable_base(run.identity, job.encoder)
    stores = stores_of_run(run, job.stores)
    if job.stores and not stores:
        named = ", ".join(map(str, job.stores))
        raise UsageError(
            f"`store` must be one of the run's vectors ({run.identity.encoder}); {named} is none"
        )
    rates = sorted(
        measured_rates(stores, job.doctor, encoder=run.identity.encoder), key=lambda rate: not rate.is_gpu
    )
    answer = escalate(
        run,
        goal,
        others,
        curve=_curve(run, goal, stores, notify) if job.with_curve else None,
        base=base,
        rate=rates[0] if rates else None,
        stores=[shown(store.path) for store in stores],
    )
    write_durable(
        out, json.dumps(answer.to_json(), indent=1, ensure_ascii=False).encode(), label="escalation"
    )
    return answer, out


def _others(run: Run, job: EscalateJob, notify: Notify) -> list[Run]:
    """Return the runs that were named, and those of the same task beside the run; each once."""
    found = {run.folder.resolve(): run}
    for folder in map(Path, job.others):
        found.setdefault(folder.resolve(), load_run(folder))
    beside = sorted(run.folder.absolute().parent.glob(f"*/{RUN_FILE}")) if job.beside else []
    for folder in (path.parent for path in beside):
        if folder.resolve() in found:
            continue
        try:
            if read_document(folder)["task"]["name"] == run.document["task"]["name"]:
                found[folder.resolve()] = load_run(folder)
        except EmbedError as error:
            notify(f"passed over {shown(folder)}: {error}")
    return [*found.values()][1:]


def _curve(run: Run, goal: Goal, stores: Sequence[Store], notify: Notify) -> Mapping[str, Any]:
    """Return a learning curve in the goal's metric, made now from the vectors of the stores."""
    if not stores:
        named = ", ".join(source["store"] for source in run.document["sources"]) or "none"
        raise UsageError(
            f"`learning_curve=True` needs the run's store; it names {named}, which is not beside it: `store` says "
            "where it is"
        )
    settings, patients = run.document["settings"], int(run.document["counts"]["patients_fitted"])
    options = ProbeOptions(
        head=_CURVE_HEAD,
        targets=() if goal.target is None else (goal.target,),
        cross_validate=settings["mode"] == "outer cross-validation",
        folds=settings["folds_asked"],
        draws=settings["draws"],
        seed=settings["seed"],
    )
    if settings["head"] != _CURVE_HEAD:
        notify(
            f"the learning curve is made with {_CURVE_HEAD}, the quickest head, and not with {settings['head']}"
        )
    opened = open_probe(
        ProbeJob(stores=[store.path for store in stores], task=run.document["task"]["name"], options=options)
    )
    halved = [patients >> step for step in range(_HALVINGS + 1) if patients >> step >= _LEAST_PATIENTS]
    with stage("learning curve"):
        return learning_curve(
            opened.view,
            opened.options_of(_CURVE_HEAD),
            sizes=None if patients >= SMALLEST << _HALVINGS else halved,
            repeats=_CURVE_REPEATS,
            metrics=(goal.metric,),
        ).to_json()
