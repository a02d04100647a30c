"""Every installed head on one task: a run for each, how they compare, and one report about all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cli.jobs.notify import Notify, ignore
from cli.jobs.probe_store import ProbeJob, open_probe, probe_into
from cli.jobs.run_folder import require_run_folder
from embedstore.errors import EmbedError
from heads.registry import head_names
from heads.reporting.page import save_report
from heads.runs.comparison import Comparison, compare_runs
from heads.runs.run import Run

COMPARISON = "comparison"


@dataclass(frozen=True, kw_only=True)
class ComparedHeads:
    """What every head made of one task.

    Parameters
    ----------
    runs
        Head -> its run.
    skipped
        Head -> why it could not run.
    differences
        (head, metric) -> difference to the head that is best by this metric.
    report
        The page about all of them.
    """

    runs: Mapping[str, Run]
    skipped: Mapping[str, Exception]
    differences: Mapping[tuple[str, str], Comparison]
    report: Path


def probe_all(job: ProbeJob, *, notify: Notify = ignore) -> ComparedHeads:
    """Probe with every installed head, on vectors that are loaded once.

    Parameters
    ----------
    job
        What to probe; the head of its options is not asked for, and there is no preset.
    notify
        As `cli.jobs.probe_store.probe_store`.

    Raises
    ------
    EmbedError
        If a run cannot be left in one of the places, or no head could run: the first one's reason.
    """
    opened = open_probe(job, notify=notify)
    place_of = opened.place if job.out is None else Path(job.out).joinpath
    report = place_of(COMPARISON).with_name(f"{place_of(COMPARISON).name}.html")
    for name in head_names():
        require_run_folder(place_of(name))
    runs: dict[str, Run] = {}
    skipped: dict[str, Exception] = {}
    for name in head_names():
        try:
            runs[name] = probe_into(place_of(name), opened, replace(opened.options, head=name), notify=notify)
        except (EmbedError, ImportError) as error:
            skipped[name] = error
    if not runs:
        raise next(iter(skipped.values()))
    found = list(runs.values())
    save_report(report, found)
    differences = {
        (found[entry.run].document["settings"]["head"], entry.metric): entry
        for entry in compare_runs(found, draws=opened.options.draws, seed=opened.options.seed)
    }
    return ComparedHeads(runs=runs, skipped=skipped, differences=differences, report=report)
