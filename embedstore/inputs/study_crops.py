"""Files of studies -> crops around the levels that are found in them, with their vectors, study by study."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.crops.crop_collection import COLUMNS as CROP_COLUMNS
from embedstore.crops.crop_collection import crops_of_slices
from embedstore.crops.crop_tokens import looks_of_table
from embedstore.encoders.base import Encoder, OfCrops
from embedstore.identity import Identity
from embedstore.inputs.file_units import UnitImages, WantedUnits, records_of, units_of_rows
from embedstore.inputs.input_rows import ANCHOR, InputRows, InputSources, rows_of_files
from embedstore.inputs.known_images import KnownImages, known_images
from embedstore.inputs.known_studies import KnownStudies, KnownStudy, renamed
from embedstore.inputs.unit_chunks import FileUnitsChunk
from embedstore.inputs.user_files import UserFile
from embedstore.lumbar.crop_rule import CropRule
from embedstore.lumbar.level_points import LevelPoints
from embedstore.lumbar.looks import Looks
from embedstore.lumbar.series_grid import StudyGrids
from embedstore.manifest import Manifest, Record, path_from_manifest
from embedstore.pipeline.embed_images import (
    Embedded,
    Embedding,
    EmbedOptions,
    files_of_notes,
    open_embedding,
)
from embedstore.queries.manifest_columns import column_text, image_mask, own_unit_names
from embedstore.queries.store_grids import grids_of_study, sagittal_rows
from embedstore.slices.planes import COLUMNS as PLANE_COLUMNS
from embedstore.store.reader import Store
from embedstore.tokens.grid import TOKENS
from embedstore.view import Units

# What headers must say of slices: where they lie, and how they are weighted.
HEADER_COLUMNS = frozenset(
    {"plane", "stack", *PLANE_COLUMNS, "series_description", "echo_time_ms", "repetition_time_ms"}
)
NO_CROP = "no level of the spine found: no sagittal T1 or T2 series that shows it and lies in the patient"
# The token grids of a study, and what its tokens are -> its level points.
Locate = Callable[[StudyGrids, Identity], LevelPoints]
# Level points, crops around them, the crops' tokens, and what those are -> better points.
Refine = Callable[[LevelPoints, Looks, npt.NDArray[Any], Identity], LevelPoints]


@dataclass(frozen=True, kw_only=True)
class LookAgain:
    """How level points are mended before the crops of a head are cut.

    Parameters
    ----------
    rule
        How the crops are cut that are looked at.
    refine
        Moves the points.
    """

    rule: CropRule
    refine: Refine


@dataclass(frozen=True, kw_only=True)
class StudyCrops:
    """Files grouped into studies whose crops are to be encoded; `crops_of_files` makes one.

    Parameters
    ----------
    rows
        What is known of the slices.
    records
        Of each row its image.
    units
        The studies that were given.
    wanted
        What a head needs of crops.
    rule
        How they are cut.
    locate
        Finds the levels of a study.
    again
        A second look at the levels that were found; None without one.
    found
        Levels of studies that the localiser learned from, by networks that never saw them; None without any.
    store
        A store of such crops, by which crops are known again; None without one.
    slices
        Stores of whole slices, by which studies are known again whose files are called otherwise.
    """

    rows: InputRows
    records: Sequence[Record] = field(repr=False)
    units: Sequence[UnitImages]
    wanted: WantedUnits
    rule: CropRule
    locate: Locate
    again: LookAgain | None = None
    found: LevelPoints | None = None
    store: Store | None = None
    slices: Sequence[KnownStudies] = ()
    _taken: set[str] = field(default_factory=set, repr=False)

    @property
    def columns(self) -> frozenset[str]:
        """Columns that are known of every crop."""
        return self.rows.columns | frozenset(CROP_COLUMNS)

    @property
    def images(self) -> int:
        """How many slices were given."""
        return sum(len(study.rows) for study in self.units)

    @cached_property
    def known(self) -> KnownImages | None:
        """The store's crops by their pixels."""
        return None if self.store is None else known_images(self.store)

    @cached_property
    def _rows_of_study(self) -> Mapping[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row, name in enumerate(self.rows.units.tolist()):
            found.setdefault(name, []).append(row)
        return found

    def embed(
        self, encoder: Encoder, *, store_dtype: str, workers: int, stopping: Callable[[], bool]
    ) -> Iterator[FileUnitsChunk]:
        """Find the levels of each study, compute the vectors of its crops and yield its units.

        Nothing of a study is kept when the next one begins.

        Parameters
        ----------
        encoder
            Of whole images, with tokens: those in which levels are found.
        store_dtype
            What tokens and vectors of the stores that were learned from were rounded to.
        workers
            Decoding processes.
        stopping
            Asked between batches; when true, the study at hand is abandoned.
        """
        encoder.load()
        options = EmbedOptions(store_dtype=store_dtype, workers=workers, stopping=stopping)
        with open_embedding(ANCHOR, encoder, options, images=self.images) as embedding:
            for study in self.units:
                chunk = self._chunk(study, embedding, encoder)
                if chunk is None or stopping():
                    return
                yield chunk

    def _chunk(self, study: UnitImages, embedding: Embedding, encoder: Encoder) -> FileUnitsChunk | None:
        """Return the units of one study; None if it was abandoned."""
        slices, records = self._slices(study)
        members = [self.records[row] for row in self._rows_of_study[study.name]]
        source = f"study {study.name}"
        passes: list[Embedded] = []
        points = self._found_before(study, slices)
        if points is None:
            located = self._located(study, slices, records, members, embedding, encoder)
            if located is None:
                return None
            points, passes = located
            known = self._known_again(study, passes)
            if known is not None:
                study, source = replace(study, name=known.name), f"study {known.name}"
                slices = Manifest(renamed(slices.table, known.name, known.series))
                members = [replace(one, series_id=known.of(one.series_id)) for one in members]
                points = known.named(points)
            held = None if known is None else self._found_before(study, slices)
            if held is not None:
                points = held
            elif self.again is not None:
                mended = self._mended(points, slices, members, embedding, encoder, self.again, source=source)
                if mended is None:
                    return None
                points, passes = mended[0], [*passes, *mended[1]]
        crops, absent = crops_of_slices(slices, points, self.rule, source=source)
        embedded = None
        if len(crops):
            of_crops = OfCrops(encoder, self.rule.to_json())
            embedded = next(embedding.embed([list(crops.records())], of_crops, members=members), None)
            if embedded is None:
                return None
            passes.append(embedded)
        return self._answerable(study, crops, embedded, passes, absent, encoder.identity.dim)

    def _found_before(self, study: UnitImages, slices: Manifest) -> LevelPoints | None:
        """Return the levels of a study that the localiser knows: of this name, and with the series that it names."""
        if self.found is None:
            return None
        points = self.found.of_study(study.name)
        series = {name for name in points.series_ids.tolist() if name}
        return points if series and series <= set(slices.column("series_id")) else None

    def _known_again(self, study: UnitImages, passes: Sequence[Embedded]) -> KnownStudy | None:
        """Return the study that the sagittal slices are of, by their pixels; None if nobody knows them."""
        for embedded in passes:
            good = [row for row in range(len(embedded.records)) if row not in embedded.failures]
            series = [embedded.records[row].series_id for row in good]
            for known in self.slices:
                found = known.find(embedded.content_sha256[good], series)
                # Of two copies of a study the second keeps the name of its files.
                names = {unit.name for unit in self.units if unit is not study} | self._taken
                if found is not None and found.name not in names:
                    self._taken.add(found.name)
                    return found
        return None

    def _located(
        self,
        study: UnitImages,
        slices: Manifest,
        records: Sequence[Record],
        members: Sequence[Record],
        embedding: Embedding,
        encoder: Encoder,
    ) -> tuple[LevelPoints, list[Embedded]] | None:
        """Return the levels that the localiser finds, and what it found them in; None if the study was abandoned."""
        found = sagittal_rows(
            slices.table, np.ones(len(slices), np.bool_), encoder.identity, source=f"study {study.name}"
        )
        if not len(found.rows):
            return self.locate(StudyGrids(study.name, ()), encoder.identity), []
        sagittal = [records[row] for row in found.rows]
        encoded = next(embedding.embed([sagittal], encoder, members=members, arrays=[TOKENS]), None)
        if encoded is None:
            return None
        good = np.array([row for row in range(len(sagittal)) if row not in encoded.failures], np.int64)
        grids = StudyGrids(study.name, ())
        if len(good):
            grids = grids_of_study(study.name, found, good, encoded.further[TOKENS][good])
        return self.locate(grids, encoder.identity), [encoded]

    def _mended(
        self,
        points: LevelPoints,
        slices: Manifest,
        members: Sequence[Record],
        embedding: Embedding,
        encoder: Encoder,
        again: LookAgain,
        *,
        source: str,
    ) -> tuple[LevelPoints, list[Embedded]] | None:
        """Return the points after a second look, and what it looked at; None if the study was abandoned."""
        crops, _ = crops_of_slices(slices, points, replace(again.rule, neighbours=0), source=source)
        if not len(crops):
            return points, []
        of_crops = OfCrops(encoder, again.rule.to_json())
        records = list(crops.records())
        seen = next(embedding.embed([records], of_crops, members=members, arrays=[TOKENS]), None)
        if seen is None:
            return None
        usable = np.array([row not in seen.failures for row in range(len(records))], np.bool_)
        looks, rows = looks_of_table(crops.table, usable, points, of_crops.identity, source=source)
        return again.refine(points, looks, seen.further[TOKENS][rows], of_crops.identity), [seen]

    def _slices(self, study: UnitImages) -> tuple[Manifest, list[Record]]:
        """Return the slices of a study, and their records; of two files of one name the first."""
        ids = self.rows.table.column("image_id")
        first = {ids[row].as_py(): row for row in reversed(study.rows)}
        rows = [row for row in study.rows if first[ids[row].as_py()] == row]
        table = renamed(self.rows.table.take(pa.array(rows, pa.int64())), study.name, {})
        return Manifest(table.combine_chunks()), [self.records[row] for row in rows]

    def _answerable(
        self,
        study: UnitImages,
        crops: Manifest,
        embedded: Embedded | None,
        passes: Sequence[Embedded],
        lacking: Mapping[str, int],
        dim: int,
    ) -> FileUnitsChunk:
        good = [] if embedded is None else [row for row in range(len(crops)) if row not in embedded.failures]
        kept = np.array(good, np.int64)
        table = crops.table.take(pa.array(kept))
        names = own_unit_names(table, self.wanted.unit)
        unit_ids, unit_of_image = _in_order(names)
        vectors, content = np.empty((0, dim), np.float32), np.empty((0, 32), np.uint8)
        if embedded is not None:
            vectors, content = embedded.vectors[kept], embedded.content_sha256[kept]
        planned = Counter(own_unit_names(crops.table, self.wanted.unit).tolist())
        # Slices that were not given might have been other crops.
        absent = study.known - len(study.rows)
        failed = {
            part.records[row].path: f"{reason}: {message}"
            for part in passes
            for row, (reason, message) in part.failures.items()
        }
        told = [(str(path_from_manifest(ANCHOR, path)), why) for path, why in failed.items()]
        if not len(kept):
            told.append((self._folder_of(study), f"study {study.name}: {NO_CROP}"))
        return FileUnitsChunk(
            units=Units(
                X=vectors,
                image_ids=column_text(table, "image_id"),
                content_sha256=content,
                unit_of_image=unit_of_image,
                unit_ids=unit_ids,
                metadata={name: column_text(table, name) for name in self.wanted.columns},
                image_of_target=image_mask(table, self.wanted.image_rules),
            ),
            known=[planned[name] + absent for name in unit_ids.tolist()],
            stored_ids=self._stored(table, content),
            table=table,
            replaced=[],
            failed=told,
            notes=files_of_notes(passes),
            images=len(study.rows),
            lacking=lacking,
        )

    def _stored(self, table: pa.Table, content: npt.NDArray[np.uint8]) -> list[str]:
        """Return the store's id of each crop: of the same name and pixels, or of the same pixels."""
        if self.known is None:
            return [""] * len(content)
        found = self.known.find(content)
        own = table.column("image_id").to_pylist()
        return [
            name if self.known.holds(name, digest) else other
            for name, digest, other in zip(own, content, found, strict=True)
        ]

    def _folder_of(self, study: UnitImages) -> str:
        paths = [str(path_from_manifest(ANCHOR, self.records[row].path)) for row in study.rows]
        return os.path.commonpath([str(Path(path).parent) for path in paths])


def crops_of_files(
    files: Sequence[UserFile],
    sources: InputSources,
    wanted: WantedUnits,
    rule: CropRule,
    locate: Locate,
    *,
    again: LookAgain | None = None,
    found: LevelPoints | None = None,
    slices: Sequence[Store] = (),
) -> StudyCrops:
    """Group files into studies whose crops are to be encoded; no pixel is decoded.

    Parameters
    ----------
    files
        The files.
    sources
        Who may know them, with `HEADER_COLUMNS` of their headers. Its store is one of crops: it knows no slice by its
        path, and only says which crops it has.
    wanted
        What a head needs of crops.
    rule
        How they are cut, as the identity of the head's vectors states it.
    locate
        Finds the levels of a study; points of the origin and localiser that the rule names.
    again
        As `StudyCrops.again`.
    found
        As `StudyCrops.found`: a study of this name and with these series has its crops there, as in a store.
    slices
        Stores of whole slices that may hold the studies.

    Raises
    ------
    DataError
        As `embedstore.inputs.input_rows.rows_of_files`.
    """
    rows = rows_of_files(files, replace(sources, store=None), "study")
    records = records_of(rows.table)
    return StudyCrops(
        rows=rows,
        records=records,
        units=units_of_rows(rows, files, records),
        wanted=wanted,
        rule=rule,
        locate=locate,
        again=again,
        found=found,
        store=sources.store,
        slices=[KnownStudies(store) for store in slices],
    )


def _in_order(names: npt.NDArray[np.str_]) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64]]:
    """Return the different names in order of first appearance, and the number of each row's name."""
    number = {name: place for place, name in enumerate(dict.fromkeys(names.tolist()))}
    of_row = np.array([number[name] for name in names.tolist()], np.int64)
    return np.array(list(number), np.str_), of_row
