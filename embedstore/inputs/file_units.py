"""Units of files: which they are, and their vectors, chunk by chunk of whole units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.encoders.base import Encoder
from embedstore.errors import UsageError
from embedstore.inputs.input_rows import ANCHOR, InputRows, InputSources, rows_of_files
from embedstore.inputs.known_images import KnownImages, known_images
from embedstore.inputs.unit_chunks import FileUnitsChunk
from embedstore.inputs.user_files import UserFile
from embedstore.manifest import Record, path_from_manifest
from embedstore.pipeline.embed_images import Embedded, EmbedOptions, iter_embedded
from embedstore.queries.derived_columns import can_say
from embedstore.queries.manifest_columns import column_text, image_mask, own_unit_names
from embedstore.store.reader import Store
from embedstore.store.receipt import series_of
from embedstore.task import UNIT_WORDS, ImageRule, unit_key
from embedstore.view import Units

# Images of a chunk, but for a unit that has more: what is answered at a time.
_CHUNK_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class WantedUnits:
    """What a head needs of files.

    Parameters
    ----------
    unit
        As `embedstore.task.Task.unit`.
    image_rules
        As `embedstore.task.Task.image_rules`.
    columns
        Manifest columns that it gets beside the vectors.
    holder
        What needs them, for messages.
    """

    unit: str
    image_rules: Sequence[ImageRule | None] = ()
    columns: Sequence[str] = ()
    holder: str = "the head"


@dataclass(frozen=True, kw_only=True)
class UnitImages:
    """The images of one unit among the rows of the inputs.

    Parameters
    ----------
    name
        Its id.
    rows
        Those that were given, in the order of the store or data set.
    known
        How many images the store, the data set or the files beside say that it has.
    """

    name: str
    rows: tuple[int, ...]
    known: int


@dataclass(frozen=True, kw_only=True)
class FileUnits:
    """Files grouped into units, before an image is decoded; `units_of_files` makes one."""

    rows: InputRows
    wanted: WantedUnits
    store: Store | None
    units: Sequence[UnitImages]
    records: Sequence[Record] = field(repr=False)
    _taken: set[str] = field(default_factory=set, repr=False)

    @property
    def columns(self) -> frozenset[str]:
        """Columns that are known of every image that was given."""
        return self.rows.columns

    @property
    def images(self) -> int:
        """How many images were given."""
        return int(self.rows.given.sum())

    @cached_property
    def known(self) -> KnownImages | None:
        """The store's images by their pixels."""
        return None if self.store is None else known_images(self.store)

    def path_of(self, row: int) -> str:
        """Return the absolute path of a row's file."""
        return str(path_from_manifest(ANCHOR, self.records[row].path))

    def embed(
        self, encoder: Encoder, *, store_dtype: str, workers: int, stopping: Callable[[], bool]
    ) -> Iterator[FileUnitsChunk]:
        """Compute the vectors of all images and yield whole units.

        Parameters
        ----------
        encoder
            The encoder of the vectors that heads learned from.
        store_dtype
            What these were rounded to.
        workers
            Decoding processes.
        stopping
            Asked between batches; when true, the units at hand are abandoned.
        """
        chunks = list(_chunks(self.units))
        options = EmbedOptions(
            store_dtype=store_dtype,
            known_ranges=self._stored_ranges(),
            members=self.records,
            workers=workers,
            stopping=stopping,
        )
        records = [[self.records[row] for unit in chunk for row in unit.rows] for chunk in chunks]
        for chunk, embedded in zip(chunks, iter_embedded(records, ANCHOR, encoder, options), strict=False):
            yield self._chunk(chunk, embedded)

    def _stored_ranges(self) -> dict[str, tuple[float, float]]:
        """Return the value ranges of the series that the store knows by the paths of their files."""
        if self.store is None:
            return {}
        series = {
            record.series_id
            for record, row in zip(self.records, self.rows.store_rows, strict=True)
            if row >= 0
        }
        return {
            name: limits for name, limits in self.store.series_ranges().items() if series_of(name) in series
        }

    def _chunk(self, chunk: Sequence[UnitImages], embedded: Embedded) -> FileUnitsChunk:
        rows = np.array([row for unit in chunk for row in unit.rows], np.int64)
        owners = np.repeat(np.arange(len(chunk)), [len(unit.rows) for unit in chunk])
        kept = np.array([place for place in range(len(rows)) if place not in embedded.failures], np.int64)
        stored_ids, replaced = self._stored(rows[kept], embedded.content_sha256[kept])
        # Sums depend on their order: that of the store, whatever the files are called.
        stored_rows = np.array([self._row_of.get(name, len(self._row_of)) for name in stored_ids], np.int64)
        order = np.lexsort((kept, stored_rows, owners[kept]))
        kept, stored_ids = kept[order], [stored_ids[place] for place in order]
        chunk, owners[kept] = self._parted(chunk, owners[kept], rows[kept], stored_ids)
        once = self._without_copies(owners[kept], rows[kept], stored_ids)
        kept, stored_ids = kept[once], [stored_ids[place] for place in once]
        answered, unit_of_image = np.unique(owners[kept], return_inverse=True)
        table = self.rows.table.take(pa.array(rows[kept], pa.int64()))
        named = [
            self._named(chunk[unit], [stored_ids[place] for place in np.flatnonzero(owners[kept] == unit)])
            for unit in answered
        ]
        units = Units(
            X=embedded.vectors[kept],
            image_ids=column_text(table, "image_id"),
            content_sha256=embedded.content_sha256[kept],
            unit_of_image=unit_of_image.astype(np.int64),
            unit_ids=np.array([unit.name for unit in named], np.str_),
            metadata={name: column_text(table, name) for name in self.wanted.columns},
            image_of_target=image_mask(table, self.wanted.image_rules),
        )
        failed = [
            (self.path_of(int(rows[place])), f"{reason}: {message}")
            for place, (reason, message) in embedded.failures.items()
        ]
        return FileUnitsChunk(
            units=units,
            known=[unit.known for unit in named],
            stored_ids=stored_ids,
            table=table,
            replaced=replaced,
            failed=failed,
            notes={code: len(places) for code, places in embedded.notes.items()},
            images=len(rows),
        )

    def _parted(
        self,
        units: Sequence[UnitImages],
        owners: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        stored_ids: Sequence[str],
    ) -> tuple[list[UnitImages], npt.NDArray[np.int64]]:
        """Part what only lay in one folder: a unit that nobody knew by its paths, of images of several of the store's.

        Returns the units and the owner of each image anew. Where an image is not the store's, nothing is parted.
        """
        parted, owners = list(units), owners.copy()
        named = {unit.name for unit in self.units} | self._taken
        for number, unit in enumerate(units):
            own = np.flatnonzero(owners == number)
            names = [self._unit_of_stored.get(stored_ids[place]) for place in own.tolist()]
            known = list(dict.fromkeys(name for name in names if name is not None))
            if (
                None in names
                or len(known) < 2
                or named & {*known}
                or (self.rows.store_rows[rows[own]] >= 0).any()
            ):
                continue
            for name in known:
                owners[own[[other == name for other in names]]] = len(parted)
                parted.append(replace(unit, name=name, known=len(self._stored_units[name])))
            self._taken.update(known)
            named |= {*known}
        return parted, owners

    def _without_copies(
        self, owners: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], stored_ids: Sequence[str]
    ) -> list[int]:
        """Return the places to keep: a file elsewhere with the pixels of an image that its unit has already is none.

        Extraction leaves such copies out, too. Files that the store knows by their paths are images of their own.
        """
        seen: set[tuple[int, str]] = {
            (int(owner), image_id)
            for owner, row, image_id in zip(owners, rows, stored_ids, strict=True)
            if image_id and self.rows.store_rows[row] >= 0
        }
        kept = []
        for place, (owner, row, image_id) in enumerate(zip(owners.tolist(), rows, stored_ids, strict=True)):
            if image_id and self.rows.store_rows[row] < 0:
                if (owner, image_id) in seen:
                    continue
                seen.add((owner, image_id))
            kept.append(place)
        return kept

    @cached_property
    def _row_of(self) -> Mapping[str, int]:
        return {} if self.store is None else self.store.row_of

    @cached_property
    def _stored_units(self) -> dict[str, list[str]]:
        """Store's unit -> the ids of its images."""
        found: dict[str, list[str]] = {}
        if self.store is not None:
            names = own_unit_names(self.store.table, self.wanted.unit).tolist()
            for name, image_id in zip(names, self.store.image_ids, strict=True):
                found.setdefault(name, []).append(image_id)
        return found

    @cached_property
    def _unit_of_stored(self) -> dict[str, str]:
        return {image_id: name for name, image_ids in self._stored_units.items() for image_id in image_ids}

    def _named(self, unit: UnitImages, stored_ids: Sequence[str]) -> UnitImages:
        """Return a unit that nobody knew by its paths with the store's id, where the store holds its images."""
        names = {self._unit_of_stored.get(image_id) for image_id in stored_ids}
        (name,) = names if len(names) == 1 else (None,)
        if name is not None and name == unit.name:
            # All are the store's, so it is the store that says how many there are.
            return replace(unit, known=len(self._stored_units[name]))
        if name is None or unit.name in self._stored_units or name in self._taken:
            return unit
        # Of two copies of a study the second keeps the name of its files.
        self._taken.add(name)
        return replace(unit, name=name, known=max(unit.known, len(self._stored_units[name])))

    def _stored(
        self, rows: npt.NDArray[np.int64], content: npt.NDArray[np.uint8]
    ) -> tuple[list[str], list[str]]:
        """Return the store's id of each image by its pixels, and the files that hold other ones than the store."""
        if self.known is None or self.store is None:
            return [""] * len(rows), []
        found = self.known.find(content)
        replaced = []
        for place, row in enumerate(rows):
            stored = int(self.rows.store_rows[row])
            if stored < 0:
                continue
            own = str(self.store.image_ids[stored])
            if self.known.holds(own, content[place]):
                found[place] = own
            elif self.known.knows(own):
                replaced.append(self.path_of(int(row)))
        return found, replaced


