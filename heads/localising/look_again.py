"""Learning a second look by the first one's folds: a training study's points come from networks that never saw it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, first_few
from embedstore.identity import Identity
from embedstore.lumbar.crop_rule import CropRule
from embedstore.lumbar.level_points import LevelPoints
from embedstore.lumbar.levels import LEVELS
from embedstore.lumbar.looks import Looks
from heads.folds import repeat_seed
from heads.localising.cross_fit import NEW, CrossFit, folds_by_patient, labelled_studies
from heads.localising.learn_maps import learn_folds
from heads.localising.localiser import Localiser
from heads.localising.localising_errors import compare_points
from heads.localising.network import MapNetwork
from heads.localising.recipe import Recipe
from heads.localising.samples import Samples
from heads.localising.second_look import SecondLook, View, levels_of, moved, shifts_of
from heads.localising.spine_prior import Floats, point_array
from heads.stages import stage

# Steps of so many crops; a step of the first look takes whole series.
SECOND = Recipe(steps=300, batch=32)
# More crops of a kind teach nothing that their memory would be worth: 1.3 GB of 32 x 32 tokens of 64 numbers.
MOST_CROPS = 10_000
FEWEST_CROPS = 40


class LookSource(Protocol):
    """Where looks come from: a store of crops, or arrays."""

    @property
    def identity(self) -> Identity:
        """Of the tokens."""

    @property
    def rule(self) -> CropRule:
        """How the crops were cut."""

    @property
    def looks(self) -> Looks:
        """The crops."""

    def read(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
        """Yield numbers of looks and their tokens, in order."""


def look_again(
    first: Localiser,
    found: LevelPoints,
    source: LookSource,
    points: LevelPoints,
    patients: Mapping[str, str],
    *,
    seed: int = 0,
    recipe: Recipe = SECOND,
) -> CrossFit:
    """Learn a second look from the readers' points.

    Parameters
    ----------
    first
        The localiser of the first look.
    found
        Its levels of all studies, those that it learned from out of fold.
    source
        Crops around them.
    points
        Oracle points.
    patients
        Every study of `found` -> its patient.
    seed
        Decides folds (with the seed of the first look they are its folds), first weights and the order of learning.

    Returns
    -------
    CrossFit
        Of the localiser with its second look; `CrossFit.baseline` are the errors of the first one.

    Raises
    ------
    IdentityMismatch
        If the crops' tokens are of another encoder than those of the first look, or of another number of tokens.
    UsageError, DataError
        As `heads.localising.cross_fit.cross_fit_localiser`; or if too few crops have a reader's point beside them.
    """
    first.identity.with_crop(source.rule.to_json()).require_same(
        source.identity, holder=str(first.folder or "the localiser")
    )
    if unknown := [study for study in found.studies if study not in patients]:
        raise DataError(
            f"levels are of studies whose patients are not known: {first_few(unknown)}. Name the store in which they "
            "were found"
        )
    labelled, true = labelled_studies(points, patients)
    folds = len(next(iter(first.networks.values())))
    fold_of = folds_by_patient([patients[study] for study in labelled], folds=folds, seed=seed)
    of_patient = dict(zip((patients[study] for study in labelled), fold_of.tolist(), strict=True))
    fold_of_point = np.array([of_patient.get(patients[study], NEW) for study in found.study_ids], np.int64)
    looks = source.looks
    wanted = looks.in_plane_mm(_offsets(found, points)[looks.points])
    views: dict[str, View] = {}
    shifts = np.full((len(looks), 2), np.nan)
    for place, kind in enumerate(dict.fromkeys(looks.kinds.tolist())):
        rows = np.flatnonzero(looks.kinds == kind)
        with stage(f"looking again at {kind.replace('_', ' ')}, {folds} folds"):
            seeds = [repeat_seed(seed, 11 + place, fold) for fold in range(folds)]
            learned = _view(source, found, rows, wanted, fold_of_point[looks.points], recipe, seeds)
        if learned is not None:
            views[kind], shifts[rows] = learned
    if not views:
        raise DataError(
            f"a second look needs {FEWEST_CROPS} crops of a kind with a reader's point in them, of all folds; found "
            f"{int(np.isfinite(wanted).all(axis=1).sum())} crops with one"
        )
    better = moved(found, looks, shifts)
    second = SecondLook(identity=source.identity, rule=source.rule, recipe=recipe, views=views)
    return _fit(replace(first, second=second), found, better, labelled, true, fold_of, looks)


def _fit(
    localiser: Localiser,
    found: LevelPoints,
    better: LevelPoints,
    labelled: list[str],
    true: Floats,
    fold_of: npt.NDArray[np.int64],
    looks: Looks,
) -> CrossFit:
    row_of = {study: row for row, study in enumerate(found.study_ids)}
    own = [row_of.get(study) for study in labelled]
    return CrossFit(
        localiser=localiser,
        rows=better.to_rows(),
        studies=labelled,
        folds=fold_of,
        compared=compare_points(point_array(better, labelled), true),
        baseline=compare_points(point_array(found, labelled), true),
        confidence=np.array([np.nan if row is None else found.confidence[row] for row in own]),
        unsure=np.array([row is None or found.unsure[row] for row in own], bool),
        counts={
            "studies": len(row_of),
            "studies learned from": len(labelled),
            "crops looked at": len(looks),
            "points without a crop": len(found) - len(np.unique(looks.points)),
        },
    )


def _offsets(found: LevelPoints, points: LevelPoints) -> Floats:
    """Return (found, 3) mm from each point to the readers'; NaN where they placed none."""
    place = {
        key: row
        for row, key in enumerate(zip(points.study_ids, points.structures, points.levels, strict=True))
    }
    keys = zip(found.study_ids, found.structures, found.levels, strict=True)
    rows = np.array([place.get(key, -1) for key in keys], np.int64)
    offsets: Floats = np.where((rows >= 0)[:, None], points.xyz_mm[rows] - found.xyz_mm, np.nan)
    return offsets


