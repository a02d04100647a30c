"""The token grids of crops: which level point each shows, and where its tokens lie in the patient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.crops.plan_crops import KINDS
from embedstore.errors import Advice, UsageError
from embedstore.identity import Identity
from embedstore.images.crop import CropBox
from embedstore.images.token_planes import crop_token_planes
from embedstore.lumbar.crop_rule import CropRule, rule_from_json
from embedstore.lumbar.level_points import LevelPoints
from embedstore.lumbar.looks import Looks
from embedstore.slices.planes import planes_of_table
from embedstore.store.part_reader import VALID
from embedstore.store.reader import Store
from embedstore.tokens.grid import TOKENS, tokens_of

# Rows of a store are read so many bytes at a time.
_AT_ONCE_BYTES = 256 << 20
# A view looks at its own structure; centred at another one, for want of its own, it says nothing of where that lies.
_LOOKED_AT = {(kind.name, structures[0]) for kind in KINDS for structures in kind.centres.values()}


def looks_of_table(
    table: pa.Table, usable: npt.NDArray[np.bool_], points: LevelPoints, identity: Identity, *, source: str
) -> tuple[Looks, npt.NDArray[np.int64]]:
    """Find the crops that show their own level point in the slice nearest to it.

    Parameters
    ----------
    table
        A manifest of crops (`embedstore.crops.crop_collection.COLUMNS`).
    usable
        (rows,) bool: those that have tokens.
    points
        The points that the crops were cut around.
    identity
        Of the crops' tokens.
    source
        The store or folder, for messages.

    Returns
    -------
    The looks, and (looks,) int64 rows of `table`, ascending.
    """
    place = {
        key: row
        for row, key in enumerate(zip(points.study_ids, points.structures, points.levels, strict=True))
    }
    cells = {
        name: table.column(name).to_pylist()
        for name in ("study_id", "structure", "level", "crop", "offset", "series_id")
    }
    keys = list(zip(cells["study_id"], cells["structure"], cells["level"], strict=True))
    planes = planes_of_table(table, source=source)
    chosen = usable & planes.known & (np.array(cells["offset"], np.int64) == 0)
    chosen &= np.array(
        [pair in _LOOKED_AT for pair in zip(cells["crop"], cells["structure"], strict=True)], bool
    )
    chosen &= np.array([key in place for key in keys], bool)
    rows = np.flatnonzero(chosen)
    grid = identity.arrays[TOKENS].row_shape
    looks = Looks(
        points=np.array([place[keys[row]] for row in rows], np.int64),
        kinds=np.array([cells["crop"][row] for row in rows], object),
        series_ids=np.array([cells["series_id"][row] or "" for row in rows], object),
        planes=crop_token_planes(planes.take(rows), _boxes(table.take(pa.array(rows))), (grid[0], grid[1])),
    )
    return looks, rows


def _boxes(table: pa.Table) -> list[CropBox]:
    names = ("crop_left_px", "crop_top_px", "crop_width_px", "crop_height_px", "crop_axes")
    return [
        CropBox(*cells) for cells in zip(*(table.column(name).to_pylist() for name in names), strict=True)
    ]


@dataclass(frozen=True, eq=False)
class StoreLooks:
    """The looks of a store of crops, whose tokens need not fit in memory.

    Parameters
    ----------
    store
        Of crops around `points`, with tokens.
    points
        What a localiser found at its first look.

    Raises
    ------
    UsageError
        If the store is not of crops, has no tokens, or was cut around other points.
    """

    store: Store
    points: LevelPoints

    def __post_init__(self) -> None:
        path, identity = self.store.path, self.store.identity
        if identity.crop is None:
            raise UsageError(
                f"{path} holds whole images; a second look needs a store of crops around the levels of the first "
                "(embed extract with `crops` and `tokens`)"
            )
        if tokens_of(identity) is None:
            raise UsageError(
                f"{path} has no token grids, in which levels are found. Extract the crops into a new store with "
                "`tokens`"
            )
        if self.rule.localiser_sha256 != self.points.digest:
            cut = self.rule.localiser_sha256[:12] or f"{self.rule.points} points"
            raise UsageError(
                f"{path} was cut around {cut}, not around the levels of localiser {self.points.digest[:12]}",
                advice=Advice.LOCALISE,
            )

    @cached_property
    def rule(self) -> CropRule:
        """How the crops were cut."""
        return rule_from_json(self.identity.crop or {}, source=f"store {self.store.path}")

    @property
    def identity(self) -> Identity:
        """Of the tokens."""
        return self.store.identity

    @property
    def looks(self) -> Looks:
        """The crops that show their own point."""
        return self._found[0]

    @cached_property
    def _found(self) -> tuple[Looks, npt.NDArray[np.int64]]:
        store = self.store
        return looks_of_table(
            store.table, store.status == VALID, self.points, store.identity, source=f"store {store.path}"
        )

    def read(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
        """Yield numbers of looks and their tokens (n, rows, columns, features), some at a time, in order.

        Raises
        ------
        CorruptStore
            As `Store.tokens`.
        """
        _, of_table = self._found
        row_bytes = 4 * int(np.prod(self.identity.arrays[TOKENS].row_shape))
        step = max(1, _AT_ONCE_BYTES // row_bytes)
        for start in range(0, len(rows), step):
            chosen = rows[start : start + step]
            yield chosen, self.store.tokens(self.store.image_ids[of_table[chosen]].tolist()).values
