"""What viewers of embeddings want beside the rows: places on a plane, neighbours, thumbnails, absolute paths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.exchange.export_rows import ExportRows, unit_vectors
from embedstore.keys.key_file import Key
from embedstore.queries.image_files import ImageFiles
from embedstore.queries.thumbnails import thumbnails_of_units
from embedstore.similarity.exact_search import ExactSearch

NEIGHBORS = 15
_SAMPLE_ROWS = 20_000
# Fields that every sample of FiftyOne has.
_OF_FIFTYONE = frozenset({"id", "tags", "metadata", "created_at", "last_modified_at"})
_NEIGHBORS = pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))])
_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True, kw_only=True)
class ViewerOptions:
    """What is put beside the rows.

    Parameters
    ----------
    neighbors
        Nearest images of each, by exact cosine; 0 for none.
    thumbnails
        Small pictures, from the files where they lie where they lay.
    key
        Key of stores whose paths are hidden.
    """

    neighbors: int = NEIGHBORS
    thumbnails: bool = True
    key: Key | None = None


def with_places(rows: ExportRows, options: ViewerOptions) -> ExportRows:
    """Return the rows of an export with the columns by which embedding-atlas opens them.

    ``projection_x`` and ``projection_y`` are the first two principal components of the unit vectors, ``neighbors`` is
    ``{ids, distances}`` with rows of the file from 0 and 1 - cosine, and ``thumbnail`` ``{bytes, path}``, a JPEG.
    """
    vectors = np.concatenate([np.zeros((0, rows.shape[1]), np.float32), *rows.blocks()])
    x, y = plane_of(vectors).T
    beside = {"projection_x": pa.array(x, pa.float32()), "projection_y": pa.array(y, pa.float32())}
    if options.neighbors:
        beside["neighbors"] = neighbors_of(vectors, options.neighbors)
    if options.thumbnails:
        ids = rows.manifest.column("image_id").to_pylist()
        pictures = thumbnails_of_units([rows.store], ids, "image", key=options.key)
        cells = [{"bytes": pictures.get(name), "path": None} for name in ids]
        beside["thumbnail"] = pa.array(cells, _PICTURE)
    return replace(rows, beside=beside)


def with_files(rows: ExportRows, key: Key | None = None) -> ExportRows:
    """Return the rows whose files lie where they lay, with ``filepath``; of the others a viewer shows nothing."""
    places = ImageFiles(key).paths(rows.store)
    known = [places.get(name) for name in rows.manifest.column("image_id").to_pylist()]
    paths = [str(place.absolute()) if place is not None and place.is_file() else None for place in known]
    there = np.array([path is not None for path in paths], np.bool_)
    found = pa.array([path for path in paths if path is not None], pa.string())
    return replace(rows, rows=rows.rows[there], beside={"filepath": found}, reserved=_OF_FIFTYONE)


def plane_of(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return (n, 2) principal components of unit vectors, fitted to some of them; each axis with one sign."""
    units = unit_vectors(vectors)
    step = max(1, -(-len(units) // _SAMPLE_ROWS))
    some = units[::step]
    mean = some.mean(axis=0)
    axes = np.linalg.svd(some - mean, full_matrices=False)[2][:2]
    if len(axes) < 2:
        axes = np.concatenate([axes, np.zeros((2 - len(axes), units.shape[1]))])
    # The sign of a singular vector is arbitrary: its largest number is made positive.
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], 1))
    places: npt.NDArray[np.float64] = (units - mean) @ (axes * np.where(signs == 0, 1, signs)).T
    return places


def neighbors_of(vectors: npt.NDArray[np.floating], count: int) -> pa.Array:
    """Return the nearest rows of each row, itself left out, with their distances."""
    own = np.arange(len(vectors))
    found, cosines = ExactSearch(vectors).search(vectors, min(count, max(1, len(own) - 1)), without=own)
    cells: list[dict[str, Any]] = [
        {"ids": near[near >= 0].tolist(), "distances": (1 - of_near[near >= 0]).tolist()}
        for near, of_near in zip(found, cosines, strict=True)
    ]
    return pa.array(cells, _NEIGHBORS)
