"""The images of labelled units, which a head learns from or is evaluated on.

An image that does not speak for a target (`embedstore.view.Units.image_of_target`) has no part in what is learned or
said of it: targets are worked on in groups that have the same images, and each group gets the rows of these alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedstore.view import View


@dataclass(frozen=True, kw_only=True)
class UnitImages:
    """Images (one a row) with the labelled units that they belong to.

    Parameters
    ----------
    X
        (n_rows, dim) float32 vectors of images.
    metadata
        Manifest column -> (n_rows,) str.
    unit_of_row
        (n_rows,) int64.
    y
        (n_units, targets) int64.
    groups
        (n_units,) int64: units of one group share a fold.
    image_of_target
        (n_rows, targets) bool, each row with a target; None where all images speak for all targets.
    """

    X: npt.NDArray[np.float32]
    metadata: Mapping[str, npt.NDArray[np.str_]]
    unit_of_row: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    image_of_target: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of_view(cls, view: View, groups: npt.NDArray[np.int64]) -> UnitImages:
        """Return the images of a view that speak for a target; `groups` as `heads.inputs.leakage.leakage_groups`.

        A unit without such an image has no label either (`embedstore.view.View`), and is not to be taken.
        """
        images = cls(
            X=view.X, metadata=view.metadata, unit_of_row=view.unit_of_image, y=view.y, groups=groups
        )
        if view.image_of_target is None:
            return images
        speaking = np.asarray(view.image_of_target.any(axis=1))
        mask = view.image_of_target[speaking]
        return replace(images._images(speaking), image_of_target=None if mask.all() else mask)

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.y)

    def take(self, units: npt.NDArray[np.bool_]) -> UnitImages:
        """Return the units of a mask, renumbered."""
        if units.all():
            return self
        own = self._images(units[self.unit_of_row])
        renumbered = np.cumsum(units) - 1
        _, groups = np.unique(self.groups[units], return_inverse=True)
        return replace(own, unit_of_row=renumbered[own.unit_of_row], y=self.y[units], groups=groups)

    def by_images(self) -> list[TargetImages]:
        """Return the targets in groups that have the same images, with the units that have one of these."""
        parts = []
        for targets, images in image_groups(self.image_of_target, self.y.shape[1]):
            if images is None and len(targets) == self.y.shape[1]:
                everyone = np.ones(self.n_units, np.bool_)
                return [
                    TargetImages(targets=targets, units=everyone, images=replace(self, image_of_target=None))
                ]
            units = np.zeros(self.n_units, np.bool_)
            own = self if images is None else self._images(images)
            units[own.unit_of_row] = True
            own = replace(own, image_of_target=None, y=self.y[:, targets])
            parts.append(TargetImages(targets=targets, units=units, images=own.take(units)))
        return parts

    def _images(self, images: npt.NDArray[np.bool_]) -> UnitImages:
        """Return some images, with all units."""
        rows = _span(images)
        return replace(
            self,
            X=self.X[rows],
            metadata={column: cells[rows] for column, cells in self.metadata.items()},
            unit_of_row=self.unit_of_row[rows],
            image_of_target=None if self.image_of_target is None else self.image_of_target[rows],
        )


@dataclass(frozen=True, kw_only=True)
class TargetImages:
    """Targets that the same images speak for.

    Parameters
    ----------
    targets
        Their columns in the labels of all targets.
    units
        (n_units,) bool: the units that have such an image.
    images
        These images, with these units and the labels of these targets; all of its images speak for all of them.
    """

    targets: list[int]
    units: npt.NDArray[np.bool_]
    images: UnitImages


def image_groups(
    image_of_target: npt.NDArray[np.bool_] | None, n_targets: int
) -> list[tuple[list[int], npt.NDArray[np.bool_] | None]]:
    """Return the targets in groups that have the same images, with a mask of these; None for all images.

    Examples
    --------
    >>> mask = np.array([[True, True, False], [False, False, True]])
    >>> [(targets, images.tolist()) for targets, images in image_groups(mask, 3)]
    [([0, 1], [True, False]), ([2], [False, True])]
    """
    if image_of_target is None:
        return [(list(range(n_targets)), None)]
    groups: dict[bytes, list[int]] = {}
    for target in range(n_targets):
        groups.setdefault(image_of_target[:, target].tobytes(), []).append(target)
    masks = [image_of_target[:, targets[0]] for targets in groups.values()]
    return [
        (targets, None if images.all() else images)
        for targets, images in zip(groups.values(), masks, strict=True)
    ]


def _span(mask: npt.NDArray[np.bool_]) -> slice | npt.NDArray[np.bool_]:
    """Return the mask, or a slice where it is contiguous: vectors of such a split are not copied."""
    where = np.flatnonzero(mask)
    together = len(where) > 0 and where[-1] - where[0] + 1 == len(where)
    return slice(int(where[0]), int(where[-1]) + 1) if together else mask
