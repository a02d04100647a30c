"""Nearest cases by cosine: exactly (`embedstore.similarity`), and from a million rows on by lists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.brief import Brief
from embedstore.errors import DataError
from embedstore.files import StrPath
from embedstore.indexing.list_index import LISTS_FROM, RECALL, stored_lists
from embedstore.indexing.stored_rows import can_be_mapped
from embedstore.queries.conditions import Where, parse_conditions, rows_where
from embedstore.similarity.exact_search import ExactSearch
from embedstore.similarity.list_search import ListSearch
from embedstore.similarity.mapped_rows import MappedRows
from embedstore.similarity.scan import Floats, Rows
from embedstore.store.reader import Store, as_store


@dataclass(frozen=True, repr=False)
class Neighbor(Brief):
    """One similar image.

    Parameters
    ----------
    image_id
        Its id.
    cosine
        Cosine of the two vectors, -1 to 1.
    row
        Its row in the store.
    record
        Its manifest row, empty cells left out.
    """

    image_id: str
    cosine: float
    row: int
    record: Mapping[str, object] = field(default_factory=dict)

    def _facts(self) -> dict[str, Any]:
        return {
            "image_id": self.image_id,
            "cosine": round(self.cosine, 4),
            "row": self.row,
        }


@dataclass(frozen=True, repr=False)
class Index(Brief):
    """Vectors of the searchable rows of a store; `build_index` makes one."""

    table: pa.Table
    image_ids: npt.NDArray[np.object_]
    rows: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.floating] | MappedRows
    lists: ListSearch | None = None

    def search(
        self,
        vector: npt.ArrayLike,
        *,
        k: int,
        exclude_patient: str | None = None,
        exclude_id: str = "",
    ) -> list[Neighbor]:
        """Return the `k` images with the largest cosine to `vector`, largest first; of equals the earlier row.

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

        Raises
        ------
        DataError
            If the vector is zero.
        """
        queries = np.asarray(vector, dtype=np.float32)[None]
        if not queries.any():
            raise DataError(
                "the query's vector is zero (that of a constant image, for instance): it has no direction, and "
                "nothing is similar to it. Ask with another image"
            )
        return self.search_many(queries, k=k, exclude_patients=[exclude_patient], exclude_ids=[exclude_id])[0]

    def search_many(
        self,
        vectors: npt.ArrayLike,
        *,
        k: int,
        exclude_patients: Sequence[str | None] | None = None,
        exclude_ids: Sequence[str] | npt.NDArray[np.object_] | None = None,
    ) -> list[list[Neighbor]]:
        """Return what `search` returns, for many vectors at once: several times as fast, and the same answers.

        A vector that is zero has no neighbours here.

        Parameters
        ----------
        vectors
            (m, dim) of the index's identity.
        k
            How many for each.
        exclude_patients, exclude_ids
            Of each vector, as in `search`.
        """
        queries = np.asarray(vectors, dtype=np.float32)
        outside, without = None, None
        if exclude_patients is not None:
            outside = self.patient_codes([() if name is None else (name,) for name in exclude_patients])
        if exclude_ids is not None:
            own = [self.positions.get(image_id, -1) for image_id in exclude_ids]
            without = np.array(own, np.int64)
        found, cosines = self.nearest(queries, k, outside=outside, without=without)
        return [
            [self._neighbor(int(at), float(cosine)) for at, cosine in zip(*pair, strict=True) if at >= 0]
            for pair in zip(found, cosines, strict=True)
        ]

    def nearest(
        self,
        vectors: npt.NDArray[np.float32],
        k: int,
        *,
        among: Rows | None = None,
        outside: Rows | None = None,
        without: Rows | None = None,
    ) -> tuple[Rows, Floats]:
        """Return positions in this index and cosines, (m, k) each, as `ExactSearch.search`; a zero vector finds none.

        Parameters
        ----------
        vectors
            (m, dim) float32.
        k, among, without
            As `ExactSearch.search`, by positions in this index.
        outside
            Codes of patients, as `patient_codes` gives them.
        """
        finder = self._exact if self.lists is None else _Positions(self.lists, self.rows)
        found, cosines = finder.search(vectors, k, among=among, outside=outside, without=without)
        found[~vectors.any(axis=1)] = -1
        return found, cosines

    def patient_codes(self, patients: Sequence[Collection[str]]) -> Rows:
        """Return (m, most) codes of the patients of each query, -1 where there is none and in what is left."""
        known = [[self._patient_codes.get(name, -1) for name in names] for names in patients]
        codes = np.full((len(known), max(map(len, known), default=0)), -1, np.int64)
        for row, own in enumerate(known):
            codes[row, : len(own)] = own
        return codes

    @cached_property
    def positions(self) -> dict[str, int]:
        """Image id -> its position in this index."""
        return {image_id: at for at, image_id in enumerate(self.image_ids)}

    @property
    def groups(self) -> Rows:
        """(n,) a number for each patient, -1 where none is known."""
        codes = self._patient_codes
        patients = self.table.column("patient_id").to_pylist()
        return np.array([codes.get(name, -1) for name in patients], np.int64)

    @cached_property
    def _exact(self) -> ExactSearch:
        return ExactSearch(self.vectors, self.groups)

    @cached_property
    def _patient_codes(self) -> dict[str, int]:
        names = pc.drop_null(pc.unique(self.table.column("patient_id"))).to_pylist()
        return {name: code for code, name in enumerate(names)}

    def _neighbor(self, position: int, cosine: float) -> Neighbor:
        record = self.table.slice(position, 1).to_pylist()[0]
        known = {name: cell for name, cell in record.items() if cell is not None}
        return Neighbor(str(self.image_ids[position]), cosine, int(self.rows[position]), known)

    def _facts(self) -> dict[str, Any]:
        return {
            "images": len(self.image_ids),
            "dim": self.vectors.shape[1],
        }


@dataclass(frozen=True)
class _Positions:
    """Lists that are asked by positions in an index, and not by rows of the store."""

    lists: ListSearch
    rows: Rows

    def search(
        self,
        queries: npt.NDArray[np.floating],
        k: int,
        *,
        among: Rows | None,
        outside: Rows | None,
        without: Rows | None,
    ) -> tuple[Rows, Floats]:
        present = self.lists.present
        whole = among is None and present is not None and len(self.rows) == len(present)
        some = self.rows if among is None else self.rows[among]
        own = None if without is None else np.where(without >= 0, self.rows[without], -1)
        found, cosines = self.lists.search(
            queries, k, among=None if whole else some, outside=outside, without=own
        )
        return np.where(found >= 0, np.searchsorted(self.rows, found), -1), cosines


def build_index(
    store: Store | StrPath,
    *,
    where: Where = (),
    lists: bool | None = None,
    recall: float = RECALL,
    say: Callable[[str], None] | None = None,
) -> Index:
    """Build an index of a store's valid rows, those whose vector is zero left out.

    It is exact, and its vectors are in memory, below a million rows. From there on they stay where they lie, and lists
    are searched that are kept beside the store (`embedstore.indexing.list_index`).

    Parameters
    ----------
    store
        The store, opened or by its folder.
    where
        What a row's manifest must say to be searchable: conditions (``["age>=65", "view in AP,PA"]``), or column ->
        value.
    lists
        Whether lists are searched, or all vectors; by the number of rows where None.
    recall
        Of lists: the share of the ten nearest that must be found; it is measured, and said.
    say
        Takes what a person should know of lists.

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
    if lists or (lists is None and store.rows >= LISTS_FROM and can_be_mapped(store)):
        return _index_of_lists(store, where, recall, say)
    embeddings = store.embeddings()
    table = store.table.take(pa.array(embeddings.rows))
    kept = np.flatnonzero(rows_where(table, parse_conditions(where), holder="the store"))
    # A vector without length has no cosine, and would stand between those that point the other way.
    kept = np.setdiff1d(kept, zero_rows(embeddings.vectors))
    whole = len(kept) == len(embeddings.rows)
    return Index(
        table if whole else table.take(pa.array(kept)),
        embeddings.image_ids[kept],
        embeddings.rows[kept],
        embeddings.vectors if whole else embeddings.vectors[kept],
    )


def _index_of_lists(store: Store, where: Where, recall: float, say: Callable[[str], None] | None) -> Index:
    kept = stored_lists(store, recall=recall, say=say)
    table = store.table.take(pa.array(kept.rows))
    held = np.flatnonzero(rows_where(table, parse_conditions(where), holder="the store"))
    rows, table = kept.rows[held], table if len(held) == len(kept.rows) else table.take(pa.array(held))
    index = Index(table, store.image_ids[rows], rows, kept.vectors)
    groups = np.full(store.rows, -1, np.int64)
    groups[rows] = index.groups
    return replace(index, lists=kept.search(groups))


def zero_rows(vectors: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return which of (n, dim) vectors are zero, ascending; most are known not to be from a few of their numbers."""
    few = vectors[:, :: max(1, vectors.shape[1] // 8)]
    suspected = np.flatnonzero(~few.any(axis=1))
    return suspected[~vectors[suspected].any(axis=1)]
