"""Learning a localiser by patient folds: a training study's levels come from networks that never saw its patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from embedstore.identity import Identity
from embedstore.lumbar.level_points import STRUCTURES, LevelPoints
from embedstore.lumbar.levels import LEVELS
from embedstore.lumbar.series_grid import KINDS, StudyGrids
from heads.folds import assign_folds, repeat_seed
from heads.localising.confidence import Confidence, learn_confidence, variant_limits, variant_of
from heads.localising.find_levels import SIDES, VARIANTS, Found, find_levels
from heads.localising.learn_maps import learn_folds
from heads.localising.localiser import Localiser
from heads.localising.localising_errors import Compared, compare_points
from heads.localising.network import MapNetwork
from heads.localising.recipe import Recipe
from heads.localising.samples import SampleCollector, Samples
from heads.localising.spine_prior import Floats, SpinePrior, learn_prior, point_array
from heads.stages import stage

NEW = -1
FEWEST_PATIENTS = 8


class GridSource(Protocol):
    """Where token grids come from: a store, or arrays."""

    @property
    def identity(self) -> Identity:
        """Of the tokens."""

    @property
    def patients(self) -> Mapping[str, str]:
        """Every study that has images, in order -> its patient."""

    def read(self, study_ids: Sequence[str]) -> Iterator[StudyGrids]:
        """Yield the grids of studies, in that order; one without sagittal series has none."""


@dataclass(frozen=True, eq=False)
class CrossFit:
    """What came out.

    Parameters
    ----------
    localiser
        For new studies.
    rows
        The points of all studies, for `embedstore.lumbar.level_points.points_from_rows`.
    studies
        The labelled studies that were learned from, in the order of the arrays.
    folds
        (n,) int64: the fold of each.
    compared
        Their points and the readers', out of fold.
    baseline
        The same for points at their mean place from the middle of the slices.
    confidence
        (n,) that the names are right; NaN where no levels were found.
    unsure
        (n,) bool.
    counts
        What happened to studies, in words -> how many.
    """

    localiser: Localiser
    rows: list[dict[str, Any]]
    studies: list[str]
    folds: npt.NDArray[np.int64]
    compared: Compared
    baseline: Compared
    confidence: Floats
    unsure: npt.NDArray[np.bool_]
    counts: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class _Learned:
    """What was learned of the folds: kind -> network of each fold; the prior of each, and of all."""

    networks: Mapping[str, list[MapNetwork]]
    priors: list[SpinePrior]
    prior: SpinePrior


def cross_fit_localiser(
    source: GridSource, points: LevelPoints, *, folds: int = 5, seed: int = 0, recipe: Recipe | None = None
) -> CrossFit:
    """Learn a localiser from the readers' points.

    Parameters
    ----------
    source
        Token grids of all studies, also of those without points, which are localised too.
    points
        Oracle points.
    folds
        Folds of patients.
    seed
        Decides folds, first weights and the order of learning.
    recipe
        As by default.

    Raises
    ------
    UsageError
        If there are fewer than two folds, or fewer patients than folds.
    DataError
        If too few studies have points and token grids of sagittal series.
    """
    recipe = recipe or Recipe()
    patients = source.patients
    labelled, true = labelled_studies(points, patients)
    fold_of = folds_by_patient([patients[study] for study in labelled], folds=folds, seed=seed)
    with stage("reading the slices to learn from"):
        samples, middles = _collect(source, labelled, true, recipe)
    learned = _learn(samples, true, middles, fold_of, recipe, seed=seed)
    fold_of_study = _folds_of_all(patients, labelled, fold_of)
    found, seen = _find_all(source, fold_of_study, learned, recipe)
    own = [found[study] for study in labelled]
    localiser, of_fold = _calibrated(source.identity, own, true, fold_of, learned, recipe)
    rows = _all_rows(localiser, learned, found, seen, fold_of_study, of_fold)
    predicted, confidence, unsure = _of_rows(rows, labelled)
    return CrossFit(
        localiser=localiser,
        rows=rows,
        studies=labelled,
        folds=fold_of,
        compared=compare_points(predicted, true),
        baseline=compare_points(_mean_places(learned, fold_of, middles, true.shape), true),
        confidence=confidence,
        unsure=unsure,
        counts=_counts(localiser, found, seen, labelled),
    )


def labelled_studies(points: LevelPoints, patients: Mapping[str, str]) -> tuple[list[str], Floats]:
    """Return the studies that can be learned from, and their points (studies, 5 structures, 5 levels, 3)."""
    labelled = [study for study in points.studies if study in patients]
    true = point_array(points, labelled)
    usable = np.flatnonzero(np.isfinite(true[:, :3]).any(axis=(1, 2, 3)))
    return [labelled[row] for row in usable], true[usable]


def folds_by_patient(patients: Sequence[str], *, folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the fold of each study, (n,); raises as `cross_fit_localiser`."""
    names, groups = np.unique(np.array(patients, str), return_inverse=True)
    if folds < 2:
        raise UsageError(f"`folds` must be 2 or more; found {folds}")
    if len(names) < max(folds, FEWEST_PATIENTS):
        raise DataError(
            f"a localiser needs points of at least {max(folds, FEWEST_PATIENTS)} patients with sagittal slices, by "
            f"which {folds} folds are made; found {len(names)}. Bring more labelled studies"
            + (f", or ask for {len(names)} folds or fewer" if len(names) >= FEWEST_PATIENTS else "")
        )
    nothing = np.zeros((len(patients), 1), np.int64)
    return assign_folds(nothing, groups.ravel().astype(np.int64), folds=folds, n_classes=1, seed=seed)


