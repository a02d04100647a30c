"""From a user's table to records: its columns by their rules, its files found, a record per frame."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.datasets.folder_summary import count_in_several, count_records, describe_absent
from embedstore.datasets.table_images import Modalities, describe_contents, one_row_per_frame, read_modalities
from embedstore.errors import DataError
from embedstore.headers.file_frames import FileContent, frame_id, look_into
from embedstore.manifest import FIXED_COLUMNS, Manifest, manifest_from_table
from embedstore.paths.found_files import FoundFiles, find_files
from embedstore.paths.path_search import PathRefused
from embedstore.tables.cell_rules import CellRules, numbers_or_text, text_of
from embedstore.tables.manifest_columns import (
    join_image_ids,
    match_columns,
    read_frames,
    read_id_columns,
    read_splits,
    require_unique,
    without_copies,
)
from embedstore.tables.remarks import describe_remarks
from embedstore.tables.rows import Rows


@dataclass(frozen=True)
class Records:
    """What a table says of images.

    Parameters
    ----------
    rows
        The table with one row per record; ids, splits and paths by their rules.
    manifest
        The records.
    summary
        What a person should know, and what was guessed, normalised or left out.
    """

    rows: Rows
    manifest: Manifest
    summary: Mapping[str, str | int]


def read_records(
    rows: Rows,
    *,
    root: Path,
    columns: Mapping[str, str],
    label: Sequence[str],
    rules: CellRules,
    read_label: Callable[[Rows, str], Rows],
) -> Records:
    """Read the records of a table; headers are read, and no pixel is decoded.

    Parameters
    ----------
    rows
        The table, as `embedstore.tables.table_file.read_rows` reads it.
    root
        The folder that paths are relative to.
    columns
        Manifest column -> the table's own name for it.
    label
        Columns that hold labels; `read_label` is called with each.
    rules
        What the user decides about cells.
    read_label
        Returns the rows with a label column by its rules.

    Raises
    ------
    DataError
        If the table cannot be read, lacks a column, or a cell is wrong; with the line.
    """
    rows, own = match_columns(rows, columns, label)
    rows = without_copies(rows, own["path"])
    rows = read_id_columns(rows, own, rules)
    if "frame" in own:
        rows = read_frames(rows, own["frame"])
    if "split" in own:
        rows = read_splits(rows, own["split"])
    for name in label:
        rows = read_label(rows, name)
    rows = join_image_ids(rows, own, rules)
    with _collector_paused():
        rows, found = _with_files(rows, own["path"], root)
        contents = look_into(root, found.paths)
    absent = [found.paths[number] for number in found.absent]
    rows = one_row_per_frame(
        rows,
        contents,
        path=own["path"],
        frame=own.get("frame", "frame"),
        image_id=own.get("image_id", "image_id"),
    )
    own = own | {"frame": own.get("frame", "frame")}
    modalities = read_modalities(rows, own.get("modality"), own["path"], contents)
    rows, extra = _read_extras(rows, {*FIXED_COLUMNS, *own.values(), *label}, rules)
    manifest = _build_manifest(rows, own, modalities, extra)
    return Records(rows, manifest, _summarise(rows, manifest, contents, modalities, absent))


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the search for cycles of objects: paths and folders have none, and a million take it seconds to walk."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _with_files(rows: Rows, name: str, root: Path) -> tuple[Rows, FoundFiles]:
    cells = text_of(rows.column(name))
    if cells.null_count:
        row = pc.index(cells.is_null(), True).as_py()
        raise DataError(f"{rows.where(row)}: the path is empty; every row needs one")
    try:
        found = find_files(root, cells.to_pylist())
    except PathRefused as error:
        raise DataError(f"{rows.where(error.row)}: {error}") from error
    paths = pa.chunked_array([pa.array(found.paths, pa.string())])
    return rows.with_column(name, paths, *found.remarks), found


def _read_extras(rows: Rows, used: set[str], rules: CellRules) -> tuple[Rows, list[str]]:
    extra = [name for name in rows.table.column_names if name not in used]
    for name in extra:
        cells, remarks = numbers_or_text(name, rows.column(name), rules)
        rows = rows.with_column(name, cells, *remarks)
    return rows, extra


def _build_manifest(
    rows: Rows, own: Mapping[str, str], modalities: Modalities, extra: Sequence[str]
) -> Manifest:
    fixed = {name: text_of(rows.column(column)) for name, column in own.items() if name != "modality"}
    if "modality" in own or any(modalities.codes):
        fixed["modality"] = pa.chunked_array([pa.array(modalities.codes, pa.string())])
    frames = pc.fill_null(fixed["frame"], "0").cast(pa.int32())
    if "image_id" not in fixed:
        fixed["image_id"] = _default_ids(fixed["path"], frames)
    require_unique(rows, fixed["image_id"])
    columns = fixed | {"frame": frames} | {name: rows.column(name) for name in extra}
    return manifest_from_table(pa.table(columns), source=str(rows.path))


def _default_ids(paths: pa.ChunkedArray, frames: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return paths in composed Unicode, with the number of the frame behind where there are several."""
    names = pc.utf8_normalize(paths, form="NFC")
    if not pc.any(pc.greater(frames, 0)).as_py():
        return names
    numbered = [
        frame_id(name, frame) for name, frame in zip(names.to_pylist(), frames.to_pylist(), strict=True)
    ]
    return pa.chunked_array([pa.array(numbered, pa.string())])


def _summarise(
    rows: Rows,
    manifest: Manifest,
    contents: Mapping[str, FileContent],
    modalities: Modalities,
    absent: list[str],
) -> dict[str, str | int]:
    summary = count_records(manifest) | describe_contents(contents) | modalities.describe()
    if several := count_in_several(manifest.table, "patient_id", "split"):
        summary["patients in several splits"] = several
    summary |= describe_remarks(rows.remarks)
    if absent:
        summary["absent"] = describe_absent(absent, len(manifest))
    return summary
