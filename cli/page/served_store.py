"""An opened store as the page shows it: its points, what each is labelled, and where its picture lies."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cli.jobs.text_tower import text_tower_of
from cli.page.catalog import Catalog
from cli.searching.query_vectors import QueryVectors
from cli.searching.search_options import SearchTools
from cli.searching.search_store import StoreSearch, open_search
from cli.studying.openings import Openings
from embedstore.decoding.decode import DecodeJob
from embedstore.errors import DataError, EmbedError
from embedstore.keys.key_file import read_key
from embedstore.manifest import CROP_COLUMNS, FIXED_COLUMNS, Manifest, path_from_manifest
from embedstore.pipeline.chunk_work import box_of
from embedstore.queries.conditions import sorted_cells
from embedstore.queries.image_files import ImageFiles
from embedstore.queries.manifest_columns import column_text, own_unit_names
from embedstore.queries.search import Index
from embedstore.store.reader import VALID, Store
from embedstore.store.tasks import read_task, task_names
from embedstore.task import Task
from heads.runs.run import Run

# How long a store is taken to be what it was.
LOOK_S = 1.0
# Stores whose vectors are held at once.
_OPEN = 3
# A column with more different values is no list to choose from.
_MOST_VALUES = 40
_NO_FACTS = frozenset({"image_id", "path", "frame", "patient_id", "study_id", "series_id", *CROP_COLUMNS})
_SHOWN_FACTS = 8
# Labels of a task of more targets are counted.
_SHOWN_LABELS = 2
# Numbers of slices and pixels, by which nobody chooses.
_NO_CHOICES = frozenset(
    {"stack", "slice_index", "image_rows", "image_columns", "instance_number", "series_number"}
)
# What one asks of first, and then whatever has few values.
_FIRST_CHOICES = ("split", "anatomy", "modality", "plane", "level", "side", "view", "manufacturer", "sex")
_MOST_NUMBERS = 6


@dataclass(frozen=True)
class LabelColumn:
    """What the images of a store are labelled for one target.

    Parameters
    ----------
    task, target
        Whose label.
    classes
        Class names.
    codes
        (store rows,) int16 place in `classes`; -1 where there is no label.
    """

    task: str
    target: str
    classes: tuple[str, ...]
    codes: npt.NDArray[np.int16]


class ServedStore:
    """A store that the page looks at; everything is computed when it is first needed.

    Parameters
    ----------
    store
        The opened store.
    tools
        What it is searched with; its key is also that of hidden paths.
    """

    def __init__(self, store: Store, tools: SearchTools | None = None) -> None:
        self.store = store
        self._tools = tools or SearchTools()
        # Searches come one at a time; what was sent is embedded beside them.
        self.turn = threading.Lock()

    @cached_property
    def search(self) -> StoreSearch:
        """What searches it, with `turn` held."""
        return open_search(self.store, self._tools)

    @cached_property
    def encoding(self) -> QueryVectors:
        """What turns files into vectors, for one thread at a time."""
        return QueryVectors(store=self.store, tools=self._tools)

    @cached_property
    def has_words(self) -> bool:
        """Whether the encoder can be built here and has a text tower."""
        tools = self._tools
        try:
            text_tower_of(self.store, encoder=tools.encoder, device=tools.device)
        except EmbedError:
            return False
        return True

    @property
    def index(self) -> Index:
        """The searchable images: those with a vector that is not zero."""
        return self.search.index

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(n,) the store's row of each point of the map, ascending."""
        return self.index.rows

    @cached_property
    def with_vector(self) -> npt.NDArray[np.int64]:
        """(n,) the store's rows that have a vector, ascending; known without reading one."""
        return np.flatnonzero(self.store.status == VALID)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The store's tasks by name."""
        return {name: read_task(self.store.path, name) for name in task_names(self.store.path)}

    def has_unit(self, name: str) -> bool:
        """Say whether an image or a study of the store is called so."""
        return name in self.store.row_of or bool((self.studies == name).any())

    def patients_of(self, units: Sequence[str]) -> list[str]:
        """Return the patients of images and studies, as far as they are known."""
        rows = np.isin(self.studies, units) | np.isin(self.store.image_ids, units)
        return sorted(set(column_text(self.store.table, "patient_id")[rows].tolist()) - {""})

    @cached_property
    def labels(self) -> list[LabelColumn]:
        """The labels of every task and target."""
        found = []
        for task in self.tasks.values():
            units = own_unit_names(self.store.table, task.unit)
            place = {name: number for number, name in enumerate(task.unit_ids)}
            of_row = np.array([place.get(name, -1) for name in units.tolist()], np.int64)
            for target in task.targets:
                code = {label: number for number, label in enumerate(task.classes)}
                cells = task.labels.column(target).to_pylist()
                of_unit = np.array([*(code.get(cell, -1) for cell in cells), -1], np.int16)
                found.append(LabelColumn(task.name, target, task.classes, of_unit[of_row]))
        return found

    @cached_property
    def _labels_by_task(self) -> dict[str, list[LabelColumn]]:
        return {name: [label for label in self.labels if label.task == name] for name in self.tasks}

    @cached_property
    def studies(self) -> npt.NDArray[np.str_]:
        """(store rows,) the study of each image; an image without one is its own."""
        return own_unit_names(self.store.table, "study")

    @cached_property
    def choices(self) -> dict[str, list[str]]:
        """Column -> its few different values, to filter by and to colour by."""
        found = {}
        table = self.store.table
        for name in table.column_names:
            if name in _NO_FACTS | _NO_CHOICES:
                continue
            column = table.column(name)
            if not (pa.types.is_string(column.type) or pa.types.is_integer(column.type)):
                continue
            values = [str(cell) for cell in sorted_cells(column) if cell not in (None, "")]
            most = _MOST_VALUES if pa.types.is_string(column.type) else _MOST_NUMBERS
            if 1 < len(values) <= most:
                found[name] = values
        rank = {name: place for place, name in enumerate(_FIRST_CHOICES)}
        ordered = sorted(found, key=lambda name: (rank.get(name, len(rank)), len(found[name])))
        return {name: found[name] for name in ordered}

    def require_row(self, row: object) -> int:
        """Return a row that has a vector; raises DataError for anything else."""
        if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < self.store.rows:
            raise DataError("the store has no such image")
        if self.store.status[row] != VALID:
            raise DataError("this image has no vector")
        return row

    def facts(self, row: int, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what is known of an image of a row: its id, study, patient, labels, and the cells of its row.

        Parameters
        ----------
        row
            The row.
        record
            Its cells, where they were read already.
        """
        if record is None:
            record = self.store.table.slice(row, 1).to_pylist()[0]
        record = {name: cell for name, cell in record.items() if cell not in (None, "")}
        columns = [name for name in record if name not in FIXED_COLUMNS and name not in CROP_COLUMNS]
        shown = [name for name in ("split", "modality", *columns) if name in record]
        return {
            "row": row,
            "image_id": str(self.store.image_ids[row]),
            "study": str(self.studies[row]),
            "patient": record.get("patient_id", ""),
            "labels": self._labels_of(row),
            "facts": {name: record[name] for name in shown[:_SHOWN_FACTS]},
            "windowed": self._is_dicom(row),
            "pictured": self.is_there(row),
        }

    def _labels_of(self, row: int) -> list[str]:
        """Return the labels of an image in words; those of a task of many targets are counted, the gravest first."""
        found = []
        for name, task in self.tasks.items():
            own = [label for label in self._labels_by_task[name] if label.codes[row] >= 0]
            if len(task.targets) <= _SHOWN_LABELS:
                plain = len(self.labels) == 1
                found += [
                    label.classes[label.codes[row]]
                    if plain
                    else f"{label.target.replace('_', ' ')}: {label.classes[label.codes[row]]}"
                    for label in own
                ]
            elif own:
                counts = Counter(int(label.codes[row]) for label in own)
                found.append(
                    ", ".join(f"{counts[code]} {task.classes[code]}" for code in sorted(counts, reverse=True))
                )
        return found

    def job(self, row: int) -> DecodeJob:
        """Return how the picture of an image is decoded; raises DataError where its file is not known."""
        number, start = self._part_of(row)
        place = self._places.get(str(self.store.image_ids[row]))
        if place is None:
            raise DataError("where this image lies is hidden; start the page with the store's --key-file")
        (record,) = Manifest(self.store.parts[number].manifest.table).records(row - start, row - start + 1)
        limits = self._ranges.get(record.series_id)
        return DecodeJob(str(place), record.frame, record.modality, limits, crop=box_of(record))

    def text(self, column: str) -> npt.NDArray[np.str_]:
        """Return (store rows,) a column as text."""
        return column_text(self.store.table, column)

    def _part_of(self, row: int) -> tuple[int, int]:
        starts = [start for start, _ in self.store.offsets()]
        number = int(np.searchsorted(starts, row, "right")) - 1
        return number, starts[number]

    def _is_dicom(self, row: int) -> bool:
        place = self._places.get(str(self.store.image_ids[row]))
        return place is not None and place.suffix.lower() in ("", ".dcm", ".dicom", ".ima")

    def is_there(self, row: int) -> bool:
        """Say whether the file of an image lies where it lay."""
        place = self._places.get(str(self.store.image_ids[row]))
        return place is not None and place.is_file()

    @cached_property
    def _ranges(self) -> dict[str, tuple[float, float]]:
        return self.store.series_ranges()

    @cached_property
    def _places(self) -> dict[str, Path]:
        """Image id -> its file; of crops, that of the slice."""
        key_file = self._tools.key_file
        key = None if key_file is None else read_key(Path(key_file))
        return dict(_places_of(self.store, ImageFiles(key)))


def _places_of(store: Store, files: ImageFiles) -> Iterator[tuple[str, Path]]:
    for part in store.parts:
        for image_id, root, path in files.of_part(store, part):
            if path:
                yield image_id, path_from_manifest(root, path)


class Shelf:
    """The opened stores and runs, as they are now; for several threads at once.

    Parameters
    ----------
    catalog
        What may be opened.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.openings = Openings(keep=True)
        self._turn = threading.Lock()
        self._served: dict[str, tuple[float, ServedStore]] = {}

    def served(self, name: object) -> ServedStore:
        """Return a store by its short name; one that has changed on disk is opened again, a second later at most."""
        path = self.catalog.store(name)
        with self._turn:
            now = time.monotonic()
            looked, held = self._served.get(str(name), (-LOOK_S, None))
            if held is not None and now - looked < LOOK_S:
                return held
            store = self.openings.store(path)
            if held is None or held.store is not store:
                held = ServedStore(store, self._tools())
            self._served[str(name)] = now, held
            while len(self._served) > _OPEN:
                del self._served[min(self._served, key=lambda other: self._served[other][0])]
            return held

    def run(self, name: object) -> Run:
        """Return a run by its short name."""
        return self.openings.run(self.catalog.run(name))

    def _tools(self) -> SearchTools:
        catalog = self.catalog
        return SearchTools(
            encoder=catalog.encoder,
            device=catalog.device,
            workers=catalog.workers,
            key_file=catalog.key_file,
        )
