"""Every installed head on one task, and their blend: a run for each, how they compare, and one report about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.jobs.open_probe import OpenedProbe, ProbeJob, open_probe
from cli.jobs.probe_blend import blend_into
from cli.jobs.probe_store import family_of, finished_run, probe_into
from cli.jobs.run_folder import existing_run
from cli.notify import Notify, ignore
from cli.project import shown
from embedstore.errors import EmbedError
from heads.blending.blend import BLEND
from heads.registry import head_names
from heads.reporting.page import save_report
from heads.runs.comparison import Comparison, compare_runs
from heads.runs.run import Run
from heads.stages import stage

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


def _unseen(name: str, run: Run) -> None:
    """Take a finished run and do nothing."""
    del name, run


def probe_all(
    job: ProbeJob, *, notify: Notify = ignore, finished: Callable[[str, Run], None] = _unseen
) -> ComparedHeads:
    """Probe with every installed head, on vectors that are loaded once, and join those that could run.

    A head whose run is there already, whole and of equal inputs, options and versions, is not fitted again: what was
    stopped goes on where it was.

    Parameters
    ----------
    job
        What to probe; the head of its options is not asked for, and there is no preset.
    notify
        As `cli.jobs.probe_store.probe_store`.
    finished
        Takes each head's name and run, as soon as it is there.

    Raises
    ------
    EmbedError
        If a run cannot be left in one of the places, or no head could run: the first one's reason.
    """
    opened = open_probe(job, notify=notify)
    place_of = opened.place if job.out is None else Path(job.out).joinpath
    report = place_of(COMPARISON).with_name(f"{place_of(COMPARISON).name}.html")
    names = [*head_names(), BLEND]
    for name in names:
        opened.require_folder(place_of(name))
    runs: dict[str, Run] = {}
    skipped: dict[str, Exception] = {}
    try:
        for number, name in enumerate(names, start=1):
            if name == BLEND and not runs:
                raise next(iter(skipped.values()))
            with stage(f"head {number} of {len(names)}: {name}"):
                try:
                    runs[name] = (
                        blend_into(place_of(name), opened, runs, notify=notify)
                        if name == BLEND
                        else _probed(name, place_of(name), opened, notify)
                    )
                except (EmbedError, ImportError) as error:
                    skipped[name] = error
                    continue
            finished(name, runs[name])
        differences = _differences(list(runs.values()), opened)
        with stage("report"):
            save_report(report, list(runs.values()))
    except KeyboardInterrupt:
        notify(_kept(runs))
        raise
    return ComparedHeads(runs=runs, skipped=skipped, differences=differences, report=report)


def _probed(name: str, folder: Path, opened: OpenedProbe, notify: Notify) -> Run:
    """Return the run of a head: the finished one that lies there, or a new one."""
    options = opened.options_of(name)
    family = family_of(opened, options, notify)
    found = finished_run(folder, opened, options, family)
    if found is not None:
        notify(f"{name}: kept, equal inputs made {existing_run(folder)}")
        return found
    return probe_into(folder, opened, options, family, notify=notify)


def _differences(runs: Sequence[Run], opened: OpenedProbe) -> dict[tuple[str, str], Comparison]:
    """Return the differences by head and metric."""
    draws = opened.options.draws
    with stage(f"differences between {len(runs)} heads, {draws:,} draws of patients"):
        return {
            (runs[entry.run].document["settings"]["head"], entry.metric): entry
            for entry in compare_runs(runs, draws=draws, seed=opened.options.seed)
        }


def _kept(runs: Mapping[str, Run]) -> str:
    """Say what a stopped command leaves behind."""
    if not runs:
        return "no head had finished; run the same command again to start over"
    verb = "is" if len(runs) == 1 else "are"
    folders = ", ".join(shown(run.folder) for run in runs.values())
    return f"{', '.join(runs)} {verb} kept in {folders}; run the same command again to continue"
