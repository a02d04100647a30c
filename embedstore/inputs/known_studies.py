"""Studies of a store of slices found again by the pixels of these, whatever their files are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.inputs.known_images import KnownImages, known_images
from embedstore.lumbar.level_points import LevelPoints
from embedstore.queries.manifest_columns import column_text
from embedstore.store.reader import Store


@dataclass(frozen=True, kw_only=True)
class KnownStudy:
    """A study as a store names it.

    Parameters
    ----------
    name
        The store's id of the study.
    series
        Series of the files -> the store's id of it, of the series that were looked at.
    """

    name: str
    series: Mapping[str, str]

    def of(self, series_id: str) -> str:
        """Return the store's id of a series; the files' own where it was not looked at."""
        return self.series.get(series_id, series_id)

    def named(self, points: LevelPoints) -> LevelPoints:
        """Return level points of the study under its names in the store."""
        series = [self.of(name) for name in points.series_ids.tolist()]
        own = np.full(len(points), self.name, object)
        return replace(points, study_ids=own, series_ids=np.array(series, object))


@dataclass(frozen=True, eq=False)
class KnownStudies:
    """Looks studies up in a store of whole slices."""

    store: Store

    @cached_property
    def _images(self) -> KnownImages:
        return known_images(self.store)

    @cached_property
    def _names(self) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]]:
        return column_text(self.store.table, "study_id"), column_text(self.store.table, "series_id")

    def find(self, content: npt.NDArray[np.uint8], series: Sequence[str]) -> KnownStudy | None:
        """Return the study that holds all of the slices; None if one is not there, or they are of several.

        Parameters
        ----------
        content
            (n, 32) uint8 digests of their pixels.
        series
            Of each slice its series, as the files have it.
        """
        rows = [self.store.row_of[name] for name in self._images.find(content) if name]
        if not rows or len(rows) < len(content):
            return None
        studies, own = self._names
        of_series = dict(zip(series, own[rows].tolist(), strict=True))
        pairs = set(zip(series, own[rows].tolist(), strict=True))
        if len(set(studies[rows].tolist())) > 1 or len(pairs) > len(of_series) or not studies[rows[0]]:
            return None
        return KnownStudy(name=str(studies[rows[0]]), series=of_series)


def renamed(table: pa.Table, study: str, series: Mapping[str, str]) -> pa.Table:
    """Return rows of a manifest as those of one study, with other names of some series."""
    names = [series.get(name, name) for name in table.column("series_id").to_pylist()]
    for column, cells in (("study_id", [study] * table.num_rows), ("series_id", names)):
        place = table.column_names.index(column)
        table = table.set_column(place, column, pa.array(cells, pa.string()))
    return table
