"""Runs in, one page out, or one table; and the pictures that a run's own page may show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cli.notify import Notify, ignore
from cli.project import shown
from embedstore.errors import Advice, DataError, UsageError
from embedstore.files import StrPath
from embedstore.keys.key_file import Key, read_key
from embedstore.queries.thumbnails import thumbnails_of_units
from embedstore.store.reader import Store, open_store
from heads.comparing.comparison_table import ComparisonTable, comparison_table
from heads.comparing.responses_table import ResponsesTable, responses_table
from heads.reporting.comparison_page import save_comparison
from heads.reporting.page import COMPARISON_FILE, REPORT_FILE, save_report
from heads.reporting.pictures import pictures_on_page
from heads.reporting.responses_page import save_responses
from heads.runs.confident_errors import confident_errors
from heads.runs.run import Run
from heads.runs.run_files import RUN_FILE, load_run
from heads.stages import counted


def report_runs(
    folders: Sequence[StrPath],
    *,
    out: StrPath | None = None,
    thumbnails: bool | None = None,
    stores: Sequence[StrPath] = (),
    key_file: StrPath | None = None,
    notify: Notify = ignore,
) -> tuple[Path, ...]:
    """Draw one page from one run, or compare several, and return where it lies: a page for each task.

    Parameters
    ----------
    folders
        Run folders, one or more; of several, what is no run folder (a page, say) is passed over and named.
    out
        The page; by default ``report.html`` in the run, or ``comparison.html`` beside several
        (``comparison-TASK.html`` where they are of several tasks).
    thumbnails
        Put pictures of confident errors on the page, from the images of the stores; None keeps those that stand on
        the runs' own pages.
    stores
        Stores to take the pictures from; by default those that the run names, beside its folder or the current one.
    key_file
        Key of stores whose paths are hidden; without it their images give no pictures.
    notify
        Takes what a person should know: what was passed over, why there are no pictures.

    Raises
    ------
    EmbedError
        If there is no run, one was changed, or the runs cannot be compared.
    UsageError
        If several runs have no folder in common and no page is named, or one is named for several tasks.
    """
    places = _run_folders([Path(folder) for folder in folders], notify)
    by_task: dict[str, list[Run]] = {}
    for place in counted("reading run", places):
        run = load_run(place)
        by_task.setdefault(run.document["task"]["name"], []).append(run)
    if len(by_task) > 1 and out is not None:
        raise UsageError(f"`out` names one page; found runs of the tasks {', '.join(by_task)}: leave it out")
    _require_folder_of(out)
    key = None if key_file is None else read_key(key_file)
    pages = []
    for task, runs in by_task.items():
        page = _default_page([run.folder for run in runs], task if len(by_task) > 1 else "")
        page = page if out is None else Path(out)
        save_report(page, runs, thumbnails=_pictures(runs, thumbnails, stores, key, notify))
        pages.append(page)
    return tuple(pages)


def compare_runs(
    folders: Sequence[StrPath],
    *,
    baseline: StrPath | None = None,
    subgroups: Sequence[str] | None = None,
    draws: int | None = None,
    seed: int | None = None,
    out: StrPath | None = None,
    trained_patients: Literal["refuse", "use"] = "refuse",
    notify: Notify = ignore,
) -> ComparisonTable:
    """Compare runs of one task with a baseline, on the units that all evaluated; the page is written if `out` names it.

    Parameters
    ----------
    folders
        Run folders; of several, what is no run folder is passed over and named.
    baseline, subgroups, draws, seed, trained_patients
        As `heads.comparison_table`.
    out
        The page.
    notify
        Takes what a person should know.

    Raises
    ------
    EmbedError
        If there is no run, one was changed, or the runs cannot be compared.
    UsageError
        If the page's folder does not exist.
    """
    _require_folder_of(out)
    places = _run_folders([Path(folder) for folder in folders], notify)
    table = comparison_table(
        places,
        baseline=baseline,
        subgroups=subgroups,
        draws=draws,
        seed=seed,
        trained_patients=trained_patients,
    )
    if out is not None:
        save_comparison(out, table)
    return table


def compare_responses(
    folders: Sequence[StrPath],
    responses: Sequence[StrPath],
    *,
    baseline: StrPath | None = None,
    draws: int | None = None,
    seed: int | None = None,
    out: StrPath | None = None,
    notify: Notify = ignore,
) -> ResponsesTable:
    """Compare generated answers with runs, on the studies in common; the page is written if `out` names it.

    Parameters
    ----------
    folders
        Run folders; of several, what is no run folder is passed over and named.
    responses, baseline, draws, seed
        As `heads.comparing.responses_table.responses_table`.
    out
        The page.
    notify
        Takes what a person should know.

    Raises
    ------
    EmbedError
        If there is no run, one was changed, or answers cannot be compared with it.
    UsageError
        If the page's folder does not exist.
    """
    _require_folder_of(out)
    places = _run_folders([Path(folder) for folder in folders], notify)
    table = responses_table(places, responses, baseline=baseline, draws=draws, seed=seed)
    if out is not None:
        save_responses(out, table)
    return table


def pictures_of_errors(run: Run, stores: Sequence[Store], *, key: Key | None = None) -> dict[str, bytes]:
    """Return a JPEG of each confident error of a run, by unit, from the images of its opened stores."""
    wrong = (error.unit_id for error in confident_errors(run))
    return thumbnails_of_units(stores, wrong, run.document["task"]["unit"], key=key)


def _require_folder_of(page: StrPath | None) -> None:
    if page is not None and not Path(page).parent.is_dir():
        raise UsageError(f"`out`: the folder {Path(page).parent} does not exist")


def _run_folders(places: Sequence[Path], notify: Notify) -> list[Path]:
    """Return the run folders among the places; a single place is taken for one, and refused when it is read."""
    found = [place for place in places if (place / RUN_FILE).is_file()]
    if len(places) == 1:
        return list(places)
    if not found:
        listed = ", ".join(shown(place) for place in places)
        raise DataError(f"none of {listed} is a run folder: it would hold {RUN_FILE}", advice=Advice.PROBE)
    for place in places:
        if place not in found:
            notify(f"passed over {shown(place)}: no run folder ({RUN_FILE} is not in it)")
    return found


def _pictures(
    runs: Sequence[Run],
    thumbnails: bool | None,
    stores: Sequence[StrPath],
    key: Key | None,
    notify: Notify,
) -> dict[str, bytes]:
    """Return the pictures of the runs' errors: drawn from the stores, or those of the runs' own pages."""
    if thumbnails is False:
        return {}
    kept: dict[str, bytes] = {}
    for run in runs:
        kept |= pictures_on_page(run.folder / REPORT_FILE)
        if thumbnails:
            opened = _stores_of(run, stores, notify)
            kept |= pictures_of_errors(run, opened, key=key) if opened else {}
    if not kept and len(runs) == 1:
        notify(
            "no pictures of errors: no file of theirs can be read where the store's manifest says"
            if thumbnails
            else "no pictures of errors: the run's page has none; `thumbnails=True` draws them from its store"
        )
    return kept


def stores_of_run(run: Run, stores: Sequence[StrPath] = ()) -> list[Store]:
    """Open the stores of a run's vectors: those given, or those that it names, beside its folder or the current one."""
    places = [Path(store) for store in stores]
    if not places:
        beside = (Path(), *list(run.folder.absolute().parents)[:3])
        for name in dict.fromkeys(source["store"] for source in run.document["sources"]):
            places += [folder / name for folder in beside if (folder / name).is_dir()][:1]
    return [store for store in map(open_store, places) if store.identity == run.identity]


def _stores_of(run: Run, stores: Sequence[StrPath], notify: Notify) -> list[Store]:
    opened = stores_of_run(run, stores)
    if not opened:
        named = ", ".join(source["store"] for source in run.document["sources"]) or "no store by name"
        notify(
            f"{shown(run.folder)}: no pictures from a store: the run names {named}, and none with its vectors was "
            "found beside it; `store` says where it is"
        )
    return opened


def _default_page(folders: Sequence[Path], task: str) -> Path:
    """Return where the page goes: into a run, or beside several, where no run's own page is overwritten."""
    if len(folders) == 1:
        return folders[0] / REPORT_FILE
    parents = {folder.absolute().parent for folder in folders}
    beside = Path(os.path.commonpath(parents))
    if beside == Path(beside.anchor):
        raise UsageError(
            f"runs {', '.join(map(str, folders))} have no folder in common: name the page with --out"
        )
    page = beside / COMPARISON_FILE
    return page.with_stem(f"{page.stem}-{task}") if task else page
