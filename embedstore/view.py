"""Stores + task -> arrays: what a head needs to know, and nothing about files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.brief import Brief
from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.identity import Identity
from embedstore.task import Task

MISSING = -1
# Begins the name of the patient that an image without one is for itself.
UNKNOWN_PATIENT = "only "
# A column made from others: where an image lies, as its kind of series and a part of the way along it.
PLACE = "place"
# The cell of a subgroup where images of the unit differ.
SEVERAL = "several"


@dataclass(frozen=True)
class Source:
    """A data set in a store.

    Parameters
    ----------
    store
        Name of the store's folder.
    dataset
        Registered name of the reader.
    folder
        Name of the data set's folder.
    phantom
        Whether the images are drawn by a computer and show no patient.
    """

    store: str
    dataset: str
    folder: str
    phantom: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "store": self.store,
            "dataset": self.dataset,
            "folder": self.folder,
            "phantom": self.phantom,
        }


@dataclass(frozen=True, repr=False)
class Embeddings(Brief):
    """Vectors with their names.

    Parameters
    ----------
    image_ids
        (n,) object array of str, in store order or in the order asked for.
    vectors
        (n, dim) float16 or float32, un-normalised; every row finite.
    rows
        (n,) int64: row in the store, counted over all parts.
    """

    image_ids: npt.NDArray[np.object_]
    vectors: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]

    def _facts(self) -> dict[str, Any]:
        return {
            "images": len(self.image_ids),
            "dim": self.vectors.shape[1],
            "dtype": str(self.vectors.dtype),
        }


@dataclass(frozen=True, repr=False)
class ArrayRows(Brief):
    """Rows of one array with their names.

    Parameters
    ----------
    image_ids
        (n,) object array of str, in store order or in the order asked for.
    values
        (n, *row shape) float16 or float32; every row finite.
    rows
        (n,) int64: row in the store, counted over all parts.
    """

    image_ids: npt.NDArray[np.object_]
    values: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]

    def _facts(self) -> dict[str, Any]:
        return {
            "images": len(self.image_ids),
            "row_shape": self.values.shape[1:],
            "dtype": str(self.values.dtype),
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Units(Brief):
    """Units of a task, labelled or not, with the vectors of their images.

    Images are in the order of their store, or of their stores one after the other; units are in order of their
    first image.

    Parameters
    ----------
    X
        (n_images, dim) float32, un-normalised; every row finite.
    image_ids
        (n_images,) str.
    content_sha256
        (n_images, 32) uint8: digest of each image's decoded pixels.
    unit_of_image
        (n_images,) int64: row of the unit that the image belongs to.
    unit_ids
        (n_units,) str: `embedstore.task.unit_id_of`.
    metadata
        Manifest column -> (n_images,) str, ``""`` where unknown: the columns that heads get beside the vectors.
    image_of_target
        (n_images, n_targets) bool: which images speak for which target; None where all speak for all. An image
        has no part in what is learned or said of a target that it does not speak for.
    """

    X: npt.NDArray[np.float32]
    image_ids: npt.NDArray[np.str_]
    content_sha256: npt.NDArray[np.uint8]
    unit_of_image: npt.NDArray[np.int64]
    unit_ids: npt.NDArray[np.str_]
    metadata: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)
    image_of_target: npt.NDArray[np.bool_] | None = None

    def _facts(self) -> dict[str, Any]:
        return {
            "units": len(self.unit_ids),
            "images": len(self.image_ids),
            "dim": self.X.shape[1],
            "metadata": list(self.metadata),
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class View(Units):
    """The labelled units of one task with the vectors of their images.

    Parameters
    ----------
    task
        The task; its label table is not needed any more.
    identity
        What the vectors are.
    y
        (n_units, n_targets) int64: index into ``task.classes``, `MISSING` where there is no label.
    patients
        (n_units,) str.
    splits
        (n_units,) str: ``train``, ``valid``, ``test``, or ``""`` where there is no official split.
    subgroups
        Name -> (n_units,) str, ``""`` where unknown and `SEVERAL` where images of the unit differ: the columns by
        which the task splits results, and others that it may be split by (manufacturer, sequence, age, sex).
    excluded
        Why images or units of the store are not here -> how many (``"failed: unreadable"``).
    sources
        The stores and the data sets in them; for information.
    store_dtype
        ``float16`` or ``float32``: what the vectors were rounded to in the store.
    image_kinds
        Column that says what kind of image it is (``modality``, ``body_part``) -> (n_images,) str, ``""`` where
        unknown; for information.
    y_without_image
        (n_units, n_targets) int64: labels that none of the unit's images speaks for, `MISSING` elsewhere; they are
        neither learned from nor among `y`. None where there are none.
    folds
        (n_units,) int64: the outer folds of a cross-validation, equal to those of other views of the same units;
        dealt by the probe where None.
    trained
        (n_units,) str: ``taught`` where the encoder's weights were trained on the unit's patient, ``judged`` where they
        were chosen by the patient, else ``""``; None where nobody fine-tuned the encoder.
    allows_trained
        Whether somebody asked that such units be learned from and evaluated all the same; None where nobody did.
    X, image_ids, content_sha256, unit_of_image, unit_ids, metadata, image_of_target
        As `Units`.

    Raises
    ------
    DataError
        If `image_of_target` has another shape, or a unit has a label for a target that none of its images speaks for.
    """

    task: Task
    identity: Identity
    y: npt.NDArray[np.int64]
    patients: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]
    subgroups: Mapping[str, npt.NDArray[np.str_]]
    excluded: Mapping[str, int]
    sources: tuple[Source, ...] = ()
    store_dtype: str = "float16"
    image_kinds: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)
    y_without_image: npt.NDArray[np.int64] | None = None
    folds: npt.NDArray[np.int64] | None = None
    trained: npt.NDArray[np.str_] | None = None
    allows_trained: bool | None = None

    def __post_init__(self) -> None:
        if self.image_of_target is not None:
            self._check_mask(self.image_of_target)

    def _check_mask(self, image_of_target: npt.NDArray[np.bool_]) -> None:
        where, wanted = f"task {self.task.name!r}", (len(self.image_ids), len(self.task.targets))
        if image_of_target.shape != wanted or image_of_target.dtype != np.bool_:
            raise DataError(
                f"{where}: image_of_target must be bool of shape {wanted} (images, targets); found "
                f"{image_of_target.dtype} of shape {image_of_target.shape}"
            )
        silent = np.argwhere(
            (self.y != MISSING) & ~units_spoken_for(image_of_target, self.unit_of_image, len(self.y))
        )
        if len(silent):
            unit, target = silent[0]
            raise DataError(
                f"{where}: {len(silent):,} labels of units that have no image for the target, the first of unit "
                f"{str(self.unit_ids[unit])!r}, target {self.task.targets[target]!r}; such a label must be {MISSING}"
            )

    def _facts(self) -> dict[str, Any]:
        return {
            "task": self.task.name,
            "unit": self.task.unit,
            "targets": list(self.task.targets),
            "classes": list(self.task.classes),
            "units": len(self.unit_ids),
            "images": len(self.image_ids),
            "patients": len(np.unique(self.patients)),
            "dim": self.X.shape[1],
            "splits": sorted(set(self.splits.tolist()) - {""}),
        }


def units_spoken_for(
    image_of_target: npt.NDArray[np.bool_], unit_of_image: npt.NDArray[np.int64], n_units: int
) -> npt.NDArray[np.bool_]:
    """Return (n_units, targets) bool: whether some image of the unit speaks for the target."""
    spoken_for = np.zeros((n_units, image_of_target.shape[1]), np.bool_)
    np.logical_or.at(spoken_for, unit_of_image, image_of_target)
    return spoken_for


def take_targets(view: View, targets: Sequence[str]) -> View:
    """Return a view of some targets of its task, in the order named; raises UsageError for one that it lacks."""
    task = view.task
    unknown = [target for target in targets if target not in task.targets]
    if unknown or not targets:
        hint = did_you_mean(unknown[0], task.targets) if unknown else ""
        named = f"has no target {', '.join(map(repr, unknown))}" if unknown else "needs one target or more"
        raise UsageError(f"task {task.name!r} {named}; it has {', '.join(task.targets)}{hint}")
    columns = [task.targets.index(target) for target in targets]
    rules = {target: rule for target, rule in task.images_of_target.items() if target in targets}
    mask, lost = view.image_of_target, view.y_without_image
    return replace(
        view,
        task=replace(task, targets=tuple(targets), images_of_target=rules),
        y=view.y[:, columns],
        image_of_target=None if mask is None else mask[:, columns],
        y_without_image=None if lost is None else lost[:, columns],
    )


def take_units(view: View, units: npt.NDArray[np.bool_]) -> View:
    """Return a view of some of its units, in their order, with their images.

    Parameters
    ----------
    view
        The view.
    units
        (n_units,) bool; at least one.
    """
    images = units[view.unit_of_image]
    renumbered = np.cumsum(units) - 1

    def own(array: Any, mask: npt.NDArray[np.bool_]) -> Any:
        return None if array is None else array[mask]

    return replace(
        view,
        X=view.X[images],
        image_ids=view.image_ids[images],
        content_sha256=view.content_sha256[images],
        unit_of_image=renumbered[view.unit_of_image[images]].astype(np.int64),
        metadata={name: cells[images] for name, cells in view.metadata.items()},
        image_kinds={name: cells[images] for name, cells in view.image_kinds.items()},
        image_of_target=own(view.image_of_target, images),
        unit_ids=view.unit_ids[units],
        y=view.y[units],
        patients=view.patients[units],
        splits=view.splits[units],
        subgroups={name: cells[units] for name, cells in view.subgroups.items()},
        y_without_image=own(view.y_without_image, units),
        folds=own(view.folds, units),
        trained=own(view.trained, units),
    )


def without_split(view: View) -> View:
    """Return the view as if there were no official split: every unit is then evaluated by cross-validation."""
    return replace(view, splits=np.zeros_like(view.splits))
