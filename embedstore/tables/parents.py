"""Ids that are unique only within their parent: study1 in every patient, series 1 in every study."""

from __future__ import annotations

from collections.abc import Set

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import DataError
from embedstore.tables.cell_rules import CellRules, about
from embedstore.tables.remarks import Remark, counted
from embedstore.tables.rows import Rows

# From this share of (parent, id) pairs on whose id other parents have too, ids are a numbering and no typing error.
_NUMBERING = 0.5
_SHOWN = 3


def join_within_parent(
    rows: Rows, name: str, parent: str, rules: CellRules, *, always: bool = False, column: str = ""
) -> Rows:
    """Return the rows with ids as ``parent/id`` where each parent numbers its own, as study1 in every patient.

    At least half of the ids (each counted once per parent) are shared by several parents in such a table. Where fewer
    are, most ids name one thing each and the shared ones are more likely typing errors, so that they are refused.

    Parameters
    ----------
    rows
        The table, its ids read by `embedstore.tables.id_rules.read_ids`.
    name, parent
        The column of the ids and that of their parents.
    rules
        A column in `CellRules.as_written` is left as it is.
    always
        Join, whatever the share is.
    column
        The manifest's name of the column, for the advice; `name` by default.

    Raises
    ------
    DataError
        If a few ids are shared, or the parent of a numbered id is missing; with the first rows.
    """
    if name in rules.as_written:
        return rows
    pairs = pa.table({"id": rows.column(name), "parent": rows.column(parent)})
    counts = pairs.group_by(["id", "parent"]).aggregate([([], "count_all")])
    counts = counts.filter(pc.and_(counts.column("id").is_valid(), counts.column("parent").is_valid()))
    parents = counts.group_by("id").aggregate([("parent", "count")])
    shared = parents.filter(pc.greater(parents.column("parent_count"), 1)).column("id").combine_chunks()
    if not len(shared) and not always:
        return rows
    sharing = counts.filter(pc.is_in(counts.column("id"), value_set=shared))
    if not always and len(sharing) < _NUMBERING * len(counts):
        raise _shared_by_few(rows, name, parent, sharing, column or name)
    joined = pc.binary_join_element_wise(rows.column(parent), rows.column(name), "/")
    orphan = pc.and_(rows.column(name).is_valid(), rows.column(parent).is_null())
    if orphans := int(pc.sum(orphan).as_py() or 0):
        first = pc.index(orphan, True).as_py()
        raise DataError(
            f"{rows.where(first)}: column {name!r} numbers anew within each {parent}, and {counted(orphans, 'row')}, "
            f"this the first, have no {parent}. Fill it in, or leave {name} empty there too."
        )
    example = joined[pc.index(rows.column(name).is_valid(), True).as_py()].as_py()
    words = f"{counted(len(parents), 'id')} numbered anew within {parent}, joined with it as {example!r}"
    return rows.with_column(name, joined, Remark(about(name), words))


def ids_as_known(rows: Rows, name: str, parent: str, known: Set[str], rules: CellRules) -> Rows:
    """Return the rows with ids joined with their parents' where that makes more of them known, as a store has them.

    Parameters
    ----------
    rows
        A table of labels, its ids read by `embedstore.tables.id_rules.read_ids`.
    name, parent
        The column of the ids and that of their parents; without the latter nothing is joined.
    known
        The ids that a store has.
    rules
        A column in `CellRules.as_written` is left as it is.
    """
    if parent not in rows.table.column_names or name in rules.as_written or not known:
        return rows
    joined = pc.binary_join_element_wise(rows.column(parent), rows.column(name), "/")
    there = pa.array(sorted(known), pa.string())
    before, after = (
        pc.sum(pc.is_in(ids, value_set=there)).as_py() or 0 for ids in (rows.column(name), joined)
    )
    if after <= before:
        return rows
    words = f"{counted(after, 'id')} joined with {parent}, as the store has them"
    return rows.with_column(name, joined, Remark(about(name), words))


def _shared_by_few(rows: Rows, name: str, parent: str, sharing: pa.Table, column: str) -> DataError:
    groups: dict[str, dict[str, int]] = {}
    for entry in sharing.to_pylist():
        groups.setdefault(entry["id"], {})[entry["parent"]] = entry["count_all"]
    shown = "; ".join(
        f"{shared!r} of " + _owners(rows, name, parent, shared, owners) for shared, owners in _first(groups)
    )
    more = f"; and {len(groups) - _SHOWN:,} more" if len(groups) > _SHOWN else ""
    return DataError(
        f"{rows.path}: column {name!r} has {counted(len(groups), 'id')} with several {parent}, while most have one: "
        f"{shown}{more}. Correct the rows; or say that {name} is numbered anew within each {parent} by `within_parent` "
        f"{column}, or that the ids are right by `as_written` {name}."
    )


def _first(groups: dict[str, dict[str, int]]) -> list[tuple[str, dict[str, int]]]:
    return sorted(groups.items())[:_SHOWN]


def _owners(rows: Rows, name: str, parent: str, shared: str, owners: dict[str, int]) -> str:
    """Name the parents of an id with their rows, and where the rarest of them stands."""
    ordered = sorted(owners.items(), key=lambda owner: (-owner[1], owner[0]))
    words = [f"{owner!r} ({counted(count, 'row')})" for owner, count in ordered[:_SHOWN]]
    rarest = ordered[-1][0]
    row = pc.index(
        pc.and_(pc.equal(rows.column(name), shared), pc.equal(rows.column(parent), rarest)), True
    ).as_py()
    more = f" and {len(ordered) - _SHOWN:,} more" if len(ordered) > _SHOWN else ""
    return f"{' and '.join(words)}{more}, {rarest!r} on {rows.place_of(row)}"