def units_of_files(files: Sequence[UserFile], sources: InputSources, wanted: WantedUnits) -> FileUnits:
    """Group files into units; no pixel is decoded.

    Raises
    ------
    UsageError
        If nothing says a column of every image by which units, or the images of a target, are told apart.
    DataError
        As `embedstore.inputs.input_rows.rows_of_files`.
    """
    rows = rows_of_files(files, sources, wanted.unit)
    needed = {column for column in unit_key(wanted.unit) if column not in UNIT_WORDS}
    needed |= {rule.column for rule in wanted.image_rules if rule is not None}
    if lacking := sorted(name for name in needed if not can_say(name, rows.columns)):
        raise UsageError(
            f"{wanted.holder} needs the columns {', '.join(lacking)} of every image, which these files do not bring; "
            "extract them into a store with these columns and give the store, or name that store beside them"
        )
    records = records_of(rows.table)
    return FileUnits(
        rows=rows,
        wanted=wanted,
        store=sources.store,
        units=units_of_rows(rows, files, records),
        records=records,
    )


def records_of(table: pa.Table) -> list[Record]:
    """Return the whole images of rows, of which a column may be missing."""
    columns = [
        table.column(name).to_pylist() if name in table.column_names else [None] * table.num_rows
        for name in ("image_id", "path", "frame", "modality", "series_id")
    ]
    return [
        Record(image_id, path, frame or 0, modality or "", series or "")
        for image_id, path, frame, modality, series in zip(*columns, strict=True)
    ]


def units_of_rows(rows: InputRows, files: Sequence[UserFile], records: Sequence[Record]) -> list[UnitImages]:
    """Return the units that were given, in the order of the first file of each; `records` are those of `rows`."""
    order = {file.path: place for place, file in enumerate(files)}
    places = [order.get(str(path_from_manifest(ANCHOR, record.path)), -1) for record in records]
    members: dict[str, list[int]] = {}
    known: dict[str, int] = {}
    for row, name in enumerate(rows.units.tolist()):
        known[name] = known.get(name, 0) + 1
        if rows.given[row]:
            members.setdefault(name, []).append(row)
    ordered = sorted(members.items(), key=lambda entry: min(places[row] for row in entry[1]))
    return [UnitImages(name=name, rows=tuple(own), known=known[name]) for name, own in ordered]


def _chunks(units: Sequence[UnitImages]) -> Iterator[list[UnitImages]]:
    chunk: list[UnitImages] = []
    images = 0
    for unit in units:
        if chunk and images + len(unit.rows) > _CHUNK_IMAGES:
            yield chunk
            chunk, images = [], 0
        chunk.append(unit)
        images += len(unit.rows)
    if chunk:
        yield chunk
