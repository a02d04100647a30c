"""Which column of a user's table is which of the manifest's, and their ids, paths and splits by one rule each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import DataError, did_you_mean
from embedstore.manifest import FIXED_COLUMNS, SPLITS, count_distinct
from embedstore.tables.cell_rules import CellRules, about, map_values, text_of
from embedstore.tables.id_rules import read_ids, require_one_spelling
from embedstore.tables.parents import join_patients_of_places, join_within_parent
from embedstore.tables.remarks import Remark, counted, some_of
from embedstore.tables.rows import Rows

_IDS = ("image_id", "patient_id", "study_id", "series_id")
_FILE_NAME = r"(?i)\.(png|jpe?g|dcm|dicom|tiff?|bmp|gif|webp|jp2)$"
_SPLIT_WORDS = {
    "training": "train",
    "val": "valid",
    "validate": "valid",
    "validation": "valid",
    "dev": "valid",
    "testing": "test",
}

# What a column is often called that holds what the manifest has under another name, without blanks and signs.
_LIKE = {
    "patient_id": (
        "subjectid", "subject", "patient", "patientnumber", "patientno", "participantid", "participant", "pid", "mrn",
        "case", "caseid", "personid",
    ),
    "study_id": ("studyinstanceuid", "studyuid", "study", "accessionnumber", "accession", "examid", "exam"),
    "split": ("set", "subset", "partition", "datasplit", "datasetsplit", "fold"),
}  # fmt: skip
_ROW = "\0row"
_SHOWN_CELLS = 3


def match_columns(
    rows: Rows, columns: Mapping[str, str], label: Sequence[str]
) -> tuple[Rows, dict[str, str]]:
    """Return the manifest's columns that the table has, each with the table's name for it.

    A name given in `columns` counts first, then the manifest's own, then one that differs from it in case, blanks,
    ``-`` and ``_`` only, as `Path` and `Patient ID` do, which is said.

    Raises
    ------
    DataError
        If the table lacks the path, a column that was named, or a label column.
    """
    for wanted in columns.values():
        require_column(rows, wanted, "the table")
    for wanted in label:
        require_column(rows, wanted, "label")
    taken = {*columns.values(), *label, *FIXED_COLUMNS}
    plain: dict[str, list[str]] = {}
    for name in rows.table.column_names:
        if name not in taken:
            plain.setdefault(_plain(name), []).append(name)
    found, said = {}, []
    for name in FIXED_COLUMNS:
        near = plain.get(_plain(name), [])
        own = columns.get(name, name)
        if own in rows.table.column_names:
            found[name] = own
        elif len(near) == 1:
            found[name] = near[0]
            said.append(f"{near[0]!r} as {name}")
    if "path" not in found:
        _require_path(rows)
    words = [Remark("columns", f"{', '.join(said)}")] if said else []
    return rows.saying(*words, *_not_taken(rows, found, taken)), found


def with_plain_names(rows: Rows, names: Sequence[str]) -> Rows:
    """Return the rows with columns of these names, where one differs from it in case, blanks and signs only."""
    for name in names:
        near = [own for own in rows.table.column_names if _plain(own) == _plain(name)]
        if name not in near and len(near) == 1:
            own = rows.table.column_names
            renamed = rows.table.rename_columns([name if column == near[0] else column for column in own])
            rows = replace(rows, table=renamed).saying(Remark("columns", f"{near[0]!r} as {name}"))
    return rows


def _not_taken(rows: Rows, found: Mapping[str, str], taken: set[str]) -> Iterator[Remark]:
    """Point out columns that seem to hold ids or splits which the table lacks under the manifest's names."""
    free = {_plain(name): name for name in rows.table.column_names if name not in {*taken, *found.values()}}
    for name, words in _LIKE.items():
        own = next((free[word] for word in words if word in free), None)
        if name not in found and own is not None:
            yield Remark("columns", f"no {name}; if {own!r} holds it: `column='{name}={own}'`")


