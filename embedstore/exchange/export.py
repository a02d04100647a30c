"""Hands a store's vectors on: HDF5, npz, Parquet or CSV files that need nothing of this project to be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedstore.brief import Brief
from embedstore.errors import Advice, DataError, UsageError
from embedstore.exchange.export_files import WRITERS
from embedstore.exchange.export_rows import ExportRows, choose_rows
from embedstore.exchange.viewer_rows import NEIGHBORS, ViewerOptions, with_files, with_places
from embedstore.files import StrPath
from embedstore.keys.key_file import read_key
from embedstore.store.layout import STORE_DTYPES
from embedstore.store.reader import FAILED, PENDING, VALID, Store, as_store

# Viewer -> the formats that it opens.
VIEWERS = {"atlas": (".parquet",), "fiftyone": (".parquet", ".csv")}


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is written.

    Parameters
    ----------
    dtype
        ``float32``, which every reader knows, or ``float16``.
    normalise
        Divide every vector by its length.
    with_labels
        Add a column for each target of each task, ``label:TASK:TARGET``: the class of the row's unit, empty where it
        has no label.
    keep_zero
        Write rows whose vector is zero, which has no direction and no cosine.
    force
        Replace a file that is there.
    viewer
        ``atlas`` or ``fiftyone``: add what this viewer wants (`embedstore.exchange.viewer_rows`). Labels are then
        among the columns.
    neighbors, thumbnails
        For ``atlas``: how many nearest images stand beside each, and whether small pictures do.
    key_file
        Key of stores whose paths are hidden, for what lies in files.
    """

    dtype: str = "float32"
    normalise: bool = False
    with_labels: bool = False
    keep_zero: bool = False
    force: bool = False
    viewer: str | None = None
    neighbors: int = NEIGHBORS
    thumbnails: bool = True
    key_file: StrPath | None = None


@dataclass(frozen=True, repr=False)
class ExportSummary(Brief):
    """What was written.

    Parameters
    ----------
    target
        The file.
    rows
        Rows written.
    failed, pending, zero
        Rows of the store that were left out: without a vector, not extracted yet, and with a vector that is zero.
    without_file
        Rows that were left out of a table of files, because theirs is not where it lay.
    """

    target: Path
    rows: int
    failed: int
    pending: int
    zero: int
    without_file: int = 0

    def _facts(self) -> dict[str, object]:
        return {
            "target": str(self.target),
            "rows": self.rows,
            "failed": self.failed,
            "pending": self.pending,
            "zero": self.zero,
            "without_file": self.without_file,
        }


def export_store(
    store: Store | StrPath, target: StrPath, options: ExportOptions | None = None
) -> ExportSummary:
    """Write every row that has a vector to `target`; the suffix chooses the format.

    Columns keep their names as far as every format can hold them (`embedstore.exchange.column_names`).

    Parameters
    ----------
    store
        The store, opened or by its folder.
    target
        ``*.h5``/``*.hdf5``, ``*.npz``, ``*.parquet``, or ``*.csv`` for everything but the vectors; it appears only once
        complete.
    options
        See `ExportOptions`.

    Raises
    ------
    UsageError
        For another suffix or dtype, and if the file is there and is not to be replaced.
    DataError
        If the store holds no vector, or the format or dtype cannot hold a cell or value.
    CorruptStore
        If the store's bytes are not the committed ones.

    Examples
    --------
    >>> es.export_store("mura.store", "mura.parquet").rows == store.rows
    True
    >>> es.export_store("mura.store", "mura.h5", es.ExportOptions(normalise=True, with_labels=True)).failed
    0
    """
    asked, store, target = options or ExportOptions(), as_store(store), Path(target)
    suffix = target.suffix.lower()
    if suffix not in WRITERS:
        raise UsageError(f"{target}: the suffix must be one of {', '.join(WRITERS)}; found {target.suffix!r}")
    if asked.dtype not in STORE_DTYPES:
        raise UsageError(f"`dtype` must be one of {', '.join(STORE_DTYPES)}; found {asked.dtype!r}")
    if asked.viewer is not None and suffix not in VIEWERS.get(asked.viewer, ()):
        known = "; ".join(f"{name} ({', '.join(endings)})" for name, endings in VIEWERS.items())
        raise UsageError(
            f"`viewer` and the suffix must fit: {known}; found {asked.viewer!r} and {target.suffix!r}"
        )
    if not target.parent.is_dir():
        raise UsageError(f"{target}: the folder {target.parent} does not exist")
    if target.exists() and not asked.force:
        raise UsageError(f"{target} is there already; `force=True` replaces it")
    if not (store.status == VALID).any():
        raise DataError(f"store {store.path} holds no vector that could be exported", advice=Advice.EXTRACT)
    rows = choose_rows(
        store,
        keep_zero=asked.keep_zero,
        dtype=asked.dtype,
        normalise=asked.normalise,
        with_labels=asked.with_labels or asked.viewer is not None,
    )
    chosen = len(rows.rows)
    rows = _for_viewer(rows, asked)
    # An HDF5 file being written is unreadable after a kill: only a finished one gets the name.
    partial = target.with_name(target.name + ".partial")
    try:
        WRITERS[suffix](rows, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return ExportSummary(
        target,
        len(rows.rows),
        int(np.sum(store.status == FAILED)),
        int(np.sum(store.status == PENDING)),
        rows.zero,
        chosen - len(rows.rows),
    )


def _for_viewer(rows: ExportRows, asked: ExportOptions) -> ExportRows:
    """Return the rows with what the viewer wants beside them."""
    key = None if asked.key_file is None else read_key(asked.key_file)
    if asked.viewer == "atlas":
        return with_places(
            rows, ViewerOptions(neighbors=asked.neighbors, thumbnails=asked.thumbnails, key=key)
        )
    return with_files(rows, key) if asked.viewer == "fiftyone" else rows