def _collect(
    source: GridSource, labelled: list[str], true: Floats, recipe: Recipe
) -> tuple[dict[str, Samples], Floats]:
    """Return samples by kind, and the middle of each study's sagittal slices in mm."""
    collectors = {kind: SampleCollector(true, kind=kind, recipe=recipe) for kind in KINDS}
    middles = np.full((len(labelled), 3), np.nan)
    for row, study in enumerate(source.read(labelled)):
        for collector in collectors.values():
            collector.add(row, study)
        middles[row] = middle_of(study)
    taken = {kind: collector.samples() for kind, collector in collectors.items()}
    found = {kind: samples for kind, samples in taken.items() if samples is not None}
    if "T2" not in found:
        raise DataError(
            "no study has a sagittal T2 series with token grids and a canal point; a localiser learns discs on it"
        )
    return found, middles


def middle_of(study: StudyGrids) -> Floats:
    """Return the middle of a study's sagittal slices, T2 if there is one; NaN without any."""
    grids = study.of_kind("T2") or study.of_kind("T1")
    if not grids:
        return np.full(3, np.nan)
    largest = max(grids, key=lambda grid: len(grid.tokens))
    middle: Floats = largest.centres_mm().mean(axis=(0, 1, 2))
    return middle


def _learn(
    samples: Mapping[str, Samples],
    true: Floats,
    middles: Floats,
    fold_of: npt.NDArray[np.int64],
    recipe: Recipe,
    *,
    seed: int,
) -> _Learned:
    folds = range(int(fold_of.max()) + 1)
    networks: dict[str, list[MapNetwork]] = {}
    for place, (kind, own) in enumerate(samples.items()):
        fold_of_sample = fold_of[own.studies]
        chosen = [np.flatnonzero(fold_of_sample != fold) for fold in folds]
        seeds = [repeat_seed(seed, 1 + place, fold) for fold in folds]
        with stage(f"learning the maps of {kind}, {len(folds)} folds"):
            networks[kind] = learn_folds(own, chosen, recipe, seeds=seeds)
    priors = [learn_prior(true[fold_of != fold], middles[fold_of != fold]) for fold in folds]
    return _Learned(networks, priors, learn_prior(true, middles))


def _folds_of_all(
    patients: Mapping[str, str], labelled: list[str], fold_of: npt.NDArray[np.int64]
) -> dict[str, int]:
    """Return the fold of every study; `NEW` for those of patients that no fold has.

    A study without points may only meet networks that never saw its patient, either.
    """
    of_patient = dict(zip((patients[study] for study in labelled), fold_of.tolist(), strict=True))
    return {study: of_patient.get(patient, NEW) for study, patient in patients.items()}


def _find_all(
    source: GridSource, fold_of_study: Mapping[str, int], learned: _Learned, recipe: Recipe
) -> tuple[dict[str, Found | None], dict[str, StudyGrids]]:
    """Return the levels of every study, and every study without its tokens."""
    found: dict[str, Found | None] = {}
    seen: dict[str, StudyGrids] = {}
    with stage("finding the levels"):
        for study in source.read(list(fold_of_study)):
            fold = fold_of_study[study.study_id]
            asked = {kind: own if fold == NEW else [own[fold]] for kind, own in learned.networks.items()}
            prior = learned.prior if fold == NEW else learned.priors[fold]
            found[study.study_id] = find_levels(study, asked, prior, recipe)
            seen[study.study_id] = replace(study, series=())
    return found, seen


