"""Stores in, a run out: load a task, probe it with one head, and leave the run folder with its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.jobs.open_probe import OpenedProbe, ProbeJob, open_probe
from cli.jobs.report_runs import pictures_of_errors
from cli.jobs.run_folder import existing_run
from cli.jobs.text_tower import text_family_of
from cli.notify import Notify, ignore
from cli.project import shown
from embedstore.errors import EmbedError
from embedstore.keys.key_file import read_key
from embedstore.queries.image_files import hidden_images
from heads.base import HeadFamily
from heads.protocol.decided_by import decided_by, id_of
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe
from heads.protocol.probe_result import ProbeResult
from heads.registry import head_needs
from heads.reporting.page import REPORT_FILE, save_report
from heads.reporting.pictures import pictures_on_page
from heads.runs.run import Run
from heads.runs.run_files import load_run, read_document, save_run
from heads.stages import stage


def probe_store(job: ProbeJob, *, notify: Notify = ignore) -> Run:
    """Probe with one head, and leave its run folder with the report.

    Parameters
    ----------
    job
        What to probe.
    notify
        Takes what a person should know: a run that is replaced, a choice with nothing to choose from.

    Raises
    ------
    UsageError
        If an option, a name or the run's place cannot be used; before anything is fitted.
    EmbedError
        As `embedstore.queries.load_view.load_views` and `heads.protocol.probe.probe`.
    """
    opened = open_probe(job, notify=notify)
    named = opened.options.preset or opened.options.head
    folder = opened.place(named) if job.out is None else Path(job.out)
    opened.require_folder(folder)
    try:
        with stage(named):
            options = opened.options_of(opened.options.head)
            family = family_of(opened, options, notify)
            return probe_into(folder, opened, options, family, notify=notify)
    except KeyboardInterrupt:
        say_what_stays(folder, notify)
        raise


def say_what_stays(folder: Path, notify: Notify) -> None:
    """Say what a stopped command leaves in its folder."""
    stays = existing_run(folder)
    nothing = f"nothing is kept in {shown(folder)}; run again to start over"
    notify(f"{stays} stays as it was" if stays else nothing)


def probe_into(
    folder: Path,
    opened: OpenedProbe,
    options: ProbeOptions,
    family: HeadFamily | None,
    *,
    notify: Notify = ignore,
) -> Run:
    """Probe opened stores and leave the run in `folder`, which has been checked; raises as `probe_store`."""
    result = probe(opened.view, options, family=family)
    if options.repeats is not None and not result.settings.repeats:
        notify(f"`repeats={options.repeats}` changed nothing: {options.head} was refitted, once, on all")
    return keep_result(folder, opened, result, notify=notify)


def keep_result(folder: Path, opened: OpenedProbe, result: ProbeResult, *, notify: Notify = ignore) -> Run:
    """Leave a result as the run in `folder`, with its report.

    A run that is there already is replaced, and it is said whether the new one is the same.
    """
    before, described = _document(folder), existing_run(folder)
    with stage("saving"):
        run = save_run(folder, result)
    if described:
        notify(_compared(run, before, described))
    with stage("report"):
        _save_page(run, opened, same=before.get("run_id") == run.document["run_id"], notify=notify)
    return run


def finished_run(
    folder: Path, opened: OpenedProbe, options: ProbeOptions, family: HeadFamily | None
) -> Run | None:
    """Return the run in `folder` if it is whole and equal inputs, options and versions made it; else None."""
    return kept_run(folder, opened, decided_by(opened.view, options, options.grid(family)))


def kept_run(folder: Path, opened: OpenedProbe, decided: Mapping[str, Any]) -> Run | None:
    """Return the run in `folder` if it is whole and rests on what is given (`heads.protocol.decided_by`); else None."""
    document = _document(folder)
    if opened.options.strict_targets and document.get("left_out_targets"):
        return None
    if document.get("sources") != [source.to_json() for source in opened.view.sources]:
        return None
    if document.get("run_id") != id_of(decided):
        return None
    try:
        found = load_run(folder)
    except EmbedError:
        return None
    if opened.job.thumbnails or not (folder / REPORT_FILE).is_file():
        _save_page(found, opened, same=True, notify=ignore)
    return found


def _document(folder: Path) -> Mapping[str, Any]:
    """Return the ``run.json`` of a folder; ``{}`` where there is none that can be read."""
    try:
        return read_document(folder)
    except EmbedError:
        return {}


def _compared(run: Run, before: Mapping[str, Any], described: str) -> str:
    """Say how a run compares with the one that it replaces."""
    if before.get("run_id") != run.document["run_id"]:
        return f"replaces {described}"
    if before["sha256"] == run.document["sha256"]:
        return f"equal inputs, equal result: {run.run_id} is the same as {described}"
    return (
        f"replaces {described}: equal inputs ({run.run_id}) gave another result, by another processor, number of "
        "threads or build of a library"
    )


def _save_page(run: Run, opened: OpenedProbe, *, same: bool, notify: Notify) -> None:
    """Draw the run's page, with pictures if they are asked for or stand on the page of the same run."""
    page = run.folder / REPORT_FILE
    pictures = pictures_on_page(page) if same else {}
    if opened.job.thumbnails:
        pictures |= _pictures(run, opened, notify)
    save_report(page, [run], thumbnails=pictures)


def _pictures(run: Run, opened: OpenedProbe, notify: Notify) -> dict[str, bytes]:
    """Return the pictures of confident errors; say where they lack because only an owner finds the files."""
    named = opened.job.key_file
    key = None if named is None else read_key(named)
    hidden = sum(hidden_images(store) for store in opened.stores)
    if key is None and hidden:
        notify(
            f"no pictures of {hidden:,} images: their paths are hidden. Who has the key gives --key-file, and the map "
            "beside it leads to the files"
        )
    return pictures_of_errors(run, opened.stores, key=key)


def family_of(opened: OpenedProbe, options: ProbeOptions, notify: Notify) -> HeadFamily | None:
    """Return the grid to search, None for the head's own."""
    if opened.family is not None or not head_needs(options.head).text_tower:
        return opened.family
    # Its texts go through the stores' own encoder, which no head can reach.
    return text_family_of(
        options.head,
        opened.stores[0],
        opened.view.task,
        encoder=opened.job.encoder,
        device=options.device or "auto",
        prompts=opened.job.prompts,
        notify=notify,
    )
