"""The owner's map: where each image with a pseudonym lies, and which clinical ids it has.

It lies beside the key (``hospital.key.paths.parquet``), readable by its owner only, and never in a store. Images of
several folders and stores are in one map as long as they have one key.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import DataError
from embedstore.files import parquet_bytes, table_of_parquet, write_durable
from embedstore.keys.key_file import Key
from embedstore.keys.keyed_ids import CLINICAL_IDS
from embedstore.manifest import path_to_manifest

MAP_SUFFIX = ".paths.parquet"
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # the pseudonym; empty for a file that was left out
        ("root", pa.string()),  # absolute folder
        ("path", pa.string()),  # below it, as in a manifest
        *((name, pa.string()) for name in CLINICAL_IDS),
        *((column, pa.string()) for _, column in CLINICAL_IDS.values() if column != "image_id"),
        ("left_out", pa.string()),  # why a file gave no record
    ]
)


def map_file(key: Key) -> Path:
    """Return where the map of a key lies."""
    return key.path.with_name(key.path.name + MAP_SUFFIX)


def map_rows(root: Path, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Return rows of a map for one folder; a column that is not given is empty."""
    rows = len(columns["path"])
    given = {**columns, "root": [root_name(root)] * rows}
    return pa.table(
        {field.name: pa.array(given.get(field.name, [None] * rows), field.type) for field in SCHEMA}
    )


def root_name(root: Path) -> str:
    """Return the absolute name of a folder, as text that a table can hold."""
    return path_to_manifest(os.path.abspath(root))


def read_map(key: Key) -> pa.Table:
    """Return the map of a key; empty where there is none yet.

    Raises
    ------
    DataError
        If the file is no such map.
    """
    path = map_file(key)
    try:
        table = table_of_parquet(path.read_bytes())
    except FileNotFoundError:
        return SCHEMA.empty_table()
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Remove it; the next extraction makes it again"
        ) from error
    if table.schema.names != SCHEMA.names:
        raise DataError(f"{path} is no map of paths. Move it away; the next extraction makes the map again")
    return table.cast(SCHEMA)


def remember(key: Key, rows: pa.Table) -> None:
    """Bring the map of a key up to date with the images of one folder; others stay as they are.

    Parameters
    ----------
    key
        A key whose file is there.
    rows
        `map_rows` of all images, and of the files that were left out.

    Raises
    ------
    DataError
        If the map cannot be written beside the key.
    """
    if not rows.num_rows:
        return
    try:
        with _held(key.path):
            before = read_map(key)
            table = _merged(before, rows)
            if not table.equals(before):
                write_durable(map_file(key), parquet_bytes(table), label="owner-map", mode=0o600)
    except OSError as error:
        raise DataError(
            f"{map_file(key)} cannot be written: {error.strerror}. Only this map leads from the ids in a store back "
            "to files: put the key file into a folder that may be written to"
        ) from error


def _merged(before: pa.Table, rows: pa.Table) -> pa.Table:
    """Return the map with `rows` in place of what it says of the same images and left-out files of their folder."""
    own = pc.equal(before.column("root"), rows.column("root")[0])
    known = pc.is_in(before.column("image_id"), value_set=rows.column("image_id").combine_chunks())
    replaced = pc.and_(own, pc.or_(known, pc.is_null(before.column("image_id"))))
    merged = pa.concat_tables([before.filter(pc.invert(replaced)), rows])
    return merged.sort_by(
        [("root", "ascending"), ("path", "ascending"), ("image_id", "ascending")]
    ).combine_chunks()


@contextmanager
def _held(key_file: Path) -> Iterator[None]:
    """Keep two extractions from writing the map at the same time, by a lock on the key file."""
    with key_file.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