def _view(
    source: LookSource,
    found: LevelPoints,
    rows: npt.NDArray[np.int64],
    wanted: Floats,
    fold_of_look: npt.NDArray[np.int64],
    recipe: Recipe,
    seeds: list[int],
) -> tuple[View, Floats] | None:
    """Return what is learned of the looks `rows`, all of one kind, and where each of them sees its point.

    None if too few of them show the readers' point.
    """
    looks = source.looks
    half_mm = looks.planes.spacings_mm[rows][:, ::-1] * looks.planes.shapes_px[rows][:, ::-1] / 2
    inside = np.isfinite(wanted[rows]).all(axis=1) & (np.abs(wanted[rows]) < half_mm).all(axis=1)
    taught = rows[inside & (fold_of_look[rows] != NEW)]
    if len(taught) < FEWEST_CROPS or len(np.unique(fold_of_look[taught])) < len(seeds):
        return None
    spread = np.maximum(np.sqrt((wanted[taught] ** 2).mean(axis=0)), 1.0)
    learned_from = np.sort(np.random.default_rng(seeds[0]).permutation(taught)[:MOST_CROPS])
    samples = _samples(source, found, learned_from, wanted)
    own = fold_of_look[learned_from]
    networks = learn_folds(
        samples, [np.flatnonzero(own != fold) for fold in range(len(seeds))], recipe, seeds=seeds
    )
    said = _out_of_fold(source, found, rows, fold_of_look, networks, spread, recipe)
    share = _share(said[np.isin(rows, taught)], wanted[taught])
    return View(networks, spread, share), share * said


def _share(said: Floats, wanted: Floats) -> float:
    """Return by which factor, 0 to 1, what was said out of fold comes nearest to what was wanted.

    It is the slope of least squares, shrunk as James and Stein (1961) do by its own error: of crops that show nothing
    little is said and its slope is noise.
    """
    square = float((said**2).sum())
    if not square:
        return 0.0
    slope = float((said * wanted).sum()) / square
    error = float(((wanted - slope * said) ** 2).mean()) / square
    return float(np.clip(slope - error / slope, 0.0, 1.0)) if slope > 0 else 0.0


def _samples(source: LookSource, found: LevelPoints, rows: npt.NDArray[np.int64], wanted: Floats) -> Samples:
    """Return the crops as the networks learn from them: a series of one slice each, in its own plane.

    Its columns are the second axis and its rows the third; what lies across the slice is left out.
    """
    looks, levels = source.looks, levels_of(found, source.looks, rows)
    n = len(rows)
    sizes, shapes = looks.planes.spacings_mm[rows], looks.planes.shapes_px[rows]
    tokens: npt.NDArray[Any] | None = None
    start = 0
    for chosen, values in source.read(rows):
        if tokens is None:
            tokens = np.empty((n, 1, *values.shape[1:]), values.dtype)
        tokens[start : start + len(chosen), 0] = values
        start += len(chosen)
    assert tokens is not None
    down, right = np.zeros((n, 1, 3)), np.zeros((n, 1, 3))
    down[:, 0, 2], right[:, 0, 1] = sizes[:, 0], sizes[:, 1]
    points = np.full((n, 1, len(LEVELS), 3), np.nan)
    middle = (sizes * (shapes - 1) / 2)[:, ::-1]
    points[np.arange(n), 0, levels] = np.column_stack([np.zeros(n), middle + wanted[rows]])
    return Samples(np.arange(n), tokens, np.ones((n, 1), bool), np.zeros((n, 1, 3)), down, right, points)


def _out_of_fold(
    source: LookSource,
    found: LevelPoints,
    rows: npt.NDArray[np.int64],
    fold_of_look: npt.NDArray[np.int64],
    networks: list[MapNetwork],
    spread: Floats,
    recipe: Recipe,
) -> Floats:
    """Return (rows, 2) mm where networks that never saw a patient see its points; of new ones the mean of all."""
    said = np.empty((len(rows), 2))
    start = 0
    for chosen, tokens in source.read(rows):
        own = fold_of_look[chosen]
        block = np.empty((len(chosen), 2))
        for fold in np.unique(own).tolist():
            at = np.flatnonzero(own == fold)
            asked = networks if fold == NEW else [networks[fold]]
            levels = levels_of(found, source.looks, chosen[at])
            block[at] = shifts_of(asked, source.looks, chosen[at], tokens[at], levels, spread, recipe)
        said[start : start + len(chosen)] = block
        start += len(chosen)
    return said
