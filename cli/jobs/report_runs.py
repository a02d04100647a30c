"""Runs in, one page out; and the pictures that a run's own page may show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.keys.key_file import Key
from embedstore.queries.thumbnails import thumbnails_of_units
from embedstore.store.reader import Store
from heads.reporting.page import COMPARISON_FILE, REPORT_FILE, save_report
from heads.runs.confident_errors import confident_errors
from heads.runs.run import Run, load_run


def report_runs(folders: Sequence[StrPath], *, out: StrPath | None = None) -> Path:
    """Draw one page from one run, or compare several, and return where it lies.

    Parameters
    ----------
    folders
        Run folders, one or more.
    out
        The page; by default ``report.html`` in the run, or ``comparison.html`` beside several.

    Raises
    ------
    EmbedError
        If a folder is no run, was changed, or the runs cannot be compared.
    UsageError
        If several runs have no folder in common and no page is named.
    """
    places = [Path(folder) for folder in folders]
    runs = [load_run(place) for place in places]
    page = _default_page(places) if out is None else Path(out)
    save_report(page, runs)
    return page


def pictures_of_errors(run: Run, stores: Sequence[Store], *, key: Key | None = None) -> dict[str, bytes]:
    """Return a JPEG of each confident error of a run, by unit, from the images of its opened stores."""
    wrong = (error.unit_id for error in confident_errors(run))
    return thumbnails_of_units(stores, wrong, run.document["task"]["unit"], key=key)


def _default_page(folders: Sequence[Path]) -> Path:
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
