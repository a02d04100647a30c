"""The nearest cases in a store: of files, of its own images and studies, or of words, with what is known of them."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cli.notify import Notify, ignore
from cli.searching.hit_facts import Beside, StoreLabels
from cli.searching.query_vectors import QueryImage, QueryVectors
from cli.searching.search_options import IMAGE, STUDY, SearchOptions, SearchQuery, SearchTools
from embedstore.errors import DataError, UsageError
from embedstore.files import StrPath
from embedstore.queries.conditions import Condition, none_left, parse_conditions, rows_where
from embedstore.queries.nearest_cases import Asked, UnitHit, UnitIndex, unit_index
from embedstore.queries.search import Index, build_index
from embedstore.store.reader import Store, as_store

if TYPE_CHECKING:
    from cli.searching.run_beside import RunBeside
    from heads.runs.run import Run

_NAMED_COLUMNS = 6


@dataclass(frozen=True, kw_only=True)
class SearchHit:
    """A study (or image) that was found.

    Parameters
    ----------
    unit_id
        The study, or the image where images are searched; an image without a study is one of its own.
    image_id
        Its most similar image.
    row
        That image's row in the store.
    cosine
        Of that image and the one that it is most similar to, -1 to 1.
    query
        `QueryImage.name` of that one.
    patient_id, study_id
        Of the image; None where unknown.
    images
        Images of the study that could be found.
    record
        The image's row of the manifest, empty cells left out.
    labels
        Task -> target -> class, None where there is no label; tasks without a label of it are left out.
    beside
        What the run of `SearchOptions.probe` says; None without one.
    """

    unit_id: str
    image_id: str
    row: int
    cosine: float
    query: str
    patient_id: str | None
    study_id: str | None
    images: int
    record: Mapping[str, object]
    labels: Mapping[str, Mapping[str, str | None]]
    beside: Beside | None = None


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What was found.

    Parameters
    ----------
    hits
        By falling cosine; of equals the earlier row of the store.
    queries
        What was searched for; `QueryImage.image_id` says which of them the store holds.
    columns
        The first few columns of the store beside those that every manifest has.
    why_none
        Which condition leaves no image to compare with, and what its column holds; ``""`` where some are left.
    group
        As `SearchOptions.group`.
    compared
        How many images could be found.
    notices
        What a person should know.
    """

    hits: Sequence[SearchHit]
    queries: Sequence[QueryImage]
    columns: Sequence[str] = ()
    why_none: str = ""
    group: str = STUDY
    compared: int = 0
    notices: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class StoreSearch:
    """A store that is searched, many times over; `open_search` makes one.

    What a question needs is read when it is first asked for: vectors, labels, the encoder.

    Parameters
    ----------
    store
        The opened store.
    tools
        What it works with.
    """

    store: Store
    tools: SearchTools = field(default_factory=SearchTools)
    _runs: dict[str, RunBeside] = field(default_factory=dict, repr=False)
    _said: list[str] = field(default_factory=list, repr=False)

    def search(
        self, query: SearchQuery, options: SearchOptions | None = None, *, notify: Notify = ignore
    ) -> SearchResult:
        """Find what is most similar.

        Images of the store that are searched for are never found themselves, nor is a study that is; other images of
        their patients only where `SearchOptions.same_patient` asks for them, and where no patient is known, of their
        studies. A file that the store holds, whatever it is called, counts as the store's image; with `same_patient` it
        finds that.

        Raises
        ------
        UsageError
            If the question or a condition cannot be understood, the store has no such column or task, or the encoder
            cannot be built.
        DataError
            If the store has no such image or study with a vector, a file cannot be decoded, or all vectors are zero.
        IdentityMismatch
            If the run has learned from other vectors.
        """
        asked = options or SearchOptions()
        notices: list[str] = []

        def tell(line: str) -> None:
            notices.append(line)
            notify(line)

        beside = None if asked.probe is None else self._beside(asked.probe)
        if query.images:
            _begin_to_import_torch()
        conditions = self.tools.ids_of(self.store).where(parse_conditions(asked.where))
        findable = rows_where(self.index.table, conditions, holder="the store")
        for line in self._said:
            tell(line)
        self._said.clear()
        queries = self._query_vectors.of(query, notify=tell)
        units = self._units(asked.group)
        (hits,) = units.nearest([self._asked(queries, query, asked)], k=asked.k, findable=findable)
        columns = [column for part in self.store.parts for column in part.manifest.extra_columns]
        return SearchResult(
            hits=self._hits(hits, queries, units, findable, asked, beside),
            queries=queries,
            columns=list(dict.fromkeys(columns[:_NAMED_COLUMNS])),
            why_none=self._why_none(findable, conditions),
            group=asked.group,
            compared=int(findable.sum()),
            notices=notices,
        )

    @cached_property
    def index(self) -> Index:
        """The store's images that have a vector with a length."""
        return build_index(
            self.store, lists=self.tools.lists, recall=self.tools.recall, say=self._said.append
        )

    @cached_property
    def labels(self) -> StoreLabels:
        """The labels of these images."""
        return StoreLabels(self.store, self.index)

    def _asked(self, queries: Sequence[QueryImage], query: SearchQuery, options: SearchOptions) -> Asked:
        vectors = np.stack([entry.vector for entry in queries])
        if not vectors.any():
            raise DataError(
                "the query's vector is zero (that of a constant image, for instance): it has no direction, and nothing "
                "is similar to it. Ask with another image"
            )
        known = [entry for entry in queries if entry.image_id]
        own = [entry.image_id for entry in known if entry.by_id or not options.same_patient]
        if not options.same_patient:
            own += self._studies_of([entry.image_id for entry in known if not entry.patient_id])
        patients = {*query.patients, *(entry.patient_id for entry in queries if entry.patient_id)}
        return Asked(
            vectors=vectors, patients=() if options.same_patient else sorted(patients), image_ids=own
        )

    def _why_none(self, findable: npt.NDArray[np.bool_], conditions: Sequence[Condition]) -> str:
        if findable.any():
            return ""
        if not len(findable):
            return f"store {self.store.path.name} has no image with a vector"
        return none_left(self.store.table, conditions)

    def _studies_of(self, image_ids: Sequence[str]) -> list[str]:
        """Return the images of the studies of images: of one patient, whoever that is."""
        if not image_ids:
            return []
        studies = self._by_study.units
        wanted = {studies[self.index.positions[name]] for name in image_ids if name in self.index.positions}
        return [str(name) for name in self.index.image_ids[np.isin(studies, list(wanted))]]

    def _hits(
        self,
        hits: Sequence[UnitHit],
        queries: Sequence[QueryImage],
        units: UnitIndex,
        findable: npt.NDArray[np.bool_],
        options: SearchOptions,
        beside: RunBeside | None,
    ) -> list[SearchHit]:
        positions = [hit.position for hit in hits]
        counts = units.images_of(positions, findable)
        records = self.index.table.take(pa.array(positions, pa.int64())).to_pylist()
        labels = self.labels.of_images(positions, options.task)
        said = [None] * len(hits) if beside is None else beside.of_images(positions)
        return [
            SearchHit(
                unit_id=hit.unit_id,
                image_id=str(self.index.image_ids[hit.position]),
                row=int(self.index.rows[hit.position]),
                cosine=hit.cosine,
                query=queries[hit.asked].name,
                patient_id=record["patient_id"],
                study_id=record["study_id"],
                images=int(images),
                record={name: cell for name, cell in record.items() if cell is not None},
                labels=of_tasks,
                beside=of_run,
            )
            for hit, images, record, of_tasks, of_run in zip(hits, counts, records, labels, said, strict=True)
        ]

    def _units(self, group: str) -> UnitIndex:
        if group not in (STUDY, IMAGE):
            raise UsageError(f"`group` must be {STUDY!r} or {IMAGE!r}; found {group!r}")
        return self._by_study if group == STUDY else self._by_image

    @cached_property
    def _by_study(self) -> UnitIndex:
        return unit_index(self.index, STUDY)

    @cached_property
    def _by_image(self) -> UnitIndex:
        return unit_index(self.index, IMAGE)

    @cached_property
    def _query_vectors(self) -> QueryVectors:
        return QueryVectors(store=self.store, tools=self.tools)

    def _beside(self, probe: StrPath | Run) -> RunBeside:
        # A run needs torch and scikit-learn, which take longer to import than a search takes.
        from cli.searching.run_beside import RunBeside
        from heads.runs.run_files import load_run

        folder = str(getattr(probe, "folder", probe))
        if folder not in self._runs:
            run = load_run(Path(probe)) if isinstance(probe, str | os.PathLike) else probe
            self._runs[folder] = RunBeside(run, self.store, self.index)
        return self._runs[folder]


def open_search(store: Store | StrPath, tools: SearchTools | None = None) -> StoreSearch:
    """Open a store to search it; `StoreSearch.search` may be called again and again, from one thread at a time.

    Raises
    ------
    StoreError
        As `embedstore.store.reader.open_store`.
    """
    return StoreSearch(as_store(store), tools or SearchTools())


def search_store(
    store: Store | StrPath,
    query: SearchQuery,
    options: SearchOptions | None = None,
    *,
    tools: SearchTools | None = None,
    notify: Notify = ignore,
) -> SearchResult:
    """Search a store once; as `StoreSearch.search`."""
    return open_search(store, tools).search(query, options, notify=notify)


def _begin_to_import_torch() -> None:
    """Import what encoders compute with while the store is read: a seventh of a first search less."""
    if "torch" not in sys.modules:
        threading.Thread(target=importlib.import_module, args=("torch",)).start()
