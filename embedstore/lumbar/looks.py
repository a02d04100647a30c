"""Crops around level points as a second look sees them: which point each shows, and where its tokens lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.geometry import FloatArray, directions
from embedstore.slices.planes import SlicePlanes


@dataclass(frozen=True, eq=False)
class Looks:
    """n crops, each around one level point and through the slice nearest to it.

    Parameters
    ----------
    points
        (n,) int64: row of the level points that each is centred at.
    kinds
        (n,) object array of str: name of the view (`embedstore.crops.plan_crops.CropKind.name`).
    series_ids
        (n,) object array of str: the series of the slice.
    planes
        Where the tokens of each crop lie, turned as the crop is: columns and rows of tokens grow along its columns and
        rows, also where it is mirrored. All are known.

    Raises
    ------
    DataError
        If lengths differ or a plane is unknown.
    """

    points: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.object_]
    series_ids: npt.NDArray[np.object_]
    planes: SlicePlanes

    def __post_init__(self) -> None:
        lengths = {len(self.points), len(self.kinds), len(self.series_ids), len(self.planes)}
        if len(lengths) != 1:
            raise DataError(f"looks: all parts must be of one length; found {sorted(lengths)}")
        if not self.planes.known.all():
            raise DataError("looks: every crop needs a known plane")

    def __len__(self) -> int:
        return len(self.points)

    def in_plane_mm(self, offsets_mm: FloatArray) -> FloatArray:
        """Return (n, 2) how far (n, 3) offsets reach along each crop's columns and rows."""
        axes = np.stack(directions(self.planes.orientations), axis=1)
        along: FloatArray = np.einsum("nij,nj->ni", axes, offsets_mm)
        return along

    def in_patient_mm(self, shifts_mm: FloatArray) -> FloatArray:
        """Return (n, 3) offsets in the patient of (n, 2) shifts along each crop's columns and rows."""
        axes = np.stack(directions(self.planes.orientations), axis=1)
        offsets: FloatArray = np.einsum("nij,ni->nj", axes, shifts_mm)
        return offsets