def without_copies(rows: Rows, name: str) -> Rows:
    """Return the rows without those that equal an earlier one in every cell; a list of ids alone stays as it is.

    Parameters
    ----------
    name
        A column in which such rows are equal; where all its cells differ, no other is looked at.
    """
    if rows.table.num_columns < 2 or count_distinct(rows.column(name)) == len(rows):
        return rows
    names = rows.table.column_names
    numbered = rows.table.append_column(_ROW, pa.array(range(len(rows)), pa.int64()))
    first = numbered.group_by(names, use_threads=False).aggregate([(_ROW, "min")])
    kept = first.column(f"{_ROW}_min").combine_chunks()
    kept = kept.take(pc.sort_indices(kept))
    if len(kept) == len(rows):
        return rows
    words = f"{counted(len(rows) - len(kept), 'row')} left out, equal to an earlier one in every cell"
    return rows.take(kept).saying(Remark("table", words))


def _require_path(rows: Rows) -> None:
    """Refuse a table without the column ``path``; a column that seems to name the files is pointed out."""
    if did_you_mean("path", rows.table.column_names):
        require_column(rows, "path", "the table")
    for name in rows.table.column_names:
        cells = rows.column(name)
        if not pa.types.is_string(cells.type) or cells.null_count == len(cells):
            continue
        if pc.all(pc.match_substring_regex(cells, _FILE_NAME)).as_py():
            raise DataError(
                f"{rows.path}: the table needs the column 'path'; found {_listed(rows)}. If {name!r} names the files: "
                f"`column='path={name}'`"
            )
    require_column(rows, "path", "the table")


def require_column(rows: Rows, name: str, what: str) -> None:
    """Refuse a table without a column, naming those that it has."""
    if name in rows.table.column_names:
        return
    if name in rows.nested:
        hint = ". For lists of findings: `label_separator=','`" if what == "label" else ""
        raise DataError(
            f"{rows.path}: {what}: {name!r} must hold text or numbers; its cells are lists or structures{hint}"
        )
    names = rows.table.column_names
    hint = did_you_mean(name, names)
    if not hint and any(re.search(_FILE_NAME, own) for own in names):
        hint = ". The first line must name the columns"
    elif len(names) == 1 and re.search(rf"\W{re.escape(name)}\b|\b{re.escape(name)}\W", names[0]):
        hint = ". Cells must be separated by commas, semicolons, tabs or vertical bars"
    raise DataError(f"{rows.path}: {what} needs the column {name!r}; found {_listed(rows)}{hint}")


def read_id_columns(rows: Rows, own: Mapping[str, str], rules: CellRules) -> Rows:
    """Return the rows with their ids spelled by one rule, and joined with their parents' where these number anew.

    Parameters
    ----------
    own
        Manifest column -> the table's name for it.
    """
    for name in rules.as_written:
        require_column(rows, name, "as_written")
    for name in rules.within_parent:
        column, _, place = name.partition("=")
        require_column(rows, own.get(column, column), "within_parent")
        if place:
            require_column(rows, place, "within_parent")
    for name in _IDS:
        if name in own:
            rows = read_ids(rows, own[name], rules)
    patient, study, series = (own.get(name) for name in _IDS[1:])
    if patient:
        require_one_spelling(rows, patient, rules)
        rows = join_patients_of_places(rows, patient, rules)
    for name, child, parent in (("study_id", study, patient), ("series_id", series, study or patient)):
        if child:
            require_one_spelling(rows, child, rules, parent=parent)
        if child and parent:
            always = name in rules.within_parent
            rows = join_within_parent(rows, child, parent, rules, always=always, column=name)
    return rows


