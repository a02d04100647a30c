"""Labels of rows -> one label per study, image or other unit, or a refusal that names who disagrees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.manifest import Manifest
from embedstore.task import id_columns, unit_id_of, unit_key, units_in_words

_SHOWN_UNITS = 5
_SHOWN_ROWS = 3


@dataclass(frozen=True)
class Units:
    """The units of a manifest.

    Parameters
    ----------
    unit
        What they are, as `embedstore.task.Task.unit`.
    names
        Id of each unit, in order of first appearance.
    columns
        The columns of a label table that hold the ids.
    of_row
        int64, (rows,): number of each row's unit, -1 for a row that belongs to none.
    """

    unit: str
    names: Sequence[str]
    columns: pa.Table
    of_row: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowLabels:
    """Labels of a table's rows.

    Parameters
    ----------
    column
        What was read, for messages: the label column or the name of the group.
    targets
        Names of the targets.
    classes
        Name of each code.
    codes
        int16, (rows, targets): number of the class, -1 where there is no label.
    """

    column: str
    targets: tuple[str, ...]
    classes: tuple[str, ...]
    codes: npt.NDArray[np.int16]


def units_of(
    manifest: Manifest, unit: str | None, *, labelled: npt.NDArray[np.bool_], where: Callable[[int], str]
) -> Units:
    """Return the units of a manifest: those of `unit`, else studies where every labelled row has one, else images.

    Parameters
    ----------
    manifest
        The records.
    unit
        As `embedstore.task.Task.unit`, or None.
    labelled
        bool, (rows,): whether a row has any label.
    where
        Row -> its place, for messages.

    Raises
    ------
    DataError
        If `unit` is None and only some of the labelled rows have a study.
    UsageError
        If the manifest lacks a column of `unit`, or no row has a value there.
    """
    if unit is None:
        unit = _usual_unit(manifest, labelled, where)
    key, columns = unit_key(unit), id_columns(unit)
    if absent := [column for column in key if column not in manifest.table.column_names]:
        hint = did_you_mean(absent[0], manifest.table.column_names)
        raise UsageError(f"`unit={unit}` needs the column {absent[0]!r}, which the table does not have{hint}")
    cells = [manifest.table.column(column).cast(pa.string()).to_pylist() for column in key]
    ids = cells[0] if len(key) == 1 else [unit_id_of(key, row) or None for row in zip(*cells, strict=True)]
    encoded = pa.array(ids, pa.string()).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    if not names:
        raise UsageError(f"`unit={unit}` needs values in {', '.join(key)}; found empty cells only")
    of_row = np.asarray(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
    first = np.unique(of_row[of_row >= 0], return_index=True)[1]
    rows = np.flatnonzero(of_row >= 0)[first]
    held = {
        column: pa.array([own[row] for row in rows], pa.string())
        for column, own in zip(columns, cells, strict=True)
    }
    return Units(unit, names, pa.table(held), of_row)


def labels_of_units(labels: RowLabels, units: Units, *, where: Callable[[int], str]) -> npt.NDArray[np.int16]:
    """Return the label of each unit: that of its rows which have one.

    Parameters
    ----------
    labels
        Labels of the rows.
    units
        The units.
    where
        Row -> its place, for messages.

    Returns
    -------
    numpy.ndarray
        int16, (units, targets); -1 where no row has a label.

    Raises
    ------
    DataError
        If two rows of a unit have different labels.
    """
    if len(units.names) == len(labels.codes):
        return labels.codes
    rows = np.argsort(units.of_row, kind="stable")
    rows = rows[np.searchsorted(units.of_row[rows], 0) :]
    starts = np.searchsorted(units.of_row[rows], np.arange(len(units.names)))
    sorted_codes = labels.codes[rows]
    highest = np.maximum.reduceat(sorted_codes, starts, axis=0)
    unlabelled = np.int16(np.iinfo(np.int16).max)
    lowest = np.minimum.reduceat(np.where(sorted_codes < 0, unlabelled, sorted_codes), starts, axis=0)
    disagreeing = (highest >= 0) & (lowest < highest)
    if disagreeing.any():
        raise DataError(_disagreement(labels, units, disagreeing, where))
    return highest


def _usual_unit(manifest: Manifest, labelled: npt.NDArray[np.bool_], where: Callable[[int], str]) -> str:
    studies = manifest.table.column("study_id")
    if studies.null_count == len(studies):
        return "image"
    rows = np.flatnonzero(studies.is_null().to_numpy() & labelled)
    if len(rows):
        raise DataError(
            f"{where(int(rows[0]))}: study_id is empty, as on {len(rows):,} of {int(labelled.sum()):,} rows with a "
            "label, so labels per study would miss them. Fill it in, or say `unit='study'` to leave them without a "
            "label, or `unit='image'` to label each image"
        )
    return "study"


def _disagreement(
    labels: RowLabels, units: Units, disagreeing: npt.NDArray[np.bool_], where: Callable[[int], str]
) -> str:
    """Say which units have two labels, and on which rows."""
    bad = np.flatnonzero(disagreeing.any(axis=1))
    listed = []
    for unit in bad[:_SHOWN_UNITS]:
        target = int(np.flatnonzero(disagreeing[unit])[0])
        codes = labels.codes[:, target]
        rows_of = {
            labels.classes[code]: np.flatnonzero((units.of_row == unit) & (codes == code))
            for code in np.unique(codes[units.of_row == unit])
            if code >= 0
        }
        said = "; ".join(f"{label} on {_places(rows, where)}" for label, rows in rows_of.items())
        named = f"{labels.targets[target]}: " if len(labels.targets) > 1 else ""
        listed.append(f"{units.names[unit]!r} ({named}{said})")
    more = f" and {len(bad) - _SHOWN_UNITS:,} more" if len(bad) > _SHOWN_UNITS else ""
    place = where(0).rpartition(": ")[0]
    return (
        f"{place}: label {labels.column!r}: {len(bad):,} of {len(units.names):,} {units_in_words(units.unit)} have "
        f"different labels on their rows: {', '.join(listed)}{more}. Mend these cells, or say `unit='image'` to "
        "label each image by itself"
    )


def _places(rows: npt.NDArray[np.int64], where: Callable[[int], str]) -> str:
    shown = ", ".join(where(int(row)).rpartition(": ")[2] for row in rows[:_SHOWN_ROWS])
    return shown + (f" and {len(rows) - _SHOWN_ROWS:,} more" if len(rows) > _SHOWN_ROWS else "")