def _calibrated(
    identity: Identity,
    own: Sequence[Found | None],
    true: Floats,
    fold_of: npt.NDArray[np.int64],
    learned: _Learned,
    recipe: Recipe,
) -> tuple[Localiser, list[Confidence]]:
    """Return the localiser, its confidence learned from all studies, and that of each fold from the others."""
    right, judged = compare_points(_five_discs(own, true.shape), true).all_right()
    margins = np.array([np.nan if entry is None else entry.margin for entry in own])
    use = judged & np.isfinite(margins)
    of_fold = [
        learn_confidence(margins[use & (fold_of != fold)], right[use & (fold_of != fold)])
        for fold in range(len(learned.priors))
    ]
    localiser = Localiser(
        identity=identity,
        recipe=recipe,
        networks=learned.networks,
        prior=learned.prior,
        confidence=learn_confidence(margins[use], right[use]),
        limits=variant_limits([entry.variants for entry in own if entry is not None], VARIANTS),
    )
    return localiser, of_fold


def _five_discs(own: Sequence[Found | None], shape: tuple[int, ...]) -> Floats:
    """Return the points under the five names, whatever the variants say: by them the margin is judged."""
    predicted = np.full(shape, np.nan)
    for row, entry in enumerate(own):
        if entry is not None:
            predicted[row, 0] = entry.canal
            for place, side in enumerate(SIDES, start=1):
                if side in entry.foramina:
                    predicted[row, place] = entry.foramina[side]
    return predicted


def _all_rows(
    localiser: Localiser,
    learned: _Learned,
    found: Mapping[str, Found | None],
    seen: Mapping[str, StudyGrids],
    fold_of_study: Mapping[str, int],
    of_fold: Sequence[Confidence],
) -> list[dict[str, Any]]:
    rows = []
    for study_id, entry in found.items():
        if entry is None:
            continue
        fold = fold_of_study[study_id]
        asked = localiser if fold == NEW else replace(localiser, prior=learned.priors[fold])
        rows += asked.rows_of(seen[study_id], entry, None if fold == NEW else of_fold[fold])
    return rows


def _of_rows(
    rows: Sequence[Mapping[str, Any]], labelled: list[str]
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    place = {study: row for row, study in enumerate(labelled)}
    predicted = np.full((len(labelled), len(STRUCTURES), len(LEVELS), 3), np.nan)
    confidence, unsure = np.full(len(labelled), np.nan), np.ones(len(labelled), bool)
    for row in rows:
        if row["study_id"] not in place:
            continue
        at = place[row["study_id"]]
        confidence[at], unsure[at] = row["confidence"], row["unsure"]
        if row["level"] in LEVELS:
            predicted[at, STRUCTURES.index(row["structure"]), LEVELS.index(row["level"])] = row["xyz_mm"]
    return predicted, confidence, unsure


def _mean_places(
    learned: _Learned, fold_of: npt.NDArray[np.int64], middles: Floats, shape: tuple[int, ...]
) -> Floats:
    """Return the baseline: every structure where it is on average, from the middle of the slices."""
    places = np.full(shape, np.nan)
    for fold, prior in enumerate(learned.priors):
        mine = fold_of == fold
        canal = np.array([entry.mean for entry in prior.from_middle])
        places[mine, 0] = middles[mine, None] + canal
        for structure, offsets in prior.offsets.items():
            usual = np.array([entry.mean for entry in offsets])
            places[mine, STRUCTURES.index(structure)] = middles[mine, None] + canal + usual
    return places


def _counts(
    localiser: Localiser,
    found: Mapping[str, Found | None],
    seen: Mapping[str, StudyGrids],
    labelled: list[str],
) -> dict[str, int]:
    there = {study: entry for study, entry in found.items() if entry is not None}
    variants = [variant_of(entry.variants, localiser.limits) for entry in there.values()]
    counts = {
        "studies": len(found),
        "studies learned from": len(labelled),
        "new studies": len(found) - len(labelled),
        "studies without levels": len(found) - len(there),
        "studies without sagittal T2": sum(not entry.canal_series for entry in there.values()),
        "studies without sagittal T1": sum(not entry.foramen_series for entry in there.values()),
        "studies with turned pictures": sum(seen[study].turned for study in there),
        "studies that seem to have six discs": variants.count(6),
        "studies that seem to have four discs": variants.count(4),
    }
    always = ("studies", "studies learned from")
    return {name: count for name, count in counts.items() if count or name in always}