def join_image_ids(rows: Rows, own: Mapping[str, str], rules: CellRules) -> Rows:
    """Return the rows with image ids joined with the nearest parent's where they are unique only within it."""
    name = own.get("image_id")
    parent = next((own[kind] for kind in ("series_id", "study_id", "patient_id") if kind in own), None)
    if name is None or parent is None or name in rules.as_written:
        return rows
    ids, parents = rows.column(name), rows.column(parent)
    if ids.null_count or parents.null_count or count_distinct(ids) == len(ids):
        return rows
    joined = pc.binary_join_element_wise(parents, ids, "/")
    if count_distinct(joined) != len(ids):
        return rows
    words = (
        f"{counted(len(ids), 'id')} numbered anew within {parent}, joined with it as {joined[0].as_py()!r}"
    )
    return rows.with_column(name, joined, Remark(about(name), words))


def read_splits(rows: Rows, name: str) -> Rows:
    """Return the rows with splits as the manifest names them; ``Training``, ``val`` and the like are said.

    Raises
    ------
    DataError
        If a cell is another word; with the line.
    """
    cells = text_of(rows.column(name))
    words = {word: _split_of(word) for word in pc.unique(cells).drop_null().to_pylist()}
    for word, split in words.items():
        if split not in SPLITS:
            row = pc.index(cells, word).as_py()
            raise DataError(
                f"{rows.where(row)}: split must be {', '.join(SPLITS)} or empty; found {word!r}. Rename it, or the "
                "column if it is no official split."
            )
    changed = [f"{word} as {split}" for word, split in words.items() if word != split]
    remarks = [Remark(about(name), f"read {some_of(changed)}")] if changed else []
    return rows.with_column(name, map_values(cells, lambda word: words[word]), *remarks)


def read_frames(rows: Rows, name: str) -> Rows:
    """Return the rows with frames as text of digits, or null.

    Raises
    ------
    DataError
        If a cell is no number from 0; with the line.
    """
    cells = pc.replace_substring_regex(text_of(rows.column(name)), r"\.0+$", "")
    wrong = pc.invert(pc.match_substring_regex(cells, r"^[0-9]{1,9}$"))
    if pc.any(wrong).as_py():
        row = pc.index(wrong, True).as_py()
        raise DataError(f"{rows.where(row)}: frame must be a number from 0; found {cells[row].as_py()!r}")
    return rows.with_column(name, cells)


def require_unique(rows: Rows, image_ids: pa.ChunkedArray) -> None:
    """Refuse records without an id, and two of one id; with their lines."""
    if image_ids.null_count:
        row = pc.index(image_ids.is_null(), True).as_py()
        raise DataError(f"{rows.where(row)}: the image_id is empty; every row needs one")
    if count_distinct(image_ids) == len(image_ids):
        return
    seen: dict[str, int] = {}
    for row, image_id in enumerate(image_ids.to_pylist()):
        if image_id in seen:
            raise DataError(
                f"{rows.where(row)}: image_id {image_id!r} stands on {rows.place_of(seen[image_id])} already"
                f"{_difference(rows, seen[image_id], row)}; ids must differ. Give a column image_id if one file has "
                "several rows."
            )
        seen[image_id] = row


def _difference(rows: Rows, one: int, other: int) -> str:
    """Say in which cells two rows differ."""
    cells = {name: [rows.columns[name][row] for row in (one, other)] for name in rows.table.column_names}
    differing = [
        f"{name} {before!r} there and {here!r} here"
        for name, (before, here) in cells.items()
        if before != here
    ]
    return f" ({', '.join(differing[:_SHOWN_CELLS])})" if differing else ""


def _split_of(word: str) -> str:
    plain = re.sub(r"[\s_-]+(set|split|data)$", "", word.casefold())
    return _SPLIT_WORDS.get(plain, plain)


def _plain(name: str) -> str:
    return re.sub(r"^#|[\s_-]+", "", name).casefold()


def _listed(rows: Rows) -> str:
    names: Iterable[str] = rows.table.column_names
    return ", ".join(names)
