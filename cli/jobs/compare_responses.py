"""Runs and files of generated answers in, one table out, and the page if it is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli.jobs.notify import Notify, ignore
from cli.jobs.report_runs import run_folders
from embedstore.errors import UsageError
from embedstore.files import StrPath
from heads.comparing.responses_table import ResponsesTable, responses_table
from heads.reporting.responses_page import save_responses


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
    if out is not None and not Path(out).parent.is_dir():
        raise UsageError(f"`out`: the folder {Path(out).parent} does not exist")
    places = run_folders([Path(folder) for folder in folders], notify)
    table = responses_table(places, responses, baseline=baseline, draws=draws, seed=seed)
    if out is not None:
        save_responses(out, table)
    return table
