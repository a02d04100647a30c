"""Ids that are unique only within their parent: study1 of each patient, series 1 of each study, patient 1 of a site."""

from __future__ import annotations

import re
from collections.abc import Set

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import DataError
from embedstore.tables.cell_rules import CellRules, about
from embedstore.tables.remarks import Remark, counted, some_of
from embedstore.tables.rows import Rows

# From this share of (parent, id) pairs on whose id other parents have too, ids are a numbering and no typing error.
_NUMBERING = 0.5
_SHOWN = 3
# Words in the name of a column that says where patients come from, and of one that is the same for all of a patient.
_PLACES = frozenset(
    ("site", "sites", "center", "centre", "hospital", "clinic", "institution", "institute", "facility", "cohort",
     "source", "dataset", "country", "standort", "klinik", "krankenhaus", "zentrum")
)  # fmt: skip
_LASTING = frozenset(("sex", "gender", "geschlecht", "birthdate", "birthday", "birthyear", "birth", "dob"))
# From this share of patients of several places on whose sex or birth differs, they are different patients.
_DIFFERENT = 0.1


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


def join_patients_of_places(rows: Rows, name: str, rules: CellRules) -> Rows:
    """Return the rows with patients as ``place/id`` where `rules` say that each place numbers its own.

    Without that, patients of several places are taken as the same ones, which is said, and so are patients of two
    sexes or birthdays.

    Parameters
    ----------
    rows
        The table, its ids read by `embedstore.tables.id_rules.read_ids`.
    name
        The column of the patients.
    rules
        What the user decides; a column in `CellRules.as_written` is not asked.

    Raises
    ------
    DataError
        If at least half of the patients stand in several places, and these count from 1, or sex or birth differ.
    """
    if rules.patients_within is not None:
        return join_within_parent(rows, name, rules.patients_within, rules, always=True)
    if name in rules.as_written:
        return rows
    lasting = [other for other in rows.table.column_names if other != name and _words(other) & _LASTING]
    two = {other: _ids_of_several(rows, name, other) for other in lasting}
    for place in rows.table.column_names:
        if place == name or not _words(place) & _PLACES:
            continue
        pairs = rows.table.select([name, place]).group_by([name, place]).aggregate([]).drop_null()
        shared = _ids_of_several(rows, name, place)
        sharing = pairs.filter(pc.is_in(pairs.column(name), value_set=shared))
        if not len(shared) or len(sharing) < _NUMBERING * len(pairs):
            continue
        apart = [_count_in(ids, shared) for ids in two.values()]
        if max(apart, default=0) >= max(1, _DIFFERENT * len(shared)) or _count_from_one(pairs, name, place):
            raise _renumbered(rows, name, place, shared)
        words = (
            f"{counted(len(shared), 'id')} of several {place} taken as the same patients (`within_parent` "
            f"patient_id={place} if each {place} numbers its own)"
        )
        rows = rows.saying(Remark(about(name), words))
    said = [
        Remark(about(name), f"{counted(len(ids), 'id')} with several {other}, such as {ids[0].as_py()!r}")
        for other, ids in two.items()
        if len(ids)
    ]
    return rows.saying(*said)


def _words(name: str) -> set[str]:
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return set(re.split(r"[\W_]+", plain.casefold()))


def _ids_of_several(rows: Rows, name: str, other: str) -> pa.Array:
    """Return the ids that stand with several cells of another column."""
    pairs = rows.table.select([name, other]).group_by([name, other]).aggregate([]).drop_null()
    counts = pairs.group_by(name).aggregate([(other, "count")])
    several = pc.greater(counts.column(f"{other}_count"), 1)
    return counts.filter(several).column(name).combine_chunks()


def _count_in(ids: pa.Array, others: pa.Array) -> int:
    return int(pc.sum(pc.is_in(ids, value_set=others)).as_py() or 0)


def _count_from_one(pairs: pa.Table, name: str, place: str) -> bool:
    """Whether the ids of each place are 1, 2, 3, ... (or from 0), with the same letters in front everywhere."""
    ids = pairs.column(name)
    if not pc.all(pc.match_substring_regex(ids, r"^\D*[0-9]{1,9}$")).as_py():
        return False
    if len(pc.unique(pc.replace_substring_regex(ids, r"[0-9]+$", ""))) > 1:
        return False
    numbers = pc.replace_substring_regex(ids, r"^\D*", "").cast(pa.int64())
    of_place = pa.table({"number": numbers, "place": pairs.column(place)}).group_by("place")
    found = of_place.aggregate([("number", "min"), ("number", "max"), ("number", "count")])
    first, last, count = (found.column(f"number_{what}") for what in ("min", "max", "count"))
    run = pc.equal(pc.subtract(last, first), pc.subtract(count, 1))
    return bool(pc.all(pc.and_(run, pc.less_equal(first, 1))).as_py())


def _renumbered(rows: Rows, name: str, place: str, shared: pa.Array) -> DataError:
    chosen = rows.table.filter(pc.is_in(rows.column(name), value_set=shared[:1])).column(place)
    places = pc.unique(chosen.drop_null())
    return DataError(
        f"{rows.path}: column {name!r} has {counted(len(shared), 'id')} with several {place}, such as "
        f"{shared[0].as_py()!r} of {some_of(places.to_pylist())}: other patients, numbered anew within each {place}, "
        f"or the same ones? Say `within_parent` patient_id={place}, or `as_written` {name} if they are the same."
    )


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
