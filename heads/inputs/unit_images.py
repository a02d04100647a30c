"""The images of labelled units, which a head learns from or is evaluated on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    """

    X: npt.NDArray[np.float32]
    metadata: Mapping[str, npt.NDArray[np.str_]]
    unit_of_row: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]

    @classmethod
    def of_view(cls, view: View, groups: npt.NDArray[np.int64]) -> UnitImages:
        """Return all images of a view; `groups` as `heads.protocol.leakage.leakage_groups`."""
        return cls(X=view.X, metadata=view.metadata, unit_of_row=view.unit_of_image, y=view.y, groups=groups)

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.y)

    def take(self, units: npt.NDArray[np.bool_]) -> UnitImages:
        """Return the units of a mask, renumbered."""
        if units.all():
            return self
        rows = _span(units[self.unit_of_row])
        renumbered = np.cumsum(units) - 1
        _, groups = np.unique(self.groups[units], return_inverse=True)
        return UnitImages(
            X=self.X[rows],
            metadata={column: cells[rows] for column, cells in self.metadata.items()},
            unit_of_row=renumbered[self.unit_of_row[rows]],
            y=self.y[units],
            groups=groups,
        )


def _span(mask: npt.NDArray[np.bool_]) -> slice | npt.NDArray[np.bool_]:
    """Return the mask, or a slice where it is contiguous: vectors of such a split are not copied."""
    where = np.flatnonzero(mask)
    together = len(where) > 0 and where[-1] - where[0] + 1 == len(where)
    return slice(int(where[0]), int(where[-1]) + 1) if together else mask
