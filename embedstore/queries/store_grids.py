"""The token grids of a store's sagittal slices, study by study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import DataError, UsageError
from embedstore.identity import Identity
from embedstore.images.token_planes import token_planes
from embedstore.lumbar.series_grid import SeriesGrid, StudyGrids, kind_of_series, study_grids
from embedstore.slices.planes import SlicePlanes, planes_of_table
from embedstore.store.part_reader import VALID
from embedstore.store.reader import Store
from embedstore.tokens.grid import TOKENS, tokens_of
from embedstore.view import UNKNOWN_PATIENT

# Chunks hold slices of several studies: those that are read together are read once.
_TOGETHER_BYTES = 256 << 20
_COLUMNS = ("image_id", "study_id", "series_id", "plane", "stack")


@dataclass(frozen=True, eq=False)
class SagittalRows:
    """The sagittal slices of a manifest that can be localised in.

    Parameters
    ----------
    rows
        (n,) int64 rows of the manifest, ascending.
    studies, series, kinds
        (n,) object arrays of str; a series is its id with the number of its stack.
    series_ids
        (n,) object array of str: the id alone.
    planes
        Of the slices' tokens.
    left_out
        Why sagittal slices were left out -> how many.
    """

    rows: npt.NDArray[np.int64]
    studies: npt.NDArray[np.object_]
    series: npt.NDArray[np.object_]
    kinds: npt.NDArray[np.object_]
    series_ids: npt.NDArray[np.object_]
    planes: SlicePlanes
    left_out: dict[str, int]


def sagittal_rows(
    table: pa.Table, usable: npt.NDArray[np.bool_], identity: Identity, *, source: str
) -> SagittalRows:
    """Find the sagittal T1 and T2 slices of a manifest, and where their tokens lie.

    Parameters
    ----------
    table
        The manifest.
    usable
        (rows,) bool: those that have tokens.
    identity
        Of the tokens.
    source
        The store or folder, for messages.

    Raises
    ------
    UsageError
        If the identity has no token grids.
    DataError
        If the manifest does not say where slices lie.
    """
    if tokens_of(identity) is None:
        raise UsageError(
            f"{source} has no token grids, in which levels are found. Extract into a new store with `tokens`"
        )
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(
            f"{source}: levels are found in sagittal slices, and column {missing[0]!r}, by which they are known, is "
            "absent. Readers of DICOM (rsna-lumbar, dicom-folder) write it"
        )
    planes = planes_of_table(table, source=source)
    cells = {name: np.array(table.column(name).to_pylist(), object) for name in _COLUMNS}
    sagittal = cells["plane"] == "sagittal"
    kinds = _kinds(table)
    named = np.array([kind is not None for kind in kinds])
    known = planes.known & table.column("study_id").is_valid().to_numpy()
    chosen = sagittal & usable & named & known
    reasons = {
        "sagittal slices of neither T1 nor T2": sagittal & ~named,
        "sagittal slices without tokens": sagittal & named & ~usable,
        "slices without usable geometry": ~planes.known,
    }
    rows = np.flatnonzero(chosen)
    grid = identity.arrays[TOKENS].row_shape
    return SagittalRows(
        rows,
        cells["study_id"][rows],
        np.array(
            [
                f"{name} {stack}"
                for name, stack in zip(cells["series_id"][rows], cells["stack"][rows], strict=True)
            ],
            object,
        ),
        kinds[rows],
        np.array([name or "" for name in cells["series_id"][rows]], object),
        token_planes(planes.take(rows), identity.preprocess, (grid[0], grid[1])),
        {reason: int(of.sum()) for reason, of in reasons.items() if of.any()},
    )


def grids_of_study(
    study_id: str, found: SagittalRows, chosen: npt.NDArray[np.int64], tokens: npt.NDArray[Any]
) -> StudyGrids:
    """Return the grids of one study.

    Parameters
    ----------
    chosen
        Rows of `found` that are the study's.
    tokens
        (chosen, rows, columns, features) their tokens.
    """
    series = []
    for name in dict.fromkeys(found.series[chosen].tolist()):
        own = np.flatnonzero(found.series[chosen] == name)
        at = chosen[own]
        series.append(
            SeriesGrid(
                str(found.series_ids[at[0]]), str(found.kinds[at[0]]), tokens[own], found.planes.take(at)
            )
        )
    return study_grids(study_id, tuple(series))


@dataclass(frozen=True)
class StoreGrids:
    """The sagittal token grids of a store, which need not fit in memory.

    Parameters
    ----------
    store
        A store extracted with tokens.
    """

    store: Store

    @property
    def identity(self) -> Identity:
        """Of the tokens."""
        return self.store.identity

    @cached_property
    def patients(self) -> dict[str, str]:
        """Every study, in order of the manifest -> its patient; one without is a patient for itself."""
        columns = [self.store.table.column(name).to_pylist() for name in ("study_id", "patient_id")]
        found: dict[str, str] = {}
        for study, patient in zip(*columns, strict=True):
            if study is not None:
                found.setdefault(study, patient or f"{UNKNOWN_PATIENT}{study}")
        return found

    @cached_property
    def sagittal(self) -> SagittalRows:
        """The slices that can be localised in; raises as `sagittal_rows`."""
        store = self.store
        return sagittal_rows(store.table, store.status == VALID, store.identity, source=f"store {store.path}")

    @cached_property
    def _rows_of_study(self) -> dict[str, npt.NDArray[np.int64]]:
        places: dict[str, list[int]] = defaultdict(list)
        for place, study in enumerate(self.sagittal.studies):
            places[study].append(place)
        return {study: np.array(rows) for study, rows in places.items()}

    def read(self, study_ids: Sequence[str]) -> Iterator[StudyGrids]:
        """Yield the grids of studies, in that order; one without sagittal series has none.

        Raises
        ------
        CorruptStore
            As `Store.tokens`.
        """
        own = self._rows_of_study
        row_bytes = 4 * int(np.prod(self.identity.arrays[TOKENS].row_shape))
        together: list[str] = []
        size = 0
        for study in study_ids:
            together.append(study)
            size += row_bytes * len(own.get(study, ()))
            if size >= _TOGETHER_BYTES:
                yield from self._read_together(together)
                together, size = [], 0
        yield from self._read_together(together)

    def _read_together(self, study_ids: Sequence[str]) -> Iterator[StudyGrids]:
        found, own = self.sagittal, self._rows_of_study
        wanted = [own[study] for study in study_ids if study in own]
        values = None
        if wanted:
            image_ids: list[str] = self.store.image_ids[found.rows[np.concatenate(wanted)]].tolist()
            values = self.store.tokens(image_ids).values
        start = 0
        for study in study_ids:
            if study not in own or values is None:
                yield StudyGrids(study, ())
                continue
            chosen = own[study]
            yield grids_of_study(study, found, chosen, values[start : start + len(chosen)])
            start += len(chosen)


def _kinds(table: pa.Table) -> npt.NDArray[np.object_]:
    empty = [None] * table.num_rows
    described = (
        table.column("series_description").to_pylist()
        if "series_description" in table.column_names
        else empty
    )
    echoes = table.column("echo_time_ms").to_pylist() if "echo_time_ms" in table.column_names else empty
    known: dict[tuple[Any, Any], str | None] = {}
    kinds = [
        known[pair] if pair in known else known.setdefault(pair, kind_of_series(*pair))
        for pair in zip(described, echoes, strict=True)
    ]
    return np.array(kinds, object)
