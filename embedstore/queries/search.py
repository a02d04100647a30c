"""Nearest cases: exact cosine search over a store's vectors.

FAISS scans float16 copies, which halves the memory traffic that bounds an exact scan; the best candidates
are then ranked again in float32, so that the order and the similarities are those of the full vectors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.brief import Brief
from embedstore.errors import UsageError, require_whole_number
from embedstore.files import StrPath
from embedstore.queries.conditions import Where, parse_conditions, rows_where
from embedstore.store.reader import Store, as_store

# Rounding to float16 moves a cosine by less than 1e-3 (11 significant bits on unit vectors); so many extra
# candidates have kept the true neighbours within reach in every comparison with a float64 scan.
_EXTRA_CANDIDATES = 32


@dataclass(frozen=True, repr=False)
class Neighbor(Brief):
    """One similar image.

    Parameters
    ----------
    image_id
        Its id.
    similarity
        Cosine of the two vectors, -1 to 1.
    row
        Its row in the store.
    record
        Its manifest row, empty cells left out.
    """

    image_id: str
    similarity: float
    row: int
    record: Mapping[str, object] = field(default_factory=dict)

    def _facts(self) -> dict[str, Any]:
        return {
            "image_id": self.image_id,
            "similarity": round(self.similarity, 4),
            "row": self.row,
        }


@dataclass(frozen=True, repr=False)
class Index(Brief):
    """Unit vectors of the searchable rows of a store, with FAISS over them; `build_index` makes one."""

    table: pa.Table
    image_ids: npt.NDArray[np.object_]
    rows: npt.NDArray[np.int64]
    unit_vectors: npt.NDArray[np.float32]
    scan: faiss.Index

    def search(
        self,
        vector: npt.ArrayLike,
        *,
        k: int,
        exclude_patient: str | None = None,
        exclude_id: str = "",
    ) -> list[Neighbor]:
        """Return the `k` images with the largest cosine to `vector`, largest first.

        Parameters
        ----------
        vector
            (dim,) of the index's identity.
        k
            How many; fewer come back when fewer are searchable.
        exclude_patient
            Leave this patient's images out.
        exclude_id
            Leave this image out.
        """
        require_whole_number("k", k)
        if k < 1:
            raise UsageError(f"k must be at least 1; found {k}")
        query = normalized(np.asarray(vector, dtype=np.float32)[None])[0]
        excluded = self._excluded(exclude_patient, exclude_id)
        # The few that are left out are asked for as well and dropped afterwards: a selector over all rows
        # costs several times the scan itself.
        count = min(k + len(excluded) + _EXTRA_CANDIDATES, len(self.rows))
        if not count:
            return []
        _, found = self.scan.search(query[None], count)
        candidates = found[0][(found[0] >= 0) & ~np.isin(found[0], excluded)]
        similarity = self.unit_vectors[candidates] @ query
        # Ties go to the earlier row, so that the answer does not depend on the scan.
        order = np.lexsort((candidates, -similarity))[:k]
        return [self._neighbor(int(candidates[at]), float(similarity[at])) for at in order]

    def _excluded(self, patient: str | None, image_id: str) -> npt.NDArray[np.int64]:
        """Return the positions of a patient's images and of an image."""
        positions = []
        if image_id:
            positions.append(np.flatnonzero(self.image_ids == image_id))
        if patient is not None:
            same = pc.fill_null(pc.equal(self.table.column("patient_id"), patient), False)
            positions.append(np.flatnonzero(np.asarray(same)))
        return np.unique(np.concatenate(positions)) if positions else np.zeros(0, np.int64)

    def _neighbor(self, position: int, similarity: float) -> Neighbor:
        record = self.table.slice(position, 1).to_pylist()[0]
        known = {name: cell for name, cell in record.items() if cell is not None}
        return Neighbor(str(self.image_ids[position]), similarity, int(self.rows[position]), known)

    def _facts(self) -> dict[str, Any]:
        return {
            "images": len(self.image_ids),
            "dim": self.unit_vectors.shape[1],
        }


def build_index(store: Store | StrPath, *, where: Where = ()) -> Index:
    """Build an exact index of a store's valid rows.

    Parameters
    ----------
    store
        The store, opened or by its folder.
    where
        What a row's manifest must say to be searchable: conditions (``["age>=65", "view in AP,PA"]``), or column ->
        value.

    Raises
    ------
    UsageError
        If a condition has another form, or its column does not exist.
    CorruptStore
        If the store's bytes are not the committed ones.

    Examples
    --------
    >>> index = es.build_index(store, where={"anatomy": "XR_WRIST"})
    >>> nearest = index.search(store.vector(store.image_ids[0]), k=2)
    >>> [neighbor.record["anatomy"] for neighbor in nearest]
    ['XR_WRIST', 'XR_WRIST']
    """
    store = as_store(store)
    embeddings = store.embeddings(dtype=np.float32)
    table = store.table.take(pa.array(embeddings.rows))
    kept = np.flatnonzero(rows_where(table, parse_conditions(where), holder="the store"))
    unit_vectors = normalized(embeddings.vectors[kept])
    return Index(
        table.take(pa.array(kept)),
        embeddings.image_ids[kept],
        embeddings.rows[kept],
        unit_vectors,
        scan_of(unit_vectors),
    )


def scan_of(unit_vectors: npt.NDArray[np.float32]) -> faiss.Index:
    """Return an exact float16 scan over (n, dim) unit vectors, one shard per core.

    FAISS scans for one query in one thread; a shard per core divides the memory traffic among them.
    """
    dim = unit_vectors.shape[1]
    # Threaded, and ids count on from shard to shard; the stub knows no constructor arguments.
    shards = faiss.IndexShards(dim, True, True)  # type: ignore[call-arg]
    for piece in np.array_split(unit_vectors, max(1, min(os.cpu_count() or 1, len(unit_vectors)))):
        shard = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        shard.add(np.ascontiguousarray(piece))
        shards.add_shard(shard)
    return shards


def normalized(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (n, dim) float32 vectors divided by their length; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit
