"""The rows that an audit looks at, and the nearest of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.queries.manifest_columns import column_text, own_unit_names, patient_names
from embedstore.queries.search import zero_rows
from embedstore.similarity.exact_search import ExactSearch
from embedstore.similarity.scan import Floats, Rows
from embedstore.store.reader import Store

# Neighbours that say what an image is like.
NEIGHBORS = 10
_ANY = 4


@dataclass(frozen=True, eq=False)
class AuditedRows:
    """The images of a store that have a vector; `audited_rows` makes one.

    Parameters
    ----------
    table
        Their rows of the manifest.
    vectors
        (n, dim).
    content
        (n,) int64: one number for each picture, the same for identical pixels.
    """

    table: pa.Table
    vectors: npt.NDArray[np.floating]
    content: Rows

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def image_ids(self) -> list[str]:
        """(n,) ids."""
        ids: list[str] = self.table.column("image_id").to_pylist()
        return ids

    @cached_property
    def splits(self) -> npt.NDArray[np.str_]:
        """(n,) splits, ``""`` where there is none."""
        return column_text(self.table, "split")

    @cached_property
    def studies(self) -> npt.NDArray[np.str_]:
        """(n,) studies; an image without one is one of its own."""
        return own_unit_names(self.table, "study")

    @cached_property
    def named_patients(self) -> npt.NDArray[np.str_]:
        """(n,) patients, ``""`` where unknown."""
        return column_text(self.table, "patient_id")

    @cached_property
    def patients(self) -> npt.NDArray[np.int64]:
        """(n,) a number for each patient; where none is known, the images of a study are one."""
        _, codes = np.unique(patient_names(self.table, "study"), return_inverse=True)
        return codes.astype(np.int64)

    @cached_property
    def firsts(self) -> Rows:
        """The first image of each picture, without those whose vector is zero, ascending."""
        _, first = np.unique(self.content, return_index=True)
        return np.setdiff1d(first, zero_rows(self.vectors)).astype(np.int64)

    @cached_property
    def nearest(self) -> tuple[Rows, Floats]:
        """(firsts, some) rows that are nearest to each of `firsts`, whoever's they are, and their distances.

        They are among those nearest of other patients and those nearest of its own, of whom there are few to search.
        """
        others, away = self.nearest_others
        own, near = self._nearest_own
        rows, distances = np.concatenate([others, own], axis=1), np.concatenate([away, near], axis=1)
        order = np.lexsort((rows, distances), axis=1)[:, :_ANY]
        return np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1)

    @cached_property
    def nearest_others(self) -> tuple[Rows, Floats]:
        """(firsts, `NEIGHBORS`) rows of other patients that are nearest to each of `firsts`, and their distances."""
        return self._search(self.firsts, NEIGHBORS, self.firsts, outside=self.patients[self.firsts])

    @cached_property
    def _nearest_own(self) -> tuple[Rows, Floats]:
        """(firsts, some) rows of the same patient that are nearest to each of `firsts`, and their distances."""
        found = np.full((len(self.firsts), _ANY), -1, np.int64)
        distances = np.full((len(self.firsts), _ANY), 2.0)
        own = self.patients[self.firsts]
        order = np.argsort(own, kind="stable")
        for some in np.split(order, 1 + np.flatnonzero(np.diff(own[order]))):
            if len(some) > 1:
                found[some], distances[some] = self._search(self.firsts[some], _ANY, self.firsts[some])
        return found, distances

    def _search(self, asked: Rows, k: int, among: Rows, outside: Rows | None = None) -> tuple[Rows, Floats]:
        """Return rows, -1 where there are fewer, and distances (1 - cosine)."""
        queries = self.vectors[asked].astype(np.float32)
        found, cosines = self._exact.search(queries, k, among=among, outside=outside, without=asked)
        return found, 1 - cosines

    @cached_property
    def _exact(self) -> ExactSearch:
        return ExactSearch(self.vectors, self.patients)


def audited_rows(store: Store) -> AuditedRows:
    """Return the rows of a store that an audit looks at; raises CorruptStore as `Store.embeddings`."""
    embeddings = store.embeddings()
    digests = np.ascontiguousarray(store.content_sha256()[embeddings.rows])
    _, content = np.unique(digests.view(np.dtype((np.void, digests.shape[1]))).ravel(), return_inverse=True)
    table = store.table.take(pa.array(embeddings.rows))
    return AuditedRows(table, embeddings.vectors, content.astype(np.int64))
