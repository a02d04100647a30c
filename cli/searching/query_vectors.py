"""Files, ids and words -> the vectors that are searched for, and whose images they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from cli.notify import Notify
from cli.project import shown
from cli.searching.search_options import SearchQuery, SearchTools
from embedstore.encoders.base import Encoder
from embedstore.encoders.registry import encoder_of_identity
from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.files import StrPath
from embedstore.headers.file_frames import split_frame
from embedstore.inputs.file_units import FileUnits, UnitImages, WantedUnits, units_of_files
from embedstore.inputs.input_rows import InputSources
from embedstore.inputs.unit_chunks import FileUnitsChunk
from embedstore.inputs.user_files import find_files
from embedstore.pipeline.embed_images import lines_of_notes
from embedstore.queries.clinical_ids import hint_of_keys
from embedstore.queries.nearest_cases import patients_of
from embedstore.store.reader import VALID, Store
from embedstore.text_tower import TextTower

_PATIENT = frozenset({"patient_id"})


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryImage:
    """One vector that is searched for.

    Parameters
    ----------
    name
        What the user called it: a path, an id, words.
    vector
        (dim,) float32.
    image_id
        The store's id where the store holds the image, under whatever name; else ``""``.
    patient_id
        Its patient, where the store or the file's header says it; else ``""``.
    by_id
        Whether it was asked for by an id of the store.
    """

    name: str
    vector: npt.NDArray[np.float32] = field(repr=False)
    image_id: str = ""
    patient_id: str = ""
    by_id: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryVectors:
    """Turns questions to one store into vectors; the encoder is built once.

    Parameters
    ----------
    store
        The opened store.
    tools
        What it works with.
    """

    store: Store
    tools: SearchTools = field(default_factory=SearchTools)
    _notices: list[str] = field(default_factory=list, repr=False)

    def of(self, query: SearchQuery, *, notify: Notify) -> list[QueryImage]:
        """Return the vectors of a question, at least one.

        Raises
        ------
        UsageError
            If nothing or words beside images are asked for, or the encoder cannot be built or has no text tower.
        DataError
            If the store has no such image or study with a vector, or no file can be decoded.
        """
        try:
            return self._found(query, notify)
        finally:
            for line in self._notices:
                notify(line)
            self._notices.clear()

    def _found(self, query: SearchQuery, notify: Notify) -> list[QueryImage]:
        images = bool(query.images) + bool(query.ids) + bool(query.vectors)
        if query.text is not None and images:
            raise UsageError(
                "search for images or for words, not for both: cosines to words are of another size"
            )
        if query.text is not None:
            vector = np.asarray(self._words.encode([query.text])[0], np.float32)
            return [QueryImage(name=query.text, vector=vector)]
        if not images:
            raise UsageError("give what to search for: image files, ids of images or studies, or words")
        return [
            *self._of_ids(query.ids, query.by),
            *self._of_vectors(query),
            *(self._of_files(query.images, notify) if query.images else ()),
        ]

    def _of_ids(self, ids: Sequence[str], by: str | None) -> list[QueryImage]:
        named = self.tools.ids_of(self.store).unit_ids(ids, by) if ids else ()
        found = list(dict.fromkeys(image_id for name in named for image_id in self._images_of(name)))
        vectors = self.store.select(found, dtype=np.float32).vectors if found else ()
        return [
            replace(self._stored(image_id, vector, image_id), by_id=True)
            for image_id, vector in zip(found, vectors, strict=True)
        ]

    def _images_of(self, name: str) -> list[str]:
        """Return the images with a vector that an id names: the image itself, or those of the study."""
        if name in self.store.row_of:
            self.store.row_of_vector(name)  # which says why where it has none
            return [name]
        rows = np.flatnonzero(
            np.asarray(pc.equal(self.store.table.column("study_id"), name).fill_null(False))
        )
        held = rows[self.store.status[rows] == VALID]
        if len(rows) and not len(held):
            self.store.row_of_vector(str(self.store.image_ids[rows[0]]))
        if not len(held):
            table = self.store.table
            known = dict.fromkeys([*self.store.image_ids, *table.column("study_id").drop_null().to_pylist()])
            hint = hint_of_keys(self.store, self.tools.key_file)
            raise DataError(
                f"store {self.store.path} has no image or study {name!r}{hint or did_you_mean(name, known)}"
            )
        return [str(self.store.image_ids[row]) for row in held]

    def _of_vectors(self, query: SearchQuery) -> list[QueryImage]:
        dim = self.store.identity.dim
        for name, vector in query.vectors:
            if np.shape(vector) != (dim,):
                raise DataError(f"{name}: a vector must have the shape ({dim},); found {np.shape(vector)}")
        return [
            QueryImage(name=name, vector=np.asarray(vector, np.float32)) for name, vector in query.vectors
        ]

    def _of_files(self, images: Sequence[StrPath], notify: Notify) -> list[QueryImage]:
        asked = [Path(image) for image in images]
        split = [split_frame(path) for path in asked]
        files = self._units(list(dict.fromkeys(path for path, _ in split)))
        files = _named_frames(files, asked, notify)
        found: list[QueryImage] = []
        chunks = files.embed(
            self._encoder,
            store_dtype=str(self.store.dtype),
            workers=self.tools.workers,
            stopping=lambda: False,
        )
        failed = 0
        for chunk in chunks:
            failed += len(chunk.failed)
            for line in (f"{shown(Path(path))}: {why}" for path, why in chunk.failed):
                if failed == len(files.units):
                    raise DataError(line)
                notify(f"no vector: {line}")
            found += self._of_chunk(chunk)
            for line in lines_of_notes(chunk.notes):
                notify(line)
        return found

    def _units(self, paths: Sequence[Path]) -> FileUnits:
        key = self.tools.key
        sources = InputSources(
            store=self.store, key=key, header_columns=frozenset() if key is None else _PATIENT
        )
        return units_of_files(find_files(paths).files, sources, WantedUnits(unit="image"))

    def _of_chunk(self, chunk: FileUnitsChunk) -> list[QueryImage]:
        table, found = chunk.table, []
        patients = (
            table.column("patient_id").to_pylist()
            if "patient_id" in table.column_names
            else [""] * table.num_rows
        )
        frames = table.column("frame").to_pylist()
        for place, (path, frame) in enumerate(zip(chunk.paths, frames, strict=True)):
            name = shown(Path(path)) + (f"#{frame}" if frame else "")
            vector, stored = chunk.units.X[place], chunk.stored_ids[place]
            if stored:
                found.append(self._stored(name, vector, stored))
            else:
                found.append(QueryImage(name=name, vector=vector, patient_id=patients[place] or ""))
        return found

    def _stored(self, name: str, vector: npt.NDArray[np.floating], image_id: str) -> QueryImage:
        patient = next(iter(patients_of(self.store, [image_id])), "")
        vector = np.asarray(vector, np.float32)
        return QueryImage(name=name, vector=vector, image_id=image_id, patient_id=patient)

    @cached_property
    def _encoder(self) -> Encoder:
        return encoder_of_identity(
            self.store.identity,
            holder=f"store {self.store.path}",
            name=self.tools.encoder,
            device=self.tools.device,
            say=self._notices.append,
        )

    @cached_property
    def _words(self) -> TextTower:
        from cli.jobs.text_tower import text_tower_of

        return text_tower_of(
            self.store, encoder=self.tools.encoder, device=self.tools.device, notify=self._notices.append
        )


def _named_frames(files: FileUnits, asked: Sequence[Path], notify: Notify) -> FileUnits:
    """Return the files with the frames that were named, of a file that was named without one the first."""
    named: dict[str, set[int]] = {}
    for image in asked:
        file, frame = split_frame(image)
        if not file.is_dir():
            named.setdefault(os.path.join(os.path.realpath(file.parent), file.name), set()).add(frame)
    kept: list[UnitImages] = []
    frames: dict[str, list[int]] = {}
    for unit in files.units:
        (row,) = unit.rows
        place, frame = files.path_of(row), files.records[row].frame
        frames.setdefault(place, []).append(frame)
        if frame in named.get(place, {frame}):
            kept.append(unit)
    for place, wanted in named.items():
        there, name = frames.get(place, []), shown(Path(place))
        if lacking := sorted(wanted - {*there}):
            count = "1 frame" if len(there) == 1 else f"{len(there):,} frames"
            raise DataError(f"{name} has {count}, counted from 0; found no frame {lacking[0]}")
        if wanted == {0} and len(there) > 1:
            notify(f"{name} has {len(there)} frames; the first is taken, {name}#{there[1]} names the next")
    return replace(files, units=kept)
