"""Ways from images to a study's 25 lumbar severities: a run for each way and head, on equal folds, and their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cli.jobs.open_probe import OpenedProbe, ProbeJob, open_probe
from cli.jobs.probe_store import family_of, finished_run, probe_into
from cli.jobs.run_folder import existing_run, require_run_folder, run_suffix
from cli.notify import Notify, ignore
from embedstore.errors import EmbedError, UsageError
from embedstore.files import StrPath
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.lumbar.target_images import rules_of_slices
from embedstore.queries.load_view import load_views
from embedstore.store.reader import open_store
from embedstore.view import PLACE, View, without_split
from heads.comparing.ways_table import Reference, WaysTable, compare_ways
from heads.folds import assign_folds
from heads.inputs.leakage import leakage_groups
from heads.inputs.pooling import BINNED
from heads.protocol.options import ProbeOptions, options_of
from heads.registry import head_names, head_needs
from heads.reporting.ways_page import save_ways
from heads.runs.run import Run
from heads.stages import stage

SLICES_BINNED, SLICES_ATTENTION, CROPS = "slices-binned", "slices-attention", "crops"
WAYS = (SLICES_BINNED, SLICES_ATTENTION, CROPS)
ALL_HEADS = "all"
TABLE = "ways"


@dataclass(frozen=True, kw_only=True)
class WaysJob:
    """What is compared.

    Parameters
    ----------
    slices
        A probe of the stores of whole slices; its head may be ``all``.
    crops
        Stores of crops of the same studies, each compared by itself.
    ways
        Which of `WAYS`; by default all for which there is a store.
    """

    slices: ProbeJob
    crops: Sequence[StrPath] = ()
    ways: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class ComparedWays:
    """What was compared.

    Parameters
    ----------
    table
        Ways and heads.
    skipped
        (way, head) -> why it could not run.
    report
        The page of the table.
    """

    table: WaysTable
    skipped: Mapping[tuple[str, str], Exception]
    report: Path


@dataclass(frozen=True, kw_only=True)
class _Way:
    name: str
    job: ProbeJob
    heads: Sequence[str]


def _unseen(way: str, head: str, run: Run) -> None:
    """Take a finished run and do nothing."""
    del way, head, run


def probe_ways(
    job: WaysJob, *, notify: Notify = ignore, finished: Callable[[str, str, Run], None] = _unseen
) -> ComparedWays:
    """Probe every way with every head that suits it, on the same outer folds, and compare them on the same cells.

    Parameters
    ----------
    job
        What to compare.
    notify
        As `cli.jobs.probe_store.probe_store`.
    finished
        Takes way, head and run, as soon as it is there.

    Raises
    ------
    UsageError
        If a way is unknown or has no store, an option contradicts the ways, or the task is not of the 25 targets.
    EmbedError
        If nothing could run: the first reason.
    """
    options = options_of(job.slices.options)
    _require_plain(options)
    with stage("loading the studies"):
        reference_view = _reference_view(job.slices)
        folds = _folds(reference_view, options)
        reference = Reference.of_view(reference_view, folds)
    fold_of_patient = dict(zip(reference_view.patients.tolist(), folds.tolist(), strict=True))
    task = reference_view.task.name
    del reference_view
    ways = _ways(job, replace(job.slices, task=task, fold_of_patient=fold_of_patient))
    runs: list[tuple[str, str, Run]] = []
    skipped: dict[tuple[str, str], Exception] = {}
    for way in ways:
        with stage(f"way {way.name}"):
            opened = _opened(way, notify, skipped)
            for head in way.heads if opened is not None else ():
                assert opened is not None
                with stage(head):
                    try:
                        run = _probed(_place(job.slices, task, f"{way.name}-{head}"), opened, head, notify)
                    except (EmbedError, ImportError) as error:
                        skipped[way.name, head] = error
                        continue
                runs.append((way.name, head, run))
                finished(way.name, head, run)
    if not runs:
        raise next(iter(skipped.values()), UsageError("no head suits any of the ways; leave `head` out"))
    with stage("comparison"):
        table = compare_ways(runs, reference, draws=options.draws, seed=options.seed)
        report = _place(job.slices, task, TABLE)
        report = report.with_name(f"{report.name}.html")
        save_ways(report, table)
    return ComparedWays(table=table, skipped=skipped, report=report)


def _require_plain(options: ProbeOptions) -> None:
    """Refuse options that say what a way says itself."""
    told = {
        "pooling": options.pooling,
        "with_columns": options.with_columns,
        "select_inputs": options.select_inputs,
        "preset": options.preset,
        "targets": options.targets,
        "shots": options.shots,
    }
    for name, value in told.items():
        if value:
            raise UsageError(f"ways choose this themselves, for all 25 targets; leave `{name}={value!r}` out")


def _reference_view(job: ProbeJob) -> View:
    view = without_split(load_views([open_store(Path(path)) for path in job.stores], job.task))
    if set(view.task.targets) != set(TARGETS) or view.task.classes != CLASSES or view.task.unit != "study":
        raise UsageError(
            f"ways are compared on the {len(TARGETS)} targets of the RSNA lumbar competition, study by study; task "
            f"{view.task.name!r} has {len(view.task.targets)} of unit {view.task.unit!r}"
        )
    return view


def _folds(view: View, options: ProbeOptions) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    groups = leakage_groups(view)
    return assign_folds(view.y, groups, folds=options.folds, n_classes=len(CLASSES), seed=options.seed)


def _ways(job: WaysJob, slices: ProbeJob) -> list[_Way]:
    """Return the ways that are asked for, each with the heads that suit it."""
    named = job.ways or [name for name in WAYS if name != CROPS or job.crops]
    if unknown := [name for name in named if name not in WAYS]:
        raise UsageError(f"`ways` must be among {', '.join(WAYS)}; found {unknown[0]!r}")
    if CROPS in named and not job.crops:
        raise UsageError("the way `crops` needs a store of crops: name it with `crops`")
    options = replace(options_of(slices.options), cross_validate=True)
    wanted = [name for name in head_names() if not head_needs(name).text_tower]
    if options.head != ALL_HEADS:
        wanted = [options.head]
    bags = [name for name in wanted if head_needs(name).images]
    rows = [name for name in wanted if name not in bags]
    found = []
    if SLICES_BINNED in named:
        binned = replace(slices, options=replace(options, pooling=BINNED))
        found.append(_Way(name=SLICES_BINNED, job=binned, heads=rows))
    if SLICES_ATTENTION in named:
        placed = replace(
            slices, options=replace(options, with_columns=(PLACE,)), image_rules=rules_of_slices()
        )
        found.append(_Way(name=SLICES_ATTENTION, job=placed, heads=bags))
    if CROPS in named:
        found += [
            _Way(name=name, job=replace(slices, stores=[path], options=options), heads=wanted)
            for name, path in zip(_crop_names(job.crops), job.crops, strict=True)
        ]
    return [way for way in found if way.heads]


def _crop_names(stores: Sequence[StrPath]) -> list[str]:
    """Return ``crops-localised`` and ``crops-oracle``, and of several of a kind also the store's name."""
    points = []
    for path in stores:
        rule = open_store(Path(path)).identity.crop
        if rule is None:
            raise UsageError(
                f"`crops` must be a store of crops, which `embed extract --crops` makes; found {path}"
            )
        points.append(f"{CROPS}-{rule['points']}")
    return [
        name if points.count(name) == 1 else f"{name}-{Path(path).name.removesuffix('.store')}"
        for name, path in zip(points, stores, strict=True)
    ]


def _opened(way: _Way, notify: Notify, skipped: dict[tuple[str, str], Exception]) -> OpenedProbe | None:
    try:
        return open_probe(way.job, notify=notify)
    except EmbedError as error:
        skipped |= {(way.name, head): error for head in way.heads}
        return None


def _place(job: ProbeJob, task: str, name: str) -> Path:
    if job.out is not None:
        return Path(job.out) / name
    return Path(job.runs) / f"{task}-{name}{run_suffix(replace(options_of(job.options)))}"


def _probed(folder: Path, opened: OpenedProbe, head: str, notify: Notify) -> Run:
    """Return the run of a way and head: the finished one that lies there, or a new one."""
    require_run_folder(folder)
    options = opened.options_of(head)
    family = family_of(opened, options, notify)
    found = finished_run(folder, opened, options, family)
    if found is not None:
        notify(f"{folder.name}: kept, equal inputs made {existing_run(folder)}")
        return found
    return probe_into(folder, opened, options, family, notify=notify)
