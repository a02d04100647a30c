"""Which images teach, which judge, and where they lie: a store's task, without its vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedstore.decoding.decode import DecodeJob
from embedstore.errors import DataError, UsageError
from embedstore.keys.key_file import Key
from embedstore.manifest import path_from_manifest
from embedstore.pipeline.chunk_work import box_of
from embedstore.pipeline.series_ranges import ranges_of_series
from embedstore.queries.image_files import ImageFiles, hidden_images
from embedstore.store.reader import Store
from embedstore.view import MISSING, View
from heads.folds import assign_folds
from heads.inputs.leakage import leakage_groups, require_disjoint_splits
from heads.protocol.splits import split_units

LEARNED, VALIDATION, LEFT_OUT = "learned", "validation", "left out"
_KNOWN_RANGE = "mri_range"
_HELD_OUT = 0.2
_HOLD_OUT_PLACE = 1_000_003  # so that who is held out and who judges are two draws


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """The images of a task's units, with what each unit is for.

    Parameters
    ----------
    view
        The labelled units; its vectors are not needed.
    jobs
        How each image of the view is decoded.
    role
        (n_units,) str: `LEARNED`, `VALIDATION` (judges the training, and is no less used up by it), or `LEFT_OUT`.
    in_any_fold
        (n_units,) bool: units that teach or judge in one fold or another of a cross-fitting; None without one.
    """

    view: View
    jobs: tuple[DecodeJob, ...]
    role: npt.NDArray[np.str_]
    in_any_fold: npt.NDArray[np.bool_] | None = None

    @property
    def may_learn(self) -> npt.NDArray[np.int64]:
        """The images that teach, here or in another fold, by number."""
        return self.images_of(LEARNED) if self.in_any_fold is None else self._labelled(self.in_any_fold)

    @property
    def may_judge(self) -> npt.NDArray[np.int64]:
        """The images that judge, here or in another fold, by number."""
        return self.images_of(VALIDATION) if self.in_any_fold is None else self._labelled(self.in_any_fold)

    @property
    def y_of_image(self) -> npt.NDArray[np.int64]:
        """(n_images, targets): its unit's labels, `MISSING` where the image does not speak for the target."""
        y = self.view.y[self.view.unit_of_image]
        mask = self.view.image_of_target
        return y if mask is None else np.where(mask, y, MISSING)

    def images_of(self, role: str) -> npt.NDArray[np.int64]:
        """Return the images, by number, of the units with a role that have a label."""
        return self._labelled(self.role == role)

    def images_of_units(self, units: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Return the images of some units, labelled or not, by number."""
        return np.flatnonzero(units[self.view.unit_of_image])

    def _labelled(self, units: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        labelled = (self.y_of_image != MISSING).any(axis=1)
        return np.flatnonzero(labelled & units[self.view.unit_of_image])

    def patients_of(self, *roles: str) -> list[str]:
        """Return the patients of units with a role, sorted."""
        return sorted({str(patient) for patient in self.view.patients[np.isin(self.role, roles)]})

    def left_out(self, units: npt.NDArray[np.bool_], *, share: float, seed: int) -> TrainingImages:
        """Return the same images with some more units left out, as one fold of several, and others who judge."""
        everyone = self.role != LEFT_OUT
        role = _roles(self.view, everyone & ~units, share=share, seed=seed)
        return replace(self, role=role, in_any_fold=everyone)

    def folds(self, count: int, *, seed: int) -> npt.NDArray[np.int64]:
        """Return the fold of each unit that may be learned from, by patient, and -1 of the others."""
        rows = np.flatnonzero(self.role != LEFT_OUT)
        found = np.full(len(self.role), -1)
        found[rows] = _dealt(self.view, rows, folds=count, seed=seed)
        return found


def training_images(
    stores: Sequence[Store],
    view: View,
    *,
    share: float,
    hold_out: float | None,
    seed: int,
    key: Key | None = None,
) -> TrainingImages:
    """Find the images of a view and say what each unit is for.

    With an official split only its training part is touched. Patients are never parted, nor are images with identical
    pixels.

    Parameters
    ----------
    stores
        Those of the view.
    view
        The task's units.
    share
        Of the training patients, how many judge.
    hold_out
        Of all patients who may be learned from, how many have no part; None for 0 with an official split, else 0.2.
    seed
        Of those choices.
    key
        The key of stores whose paths are hidden.

    Raises
    ------
    DataError
        If an image is nowhere to be found, or patients cross the official split.
    """
    split = split_units(view)
    if split.mode == "official split":
        require_disjoint_splits(view, split.fitted, split.evaluated)
    if hold_out is None:
        hold_out = 0.0 if split.mode == "official split" else _HELD_OUT
    may_learn = split.fitted.copy()
    if hold_out:
        rows = np.flatnonzero(may_learn)
        dealt = _dealt(view, rows, folds=max(2, round(1 / hold_out)), seed=seed + _HOLD_OUT_PLACE)
        may_learn[rows[dealt == 0]] = False
    return TrainingImages(
        view=view, jobs=_jobs(stores, view, key), role=_roles(view, may_learn, share=share, seed=seed)
    )


def _roles(view: View, may_learn: npt.NDArray[np.bool_], *, share: float, seed: int) -> npt.NDArray[np.str_]:
    rows = np.flatnonzero(may_learn)
    dealt = _dealt(view, rows, folds=max(2, round(1 / share)), seed=seed)
    role = np.full(len(view.unit_ids), LEFT_OUT, dtype="<U16")
    role[rows] = np.where(dealt == 0, VALIDATION, LEARNED)
    _require_learnable(view, role)
    return role


def _dealt(view: View, rows: npt.NDArray[np.int64], *, folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Deal some units into folds that keep patients, and images with identical pixels, together."""
    _, groups = np.unique(leakage_groups(view)[rows], return_inverse=True)
    patients = len(np.unique(groups))
    if patients < 2 * folds:
        raise DataError(
            f"task {view.task.name!r}: {patients} patients are too few to part {folds} ways; {2 * folds} are needed. "
            "Use fewer folds, or larger shares to hold out and to judge by"
        )
    return assign_folds(
        view.y[rows], groups.astype(np.int64), folds=folds, n_classes=len(view.task.classes), seed=seed
    )


def _require_learnable(view: View, role: npt.NDArray[np.str_]) -> None:
    for column, target in enumerate(view.task.targets):
        y = view.y[role == LEARNED, column]
        present = np.unique(y[y != MISSING])
        if len(present) < 2:
            raise DataError(
                f"task {view.task.name!r}, target {target!r}: the units to learn from must have two classes or more; "
                f"found {[view.task.classes[code] for code in present]}. `targets` names those to keep"
            )


def _jobs(stores: Sequence[Store], view: View, key: Key | None) -> tuple[DecodeJob, ...]:
    found: dict[str, DecodeJob] = {}
    for store in stores:
        found |= _jobs_of(store, key)
    lacking = [image_id for image_id in view.image_ids.tolist() if image_id not in found]
    if lacking:
        hidden = sum(map(hidden_images, stores))
        raise DataError(
            f"{len(lacking):,} images of task {view.task.name!r} are nowhere to be found, the first {lacking[0]!r}"
            + (f": the paths of {hidden:,} are hidden; name their `key_file`" if hidden else "")
        )
    return tuple(found[image_id] for image_id in view.image_ids.tolist())


def _jobs_of(store: Store, key: Key | None) -> dict[str, DecodeJob]:
    store.identity.require_computed(holder=f"store {store.path}")
    files, ranges = ImageFiles(key), ranges_of_series(store.series_ranges())
    jobs = {}
    for part in store.parts:
        places = {image_id: (root, path) for image_id, root, path in files.of_part(store, part)}
        for record in part.manifest.records():
            if record.image_id in places:
                root, path = places[record.image_id]
                by_kind = ranges.get(record.series_id, {})
                jobs[record.image_id] = DecodeJob(
                    path=str(path_from_manifest(root, path)),
                    frame=record.frame,
                    modality=record.modality,
                    value_range=by_kind.get(""),
                    ranges_by_kind={kind: limits for kind, limits in by_kind.items() if kind},
                    crop=box_of(record),
                )
    return jobs


def require_same_display(stores: Sequence[Store], preprocess: Mapping[str, object]) -> None:
    """Refuse stores whose images were shown over another range of MR values than the base shows them.

    Raises
    ------
    UsageError
        With both settings.
    """
    for store in stores:
        theirs, own = store.identity.preprocess.get(_KNOWN_RANGE), preprocess.get(_KNOWN_RANGE)
        if theirs != own and store.series_ranges():
            raise UsageError(
                f"store {store.path} shows MR series by {_KNOWN_RANGE} {theirs!r}, and the encoder to be fine-tuned by "
                f"{own!r}; use a store of that encoder"
            )
