"""One vector of a unit whose images lie in space: a mean for each place, side by side.

A place is a kind of series and a part of the way along it (`embedstore.view.PLACE`): the left third of the sagittal T1
slices, the lowest axial ones. Mean pooling says what a study looks like, this says what it looks like where.

Vectors are first brought onto the leading principal axes of the images learned from, since a mean for each of two dozen
places of a whole vector would have more numbers than there are patients. They are centred there, so that the zeros of
a place without an image stand for the average image; a further number for each place says whether it has one. All is
divided by the root of the number of places: the squared length of the pooled vector is the mean of those of the places,
and a penalty on weights means what it means for single vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.view import PLACE
from heads.inputs.metadata import MAX_LEVELS, Cells
from heads.principal_axes import Projection

COMPONENTS = 64
# The axes are those of so many images, spread over all: more move them by less than their last kept direction.
_AXES_IMAGES = 8192
_UNITS = 256


@dataclass(frozen=True)
class Bins:
    """The places of binned pooling, as learned from the images that a head was fitted on.

    Parameters
    ----------
    places
        Sorted different places; an image of another place, or of none (``""``), has no part.
    projection
        What a vector is brought onto.
    length
        Root mean square length of projected vectors: the value that says that a place has an image.
    """

    places: tuple[str, ...]
    projection: Projection
    length: float

    @classmethod
    def learn(cls, X: npt.NDArray[np.float32], metadata: Cells, *, components: int = COMPONENTS) -> Bins:
        """Learn places, axes and length.

        Parameters
        ----------
        X
            (n_images, dim) float32 vectors, finite.
        metadata
            With the column `PLACE`: (n_images,) str.
        components
            Principal axes at most.

        Raises
        ------
        UsageError
            If there is no such column, no image has a place, or there are more than `MAX_LEVELS` places.
        """
        cells = _cells(metadata)
        places = tuple(place for place in np.unique(cells).tolist() if place)
        if not 1 <= len(places) <= MAX_LEVELS:
            raise UsageError(
                f"`pooling='binned'` needs 1 to {MAX_LEVELS} places; found {len(places)} in {len(cells):,} images: "
                "kinds of series (series_description, or plane and weighting) times parts of a stack"
            )
        placed = np.flatnonzero(cells != "")
        some = placed[
            np.linspace(0, len(placed) - 1, min(len(placed), _AXES_IMAGES)).round().astype(np.int64)
        ]
        projection = Projection.fit(X[some], components)
        square = np.square(projection(X[some]), dtype=np.float64).sum(axis=1).mean()
        # Vectors that are all the same have no length to be compared with.
        return cls(places, projection, float(np.sqrt(square)) or 1.0)

    def pool(
        self,
        X: npt.NDArray[np.float32],
        metadata: Cells | None,
        unit_of_image: npt.NDArray[np.int64],
        *,
        n_units: int,
    ) -> npt.NDArray[np.float32]:
        """Return (n_units, places * (components + 1)) float32: the means place by place, then which places there are.

        Parameters
        ----------
        X
            (n_images, dim) float32.
        metadata
            With the column `PLACE`.
        unit_of_image
            (n_images,) int64 from 0 to ``n_units - 1``.
        n_units
            Number of units; one without an image in any place has zeros only.

        Raises
        ------
        UsageError
            If there is no such column.
        """
        count, width = len(self.places), len(self.projection.axes)
        known, place = _places(np.array(self.places), _cells(metadata))
        cell = unit_of_image[known] * count + place
        order = np.argsort(cell, kind="stable")
        rows, cell = known[order], cell[order]
        means = np.zeros((n_units * count, width), np.float32)
        filled, first, images = np.unique(cell, return_index=True, return_counts=True)
        # Some cells at a time: widened copies of all images would be the largest arrays of a probe.
        for start in range(0, len(filled), _UNITS * count):
            some = slice(start, start + _UNITS * count)
            begin, stop = first[some][0], first[some][-1] + images[some][-1]
            sums = np.add.reduceat(X[rows[begin:stop]].astype(np.float64), first[some] - begin, axis=0)
            means[filled[some]] = self.projection((sums / images[some, None]).astype(np.float32))
        pooled = np.zeros((n_units, count * (width + 1)), np.float32)
        pooled[:, : count * width] = means.reshape(n_units, -1)
        pooled[filled // count, count * width + filled % count] = self.length
        pooled /= np.float32(np.sqrt(count))
        return pooled

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; the axes are arrays (`to_arrays`)."""
        return {"column": PLACE, "places": list(self.places), "length": self.length}

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what safetensors hold."""
        return {"mean": self.projection.mean, "axes": self.projection.axes}


def bins_from_saved(document: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Bins:
    """Build from `Bins.to_json` and `Bins.to_arrays`; raises KeyError where something is missing."""
    projection = Projection(arrays["mean"], arrays["axes"])
    return Bins(tuple(document["places"]), projection, float(document["length"]))


def _places(
    places: npt.NDArray[np.str_], cells: npt.NDArray[np.str_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows that have one of the sorted places, and the number of each one's."""
    at = np.minimum(np.searchsorted(places, cells), len(places) - 1)
    known = np.flatnonzero(places[at] == cells)
    return known, at[known].astype(np.int64)


def _cells(metadata: Cells | None) -> npt.NDArray[np.str_]:
    if metadata is None or PLACE not in metadata:
        raise UsageError(
            f"`pooling='binned'` needs the column {PLACE} of every image: load the view with "
            f"with_columns=[{PLACE!r}]"
        )
    return metadata[PLACE]
