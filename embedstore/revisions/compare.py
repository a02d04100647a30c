"""What a data set says of a store's rows today, against what the store's manifests say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.files import is_same_file
from embedstore.manifest import CROP_COLUMNS, FIXED_COLUMNS, Manifest, path_from_manifest
from embedstore.revisions.series import is_slice, with_whole_series
from embedstore.store.part_reader import PENDING, Part
from embedstore.store.reader import Store

# Columns that decide which image a vector is of, or how it is shown; `CROP_COLUMNS` say which part of it.
PIXEL_COLUMNS = ("frame", "modality", "series_id")


@dataclass(frozen=True, eq=False)
class PartChanges:
    """What changed in one part.

    Parameters
    ----------
    part
        The part as it is.
    table
        Its manifest as the data set has it today; rows that the data set no longer has keep theirs.
    columns
        Column -> rows, ascending, whose cell is another.
    added, dropped
        Columns that only the data set, and only the store, has.
    root
        Folder of the data set's paths, by which a file that only moved is known; None where nobody can look.
    stale
        Row of the part -> why what was made of its image no longer holds; `own`, and the slices of their series.
    """

    part: Part
    table: pa.Table
    columns: Mapping[str, npt.NDArray[np.int64]]
    added: tuple[str, ...]
    dropped: tuple[str, ...]
    root: Path | None = None
    stale: Mapping[int, str] = field(default_factory=dict)

    @property
    def is_revision(self) -> bool:
        """Whether the manifest changes."""
        return bool(self.columns or self.added or self.dropped)

    @cached_property
    def own(self) -> dict[int, str]:
        """By row of the part, why what was made of the image no longer holds: of finished rows alone."""
        finished = self.part.status() != PENDING
        moved = {
            int(row): "the crop lies elsewhere in its image"
            for name in CROP_COLUMNS
            for row in self.columns.get(name, ())
            if finished[row]
        }
        return moved | self.other_image

    @cached_property
    def other_image(self) -> dict[int, str]:
        """Those of `own` whose image is another one, or is shown otherwise, which concerns the others of its series."""
        finished = self.part.status() != PENDING
        old, new = self.part.manifest.table, self.table
        reasons: dict[int, str] = {}
        in_series = np.asarray(pc.or_(is_slice(old), is_slice(new)))
        for name in PIXEL_COLUMNS:
            asked = finished & in_series if name == "series_id" else finished
            rows = [int(row) for row in self.columns.get(name, ()) if asked[row] and row not in reasons]
            before, after = (
                table.column(name).take(pa.array(rows, pa.int64())).to_pylist() for table in (old, new)
            )
            for row, was, now in zip(rows, before, after, strict=True):
                if (was or "") == (now or ""):  # no frame is the first
                    continue
                # Names of series are identifiers: they are not repeated.
                detail = f" was {was}, is {now}" if name != "series_id" else " changed"
                reasons[row] = f"the data set's {name}{detail}"
        for row in map(int, self.columns.get("path", ())):
            if finished[row] and not self._is_moved(row):
                reasons.setdefault(row, "the data set names another file")
        return reasons

    def _is_moved(self, row: int) -> bool:
        """Whether the file that the data set names holds what was read under another name."""
        if self.root is None:
            return False
        receipt = self.part.receipts[row // self.part.plan.chunk_rows]
        before = receipt.files[row - receipt.start]
        named = self.table.column("path")[row].as_py()
        if named is None:  # hidden from now on
            return True
        path = str(path_from_manifest(self.root, named))
        return before is not None and is_same_file(path, before)


def changes_of(store: Store, wanted: Manifest, root: Path | None = None) -> list[PartChanges]:
    """Return what a data set changes in the parts that hold its records, in store order; nothing where all agree.

    Parameters
    ----------
    store
        The store.
    wanted
        The data set's records; those that the store lacks do not matter here.
    root
        Folder of the data set's paths; without it, a row whose path changed is computed again.
    """
    ids = wanted.table.column("image_id").combine_chunks()
    found = []
    for part in store.parts:
        row_of_wanted = pc.index_in(part.image_id_table().column("image_id").combine_chunks(), value_set=ids)
        if row_of_wanted.null_count < len(row_of_wanted):
            changes = _changes(part, wanted.table, row_of_wanted)
            if changes is not None:
                found.append(replace(changes, root=root))
    return _with_stale_rows(store, found)


def _with_stale_rows(store: Store, found: list[PartChanges]) -> list[PartChanges]:
    own = {entry.part.plan.number: entry.own for entry in found}
    if not any(own.values()):
        return found
    concerned = {entry.part.plan.number: entry.other_image for entry in found}
    stale = with_whole_series(store, concerned, {entry.part.plan.number: entry.table for entry in found})
    for number, reasons in own.items():
        if reasons:
            stale[number] = reasons | stale.get(number, {})
    known = {entry.part.plan.number: entry for entry in found}
    others = {
        part.plan.number: PartChanges(part, part.manifest.table, {}, (), ())
        for part in store.parts
        if part.plan.number in stale and part.plan.number not in known
    }
    entries = sorted((known | others).items())
    return [replace(entry, stale=stale.get(number, {})) for number, entry in entries]


def _changes(part: Part, wanted: pa.Table, row_of_wanted: pa.Array) -> PartChanges | None:
    held = part.manifest.table
    known = np.asarray(pc.is_valid(row_of_wanted))
    taken = wanted.take(row_of_wanted)  # a row of nulls where the data set lacks the image
    everything = bool(known.all())
    columns: dict[str, npt.NDArray[np.int64]] = {}
    cells: dict[str, pa.ChunkedArray] = {}
    for name in dict.fromkeys([*held.column_names, *wanted.column_names]):
        if name not in wanted.column_names:
            if not everything:
                cells[name] = _kept_where(~known, held.column(name))
            continue
        if name not in held.column_names:
            cells[name] = taken.column(name)
            continue
        old, new = held.column(name), taken.column(name)
        if old.type != new.type:
            old, new = _of_one_type(name, old, new)
        differs = known & _differ(old, new)
        cells[name] = new if everything else pc.if_else(pa.array(known), new, old)
        if differs.any():
            columns[name] = np.flatnonzero(differs)
    added = tuple(name for name in wanted.column_names if name not in held.column_names)
    dropped = tuple(
        name
        for name in held.column_names
        if name not in wanted.column_names and _says_something(held, name, known)
    )
    if not columns and not added and not dropped:
        return None
    return PartChanges(part, pa.table(cells).combine_chunks(), columns, added, dropped)


def _differ(old: pa.ChunkedArray, new: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    unequal = pc.fill_null(pc.not_equal(old, new), False)
    if pa.types.is_floating(old.type):  # NaN is NaN
        unequal = pc.and_(unequal, pc.invert(pc.and_(_is_nan(old), _is_nan(new))))
    one_is_empty = pc.xor(pc.is_null(old), pc.is_null(new))
    return np.asarray(pc.or_(unequal, one_is_empty))


def _is_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.is_nan(column), False)


def _of_one_type(
    name: str, old: pa.ChunkedArray, new: pa.ChunkedArray
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Bring both to the data set's type where the store's cells have one in it, else to text."""
    for kind in (FIXED_COLUMNS.get(name, new.type), pa.string()):
        try:
            return old.cast(kind), new.cast(kind)
        except pa.ArrowInvalid:
            continue
    raise AssertionError(f"column {name!r} of {old.type} and {new.type} has no text")


def _kept_where(rows: npt.NDArray[np.bool_], column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pa.array(rows), column, pa.scalar(None, column.type))


def _says_something(held: pa.Table, name: str, known: npt.NDArray[np.bool_]) -> bool:
    """Whether a column that the data set lacks has cells for its images: else nothing is lost with it."""
    return bool(pc.any(pc.and_(pa.array(known), pc.is_valid(held.column(name)))).as_py())


def lines_of(changes: list[PartChanges]) -> Iterator[str]:
    """Yield a line for people of each column that differs, counted over all parts."""
    counts: dict[str, int] = {}
    for entry in changes:
        for name, rows in entry.columns.items():
            counts[name] = counts.get(name, 0) + len(rows)
    for name, changed in counts.items():
        yield f"{name}: {changed:,} row{'' if changed == 1 else 's'} changed"
    for word, attribute in (("new column", "added"), ("column that the data set no longer has", "dropped")):
        names = dict.fromkeys(name for entry in changes for name in getattr(entry, attribute))
        if names:
            yield f"{word}{'' if len(names) == 1 or 'that' in word else 's'}: {', '.join(names)}"
