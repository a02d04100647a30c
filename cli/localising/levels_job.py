"""From a store's token grids and the readers' points to the levels of every study: what ``embed localise`` does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cli.jobs.run_folder import require_folder
from cli.notify import Notify, ignore
from cli.studying.find_localiser import folder_of_localiser
from embedstore.crops.crop_tokens import StoreLooks
from embedstore.errors import UsageError, first_few
from embedstore.files import TEMPORARY_SUFFIX
from embedstore.lumbar.crop_rule import LOCALISED, rule_from_json
from embedstore.lumbar.level_points import LevelPoints
from embedstore.lumbar.oracle_points import oracle_points
from embedstore.queries.store_grids import StoreGrids
from embedstore.store.reader import Store, open_store
from heads.localising.cross_fit import CrossFit, cross_fit_localiser
from heads.localising.localiser import Localiser
from heads.localising.localiser_run import (
    FILES,
    LOCALISER_FILE,
    read_levels,
    read_localiser,
    save_localiser,
)
from heads.localising.localising_errors import summarise
from heads.localising.look_again import SECOND, look_again
from heads.localising.recipe import Recipe
from heads.stages import Watch, watched
from heads.statistics.bootstrap import DRAWS, estimates_to_json


@dataclass(frozen=True, kw_only=True)
class LocaliseJob:
    """A store and how its levels are learned; `recipe` as `heads.localising.recipe.Recipe`."""

    store: Path
    folder: Path
    folds: int = 5
    seed: int = 0
    draws: int = DRAWS
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, kw_only=True)
class LookAgainJob:
    """A store that has the readers' points, and one of crops with tokens around the levels that a localiser found.

    `first` is that localiser's run; None to look for it beside `folder`.
    """

    store: Path
    near: Path
    folder: Path
    first: Path | None = None
    draws: int = DRAWS
    recipe: Recipe = SECOND


@dataclass(frozen=True, kw_only=True, eq=False)
class Localised:
    """What came out: the localiser as it was saved, and the levels of every study."""

    localiser: Localiser
    levels: LevelPoints

    @property
    def document(self) -> Mapping[str, Any]:
        """What ``localiser.json`` says."""
        return self.localiser.document


def localise_store(job: LocaliseJob, *, watch: Watch | None = None, notify: Notify = ignore) -> Localised:
    """Learn a localiser by patient folds, find the levels of every study of the store, and save both.

    Raises
    ------
    UsageError
        If the store has no token grids or no coordinates, or the folder holds something else.
    DataError
        If too few studies have points and sagittal slices.
    """
    started = time.monotonic()
    require_localiser_folder(job.folder)
    store = open_store(job.store)
    source = StoreGrids(store)
    for reason, count in source.sagittal.left_out.items():
        notify(f"{count:,} {reason} play no part")
    points = oracle_points(store)
    for reason, count in points.left_out.items():
        notify(f"{count:,} points left out: {reason}")
    with watched(watch):
        fit = cross_fit_localiser(source, points, folds=job.folds, seed=job.seed, recipe=job.recipe)
    report = _report(job, source, points, fit)
    localiser, levels = save_localiser(job.folder, fit, report=report, seconds=time.monotonic() - started)
    return Localised(localiser=localiser, levels=levels)


def look_again_in_store(
    job: LookAgainJob, *, watch: Watch | None = None, notify: Notify = ignore
) -> Localised:
    """Learn a second look by the folds of the first, move the levels of every study, and save both looks as one run.

    Raises
    ------
    UsageError
        If the crops have no tokens or were cut around other levels, the run of the first look is not found or looks
        twice already, or the folder holds something else.
    DataError
        If too few crops show a reader's point.
    """
    started = time.monotonic()
    require_localiser_folder(job.folder)
    store, crops = open_store(job.store), open_store(job.near)
    first = _first_look(job, crops)
    assert first.folder is not None
    levels = read_levels(first.folder)
    source = StoreLooks(crops, levels)
    grids = StoreGrids(store)
    points = oracle_points(store)
    for reason, count in points.left_out.items():
        notify(f"{count:,} points left out: {reason}")
    settings = first.document["settings"]
    with watched(watch):
        fit = look_again(
            first, levels, source, points, grids.patients, seed=settings["seed"], recipe=job.recipe
        )
    told = LocaliseJob(
        store=job.store,
        folder=job.folder,
        folds=settings["folds"],
        seed=settings["seed"],
        draws=job.draws,
    )
    report = _report(told, grids, points, fit, baseline="first_look")
    assert fit.localiser.second is not None
    report["settings"]["first_look"] = first.digest
    report["believed"] = {kind: view.share for kind, view in fit.localiser.second.views.items()}
    localiser, mended = save_localiser(job.folder, fit, report=report, seconds=time.monotonic() - started)
    return Localised(localiser=localiser, levels=mended)


def _first_look(job: LookAgainJob, crops: Store) -> Localiser:
    """Return the localiser around whose levels the crops were cut."""
    crop = crops.identity.crop
    rule = None if crop is None else rule_from_json(crop, source=f"store {crops.path}")
    if rule is None or rule.points != LOCALISED:
        held = "whole images" if rule is None else f"crops around {rule.points} points"
        raise UsageError(f"--near: {crops.path} must hold crops around a localiser's levels; it holds {held}")
    digest = rule.localiser_sha256
    folder = job.first or folder_of_localiser(digest, [job.folder.absolute().parent])
    if folder is None:
        raise UsageError(
            f"--near: {crops.path} was cut around the levels of localiser {digest[:12]}, which is not beside "
            f"{job.folder}; name its folder with --first"
        )
    found = read_localiser(folder)
    if found.second is not None:
        raise UsageError(f"{folder} looks twice already; cut crops around the levels of its first look")
    if folder.absolute() == job.folder.absolute():
        raise UsageError(
            f"--out: {job.folder} holds the first look, which stays needed; choose another folder"
        )
    return found


def require_localiser_folder(folder: Path) -> None:
    """Refuse a place where a localiser cannot be written, or would lie among other files; raises UsageError."""
    require_folder(folder)
    if not folder.is_dir() or (folder / LOCALISER_FILE).is_file():
        return
    others = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name not in FILES and not entry.name.endswith(TEMPORARY_SUFFIX)
    )
    if others:
        raise UsageError(
            f"--out: {folder} must be new, empty or a localiser's run; it holds {first_few(others, shown=3)}; choose "
            "another folder"
        )


def _report(
    job: LocaliseJob,
    source: StoreGrids,
    points: LevelPoints,
    fit: CrossFit,
    *,
    baseline: str = "mean_position",
) -> dict[str, Any]:
    patients = [source.patients[study] for study in fit.studies]
    sure = ~fit.unsure
    right, judged = fit.compared.all_right()
    errors = {
        name: {
            group: estimates_to_json(of_group)
            for group, of_group in summarise(compared, patients, draws=job.draws, seed=job.seed).items()
        }
        for name, compared in (("localised", fit.compared), (baseline, fit.baseline))
    }
    names = {
        "unsure": int(fit.unsure.sum()),
        "wrong": int((judged & ~right).sum()),
        "wrong_and_unsure": int((judged & ~right & fit.unsure).sum()),
        "wrong_and_sure": int((judged & ~right & sure).sum()),
        "judged": int(judged.sum()),
        "mean_confidence": float(np.nanmean(fit.confidence)) if np.isfinite(fit.confidence).any() else None,
    }
    return {
        "settings": {
            "folds": job.folds,
            "seed": job.seed,
            "draws": job.draws,
            "points_sha256": points.digest,
        },
        "sources": [entry.to_json() for entry in source.store.sources],
        "points": {"learned_from": len(points), "left_out": dict(points.left_out)},
        "slices_left_out": source.sagittal.left_out,
        "counts": dict(fit.counts),
        "patients": len(set(patients)),
        "errors": errors,
        "names": names,
    }
