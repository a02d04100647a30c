"""Leave out records by a column of the manifest, before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from embedstore.datasets.base import Collection
from embedstore.datasets.folder_summary import count_records
from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.keys.keyed_ids import CLINICAL_IDS

_VALUES_APART = "\\"  # DICOM's own separator of the values of one attribute


@dataclass(frozen=True)
class Condition:
    """What a record must be, or must not be.

    Parameters
    ----------
    column
        A column of the manifest.
    value
        What the cell must say; ``""`` for an empty one. A cell of several values, as `image_type`, says each of
        them and all of them together; a number may be written with or without decimals.
    wanted
        False where a record that says so is left out.
    """

    column: str
    value: str
    wanted: bool = True

    def __str__(self) -> str:
        return f"{self.column}{'=' if self.wanted else '!='}{self.value}"

    def holds(self, cell: Any) -> bool:
        """Return whether a cell fulfils the condition."""
        return self._says(cell) == self.wanted

    def _says(self, cell: Any) -> bool:
        if cell is None:
            return self.value == ""
        if isinstance(cell, str):
            return self.value == cell or self.value in cell.split(_VALUES_APART)
        try:
            return float(self.value) == float(cell)
        except ValueError:
            return False


def parse_conditions(texts: Sequence[str]) -> tuple[Condition, ...]:
    """Turn ``["modality=CT", "image_type!=LOCALIZER"]`` into conditions.

    Raises
    ------
    UsageError
        If a text is neither ``COLUMN=VALUE`` nor ``COLUMN!=VALUE``.
    """
    conditions = []
    for text in texts:
        column, equals, value = text.partition("=")
        wanted = not column.endswith("!")
        if not equals or not column.rstrip("!"):
            raise UsageError(f"`where` takes COLUMN=VALUE or COLUMN!=VALUE; found {text!r}")
        conditions.append(Condition(column if wanted else column[:-1], value, wanted))
    return tuple(conditions)


def _of_pseudonym(condition: Condition, collection: Collection, names: Sequence[str]) -> Condition:
    """Return a condition on a clinical id (``PatientID=4711``) as one on the digest that stands for it."""
    spelled = {attribute.lower(): named for attribute, named in CLINICAL_IDS.items()}
    if condition.column in names or condition.column.lower() not in spelled or collection.key is None:
        return condition
    level, column = spelled[condition.column.lower()]
    return replace(condition, column=column, value=collection.key.id_of(level, condition.value))


def select_records(collection: Collection, conditions: Sequence[Condition]) -> Collection:
    """Return the collection with the records that fulfil every condition; the summary says how many did not.

    Raises
    ------
    UsageError
        If the manifest has no such column.
    DataError
        If no record is left.
    """
    if not conditions:
        return collection
    manifest, left_out = collection.manifest, {}
    for asked in conditions:
        names = manifest.table.column_names
        condition = _of_pseudonym(asked, collection, names)
        if condition.column not in names:
            raise UsageError(
                f"`where`: the data set has no column {condition.column!r}; it has {', '.join(names)}"
                f"{did_you_mean(condition.column, names)}"
            )
        cells = manifest.column(condition.column)
        kept = replace(
            manifest,
            table=manifest.table.filter(pa.array([condition.holds(cell) for cell in cells], pa.bool_())),
        )
        if not len(kept):
            seen = sorted({"" if cell is None else str(cell) for cell in cells})[:5]
            raise DataError(
                f"`where` {condition} leaves none of {len(manifest):,} images; the column holds, for example, "
                f"{', '.join(repr(value) for value in seen)}"
            )
        left_out[f"left out by {condition}"] = len(manifest) - len(kept)
        manifest = kept
    counted = count_records(collection.manifest)
    rest = {name: fact for name, fact in collection.summary.items() if name not in counted}
    whole = {"images of the data set": len(collection.manifest)}
    return replace(collection, manifest=manifest, summary=count_records(manifest) | left_out | whole | rest)
