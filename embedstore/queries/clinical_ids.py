"""Asks a store with pseudonyms by what its owner knows: PatientID, accession number, UIDs of study and image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa

from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.files import StrPath
from embedstore.keys.key_file import Key
from embedstore.keys.keyed_ids import CLINICAL_IDS
from embedstore.queries.conditions import Condition
from embedstore.queries.image_files import require_key_of
from embedstore.store.reader import Store
from embedstore.tables.rows import Rows, as_text
from embedstore.task import unit_key

_LEVELS = {column: level for level, column in CLINICAL_IDS.values()}
_ATTRIBUTE_OF = {column: attribute for attribute, (_, column) in CLINICAL_IDS.items()}
_BY = ", ".join(CLINICAL_IDS)
_SHOWN = 3


def has_pseudonyms(store: Store) -> bool:
    """Whether a part of the store was made with a key."""
    return any(part.plan.key_fingerprint for part in store.parts)


def hint_of_keys(store: Store, key_file: StrPath | None = None) -> str:
    """Return how to ask by clinical ids, for the end of a message; ``""`` for a store without pseudonyms."""
    if not has_pseudonyms(store):
        return ""
    if key_file is not None:
        return f". Nor has it the digests that {key_file} makes of them: `by` says what the ids are ({_BY})"
    return f". Its ids are keyed digests: give `key_file`, and `by` what the ids are ({_BY})"


def parse_by(text: str) -> tuple[str, str | None]:
    """Return the DICOM attribute that ``StudyInstanceUID`` or ``AccessionNumber=Auftrag`` names, and the column.

    Raises
    ------
    UsageError
        For another attribute.
    """
    name, _, column = text.partition("=")
    spelled = {attribute.lower(): attribute for attribute in CLINICAL_IDS}
    if name.strip().lower() not in spelled:
        raise UsageError(f"`by` must be one of {_BY}; found {name!r}{did_you_mean(name, CLINICAL_IDS)}")
    return spelled[name.strip().lower()], column or None


@dataclass(frozen=True)
class ClinicalIds:
    """Turns clinical ids into those of a store.

    Parameters
    ----------
    store
        The store.
    key
        Its key; None where only the store's own ids are understood.

    Raises
    ------
    DataError
        If the key is another than that of a part.
    """

    store: Store
    key: Key | None = None

    def __post_init__(self) -> None:
        if self.key is not None:
            require_key_of([self.store], self.key)

    def image_id(self, text: str, by: str | None = None) -> str:
        """Return the store's id of an image.

        Parameters
        ----------
        text
            The store's own id, or a clinical one; ``UID#3`` is frame 3 of an image.
        by
            DICOM attribute that `text` is a value of; SOPInstanceUID by default.

        Raises
        ------
        DataError
            If no image of the store, or more than one, has this clinical id.
        """
        if by is None and (
            text in self.store.row_of or (self.key is None and not has_pseudonyms(self.store))
        ):
            return text
        if by is None and self.key is None:
            raise DataError(f"store {self.store.path} has no image {text!r}{hint_of_keys(self.store)}")
        attribute = parse_by(by)[0] if by else "SOPInstanceUID"
        found = self._images(text, attribute)
        if len(found) > 1:
            raise DataError(
                f"{attribute} names {len(found):,} images of store {self.store.path}: {', '.join(found[:_SHOWN])}"
                f"{', ...' if len(found) > _SHOWN else ''}. Give one of these ids, or `by`=SOPInstanceUID"
            )
        return found[0]

    def unit_ids(self, texts: Sequence[str], by: str | None = None) -> list[str]:
        """Return the store's ids of units or images, in place of clinical ones.

        Parameters
        ----------
        texts
            The store's own ids, or clinical ones: of patients, studies or orders all their images.
        by
            DICOM attribute that they are values of. Without it an id that the key turns into a study or an image of the
            store is a StudyInstanceUID or SOPInstanceUID, and any other is taken as it is.

        Raises
        ------
        DataError
            If no image of the store has such a clinical id.
        UsageError
            If `by` is given without a key.
        """
        if by is not None and self.key is None:
            raise UsageError(f"`by`={by} needs the key of the store's ids: `key_file`")
        found: list[str] = []
        for text in texts:
            if by is not None:
                found += self._images(text, parse_by(by)[0])
            elif self.key is None or text in self.store.row_of:
                found.append(text)
            else:
                named = (self._found(text, attribute) for attribute in ("StudyInstanceUID", "SOPInstanceUID"))
                found += next((image_ids for image_ids in named if image_ids), [text])
        return found

    def _images(self, text: str, attribute: str) -> Sequence[str]:
        """Return the ids of the images with a clinical id; raises DataError where there are none."""
        found = self._found(text, attribute)
        if not found:
            raise DataError(
                f"no image of store {self.store.path} has this {attribute}; its key makes "
                f"{self._keyed(attribute, text)} of it"
            )
        return found

    def _found(self, text: str, attribute: str) -> Sequence[str]:
        column, wanted = CLINICAL_IDS[attribute][1], self._keyed(attribute, text)
        if column == "image_id":
            return [wanted] if wanted in self.store.row_of else []
        return self._values(column, "image_id").get(wanted, [])

    def where(self, conditions: Sequence[Condition]) -> tuple[Condition, ...]:
        """Return conditions on the manifest's columns in place of those on clinical ids.

        Raises
        ------
        UsageError
            If a condition names a clinical id and there is no key.
        """
        return tuple(map(self._condition, conditions))

    def rows(self, rows: Rows, *, unit: str, by: str | None, targets: Sequence[str]) -> Rows:
        """Return a table of labels with the store's ids in place of clinical ones, and nothing that names somebody.

        Parameters
        ----------
        rows
            The table.
        unit
            What a row labels, as `embedstore.task.Task.unit`. A row whose patient, series or order has several of
            them labels each.
        by
            As `parse_by`; by default the ids of `unit` are clinical ones where they are not the store's own.
        targets
            The label columns, if they are named.

        Raises
        ------
        DataError
            If the column is not there, or whom the table means cannot be told.
        UsageError
            If a key is needed and not given, or it is open which columns are labels.
        """
        if by is not None and self.key is None:
            raise UsageError(f"`by`={by} needs the key of the store's ids: `key_file`")
        key = unit_key(unit)
        own = [column for column in key if column in _LEVELS]
        if by is not None and len(own) != 1:
            raise UsageError(f"`by` needs a unit with one of {', '.join(_LEVELS)} in it; found {unit!r}")
        if not own or not (has_pseudonyms(self.store) or by):
            return rows
        attribute, named = parse_by(by) if by else (_ATTRIBUTE_OF[own[0]], own[0])
        source = self._source(rows, attribute, own[0], named, by)
        kept = _without_ids(rows, source, key, targets)
        if self.key is None:
            return replace(rows, table=rows.table.select([source, *kept]).rename_columns([own[0], *kept]))
        return self._translated(rows, kept, attribute, source, own[0], alone=len(key) == 1)

    def _translated(
        self, rows: Rows, kept: Sequence[str], attribute: str, source: str, column: str, *, alone: bool
    ) -> Rows:
        values = self._values(CLINICAL_IDS[attribute][1], column)
        chosen: list[tuple[int, str | None]] = []
        for row, cell in enumerate(rows.columns[source]):
            text = as_text(cell)
            if text is None or text in values:
                units: Sequence[str | None] = values[text] if text else [None]
            else:
                wanted = self._keyed(attribute, text)
                units = values.get(wanted, [wanted])
            chosen += [(row, unit) for unit in units]
        if alone:
            _require_once(rows, chosen, kept, source, column)
        taken = rows.take(pa.array([row for row, _ in chosen], pa.int64()))
        names = pa.array([unit for _, unit in chosen], pa.string())
        return replace(taken, table=taken.table.select(kept).add_column(0, column, names))

    def _source(self, rows: Rows, attribute: str, own: str, named: str | None, by: str | None) -> str:
        """Return the column of the table that holds the ids."""
        spelled = {name.lower(): name for name in rows.columns}
        if by is not None:
            wanted = (named,) if named else (attribute, own)
        else:
            # Without a key a clinical id leads nowhere.
            wanted = (own,) if self.key is None else (own, attribute)
        for name in wanted:
            if name.lower() in spelled:
                return spelled[name.lower()]
        there = [name for name in CLINICAL_IDS if name.lower() in spelled]
        if by is None and there:
            raise DataError(
                f"{rows.path}: needs the column {own!r}, and the store's ids are keyed digests: give `key_file`, and "
                f"`by` the one of {', '.join(there)} that a row is about"
            )
        raise DataError(
            f"{rows.path}: needs the column {named or attribute!r}; found {', '.join(rows.columns)}"
            f"{did_you_mean(named or attribute, rows.columns)}. `by`={attribute}=COLUMN names another"
        )

    def _condition(self, condition: Condition) -> Condition:
        if condition.operator == "~" and condition.column in self.store.table.column_names:
            return condition
        if condition.operator == "~":
            raise UsageError(
                f"`where` {condition}: a part of a clinical id finds nothing among keyed ones; give it whole"
            )
        pairs = [self._translated_pair(condition.column, value) for value in condition.values]
        return replace(condition, column=pairs[0][0], values=tuple(value for _, value in pairs))

    def _translated_pair(self, name: str, value: str) -> tuple[str, str]:
        names = self.store.table.column_names
        spelled = {attribute.lower(): attribute for attribute in CLINICAL_IDS}
        attribute = spelled.get(name.lower()) if name not in names else None
        if attribute is not None:
            return CLINICAL_IDS[attribute][1], self._keyed(attribute, value)
        if self.key is None or name not in _LEVELS or value in self._values(name, name):
            return name, value
        keyed = self._keyed(_ATTRIBUTE_OF[name], value)
        return name, keyed if keyed in self._values(name, name) else value

    def _keyed(self, attribute: str, text: str) -> str:
        if self.key is None:
            raise UsageError(f"{attribute} is not in the store, only a keyed digest of it: give `key_file`")
        level = CLINICAL_IDS[attribute][0]
        frame = re.fullmatch(r"(.+)#([1-9]\d{0,8})", text) if level == "image" else None
        return f"{self.key.id_of(level, frame[1])}#{frame[2]}" if frame else self.key.id_of(level, text)

    def _values(self, column: str, wanted: str) -> dict[str, list[str]]:
        """Return the values of the column `wanted` of the images with each value of another column, each once."""
        return (
            self._known[column, wanted] if (column, wanted) in self._known else self._look_up(column, wanted)
        )

    def _look_up(self, column: str, wanted: str) -> dict[str, list[str]]:
        table, found = self.store.table, {}
        if {column, wanted} <= set(table.column_names):
            cells = zip(table.column(column).to_pylist(), table.column(wanted).to_pylist(), strict=True)
            ordered: dict[str, dict[str, None]] = {}
            for name, value in cells:
                # All frames of a file have its UID.
                base = name.partition("#")[0] if column == "image_id" and column == wanted and name else name
                if base is not None and value is not None:
                    ordered.setdefault(str(base), {})[str(value)] = None
            found = {name: list(values) for name, values in ordered.items()}
        self._known[column, wanted] = found
        return found

    @cached_property
    def _known(self) -> dict[tuple[str, str], dict[str, list[str]]]:
        return {}


def _without_ids(rows: Rows, source: str, key: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Return the columns of labels, and of the unit beside its id; it must be clear which these are."""
    clinical = {name.lower() for name in (*CLINICAL_IDS, *_LEVELS)}
    if wrong := [name for name in targets if name.lower() in clinical]:
        raise UsageError(f"`targets`: {wrong[0]!r} says who a patient is; it must not become a label")
    others = [
        name for name in rows.columns if name != source and name not in key and name.lower() not in clinical
    ]
    if not targets and len(others) > 1:
        raise UsageError(
            f"{rows.path}: which of {', '.join(others)} are labels? Name them (`targets`): whatever is none stays out "
            "of the store"
        )
    wanted = {*(name for name in key if name not in _LEVELS), *(targets or others)} - {source}
    return [name for name in rows.columns if name in wanted]


def _require_once(
    rows: Rows, chosen: Sequence[tuple[int, str | None]], kept: Sequence[str], source: str, column: str
) -> None:
    """Refuse two rows for one unit, in the words of the table: its owner cannot read the store's ids."""
    first: dict[str, int] = {}
    for row, unit in chosen:
        if unit is None or first.setdefault(unit, row) == row:
            continue
        before = first[unit]
        if all(rows.columns[name][row] == rows.columns[name][before] for name in kept):
            continue
        one, other = (as_text(rows.columns[source][at]) for at in (before, row))
        same = f"{source} {other!r}" if one == other else f"{source} {one!r} and {other!r}, which are one,"
        raise DataError(
            f"{rows.where(row)}: {same} stands twice, with other cells on {rows.places[before]}; a row labels every "
            f"{column} that its {source} has. Give each once, or name a column that tells the rows apart by `by`"
        )
