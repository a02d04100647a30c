"""What was sent -> answers, vectors to search with, and pictures; the last few are kept for further questions."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cli.jobs.predict_inputs import AnswerBatch, open_answers
from cli.page.memory_files import MemoryFiles
from cli.page.pictures import Pictures
from cli.page.served_store import ServedStore, Shelf
from cli.printing.prediction_file import compact
from cli.searching.search_options import SearchQuery
from cli.studying.answer_words import answer_in_words, lumbar_table
from cli.studying.predict_options import PredictOptions
from embedstore.decoding.decode import DecodeJob
from embedstore.errors import DataError, EmbedError, UsageError
from embedstore.inputs.file_units import records_of
from embedstore.inputs.input_rows import ANCHOR
from embedstore.manifest import CROP_COLUMNS, Manifest, Record, path_from_manifest
from embedstore.pipeline.chunk_work import box_of
from heads.runs.run import Run

_KEPT_BYTES = 96 << 20
# Vectors to search with; a study of more images is searched by the first so many.
_MOST_VECTORS = 512
# Pictures of a study: the crops of 25 targets, three slices each, name some of them more than once.
_MOST_PICTURES = 80
_SHOWN_AT_LEAST = 12
_MOST_WINDOWED = 6
# Of what is told about many answers together, what each of them says itself (`cli.studying.answer_words`).
_SAID_ALREADY = ("unlike_training", "level_unsure", "answered from a part of", "the run learned from")


@dataclass(frozen=True, eq=False)
class SentPicture:
    """A picture of something that was sent.

    Parameters
    ----------
    small, large
        JPEG.
    grey
        As `cli.page.pictures.packed_grey`; empty where there is nothing to be windowed.
    """

    small: bytes
    large: bytes
    grey: bytes = b""

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self.small) + len(self.large) + len(self.grey)


@dataclass(frozen=True, eq=False)
class Sent:
    """What is kept of something that was sent: no file, no name.

    Parameters
    ----------
    store
        Short name of the store that its vectors fit.
    vectors
        Of images that the store does not hold.
    image_ids
        The store's ids of those that it does.
    patients
        The store's patients whose studies were recognised.
    pictures
        The pictures.
    """

    store: str
    vectors: Sequence[npt.NDArray[np.float32]]
    image_ids: Sequence[str]
    patients: Sequence[str]
    pictures: Sequence[SentPicture]

    @property
    def query(self) -> SearchQuery:
        """What is searched for with it."""
        return SearchQuery(
            ids=self.image_ids,
            vectors=[(f"sent {number}", own) for number, own in enumerate(self.vectors)],
            patients=self.patients,
        )

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(own.nbytes for own in self.vectors) + sum(picture.size for picture in self.pictures)


@dataclass(kw_only=True)
class _Images:
    """The images of what was sent, in order."""

    names: list[str] = field(default_factory=list)
    jobs: list[DecodeJob] = field(default_factory=list)
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)

    @property
    def places(self) -> dict[str, int]:
        """Name -> place: answers name an image as its file is called, or as the store does."""
        own = {name: place for place, name in enumerate(self.names)}
        return own | {name: place for place, name in enumerate(self.stored) if name}


class Desk:
    """Answers for what is sent, and keeps what is needed to ask on.

    Parameters
    ----------
    shelf
        The stores and runs.
    pictures
        Decodes pictures.
    """

    def __init__(self, shelf: Shelf, pictures: Pictures) -> None:
        self._shelf = shelf
        self._pictures = pictures
        self._kept: OrderedDict[str, Sent] = OrderedDict()
        self._lock = threading.Lock()
        # One thing is answered at a time, while searches go on.
        self._turn = threading.Lock()

    def answer(self, files: MemoryFiles, options: Mapping[str, Any]) -> dict[str, Any]:
        """Answer for files.

        Parameters
        ----------
        files
            What was sent; gone when this has returned.
        options
            ``store``, and if there is to be an answer ``run`` and ``metadata`` (column -> value).

        Returns
        -------
        dict
            ``id`` (of what is kept), ``pictures`` (how many, and which can be windowed), ``answers``
            (`cli.studying.answer_words.answer_in_words`, with the pictures of each target), ``notices``.

        Raises
        ------
        UsageError, DataError, IdentityMismatch
            As `cli.jobs.predict_inputs.open_answers`; nothing is said of where the files lay.
        """
        try:
            return self._answer(files, options)
        except EmbedError as error:
            raise type(error)(
                _nameless(str(error), files).replace(f"{self._shelf.catalog.project.folder}/", "")
            ) from error

    def _answer(self, files: MemoryFiles, options: Mapping[str, Any]) -> dict[str, Any]:
        files.expand_archives()
        others = files.leave_out_others()
        served = self._shelf.served(options.get("store"))
        notices: list[str] = []
        images = _Images()
        answers: list[dict[str, Any]] = []
        with self._turn:
            if options.get("run"):
                run = self._shelf.run(options["run"])
                answers = self._answered(files, served, run, _metadata(options), images, notices)
            else:
                self._embedded(files, served, images, notices)
        wanted = _wanted_pictures(answers, images.places)
        pictures = [self._picture(images.jobs[place], number) for number, place in enumerate(wanted)]
        known = [images.stored[place] for place in range(len(images.names)) if images.stored[place]]
        sent = Sent(
            store=str(options.get("store")),
            vectors=[own for own, stored in zip(images.vectors, images.stored, strict=True) if not stored][
                :_MOST_VECTORS
            ],
            image_ids=list(dict.fromkeys(known))[:_MOST_VECTORS],
            patients=served.patients_of([answer["unit"] for answer in answers if answer["unit"]]),
            pictures=[picture for picture in pictures if picture is not None],
        )
        shown = [place for place, picture in zip(wanted, pictures, strict=True) if picture is not None]
        number_at = {place: number for number, place in enumerate(shown)}
        number_of = {name: number_at[place] for name, place in images.places.items() if place in number_at}
        return {
            "id": self._keep(sent),
            "images": len(images.names),
            "crops": any(job.crop is not None for job in images.jobs),
            "pictures": [{"windowed": bool(picture.grey)} for picture in sent.pictures],
            "answers": [_with_pictures(answer, number_of) for answer in answers],
            "table": lumbar_table() if any(answer["lumbar"] for answer in answers) else None,
            "notices": [
                *([f"left out, no image: {others:,} file{'' if others == 1 else 's'}"] if others else []),
                *notices,
            ],
        }

    def sent(self, name: object) -> Sent:
        """Return what is kept under an id; raises DataError where it is gone."""
        with self._lock:
            if not isinstance(name, str) or name not in self._kept:
                raise DataError("what was sent is no longer kept; send it again")
            self._kept.move_to_end(name)
            return self._kept[name]

    def picture(self, name: object, number: int) -> SentPicture:
        """Return one of its pictures."""
        pictures = self.sent(name).pictures
        if not 0 <= number < len(pictures):
            raise DataError("there is no such picture")
        return pictures[number]

    def _keep(self, sent: Sent) -> str:
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[name] = sent
            while len(self._kept) > 1 and sum(own.size for own in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return name

    def _answered(
        self,
        files: MemoryFiles,
        served: ServedStore,
        run: Run,
        metadata: Mapping[str, str],
        images: _Images,
        notices: list[str],
    ) -> list[dict[str, Any]]:
        catalog = self._shelf.catalog
        options = PredictOptions(
            cases=served.store.path,
            neighbors=0,
            metadata=metadata,
            # Ids of what was sent are relative to where it lies, which nobody is told.
            project=replace(catalog.project, folder=files.folder),
            encoder=catalog.encoder,
            device=catalog.device,
            workers=catalog.workers,
            key_file=catalog.key_file,
            with_paths=False,
            levels=catalog.levels,
            level_places=catalog.level_places,
        )
        answering = open_answers(
            run.folder, files.paths, options, notify=notices.append, openings=self._shelf.openings
        )
        found: list[dict[str, Any]] = []
        for batch in answering.batches(lambda: False, notices.append):
            _take(batch, images)
            notices += [f"no vector: {_nameless(line, files)}" for line in batch.failed]
            found += batch.units
        if not found:
            raise DataError(_nameless(" ".join(notices) or "there is no image in what was sent", files))
        told = [line for line in notices if not any(mark in line for mark in _SAID_ALREADY)]
        notices[:] = [_nameless(line, files) for line in told]
        words: dict[str, Any] = {"classes": run.classes, "positive": run.positive}
        words["unit"] = run.document["task"]["unit"]
        return [
            {
                **answer_in_words(answer, **words),
                "unit": answer["unit_id"] if served.has_unit(answer["unit_id"]) else "",
                "compact": {name: value for name, value in compact(answer).items() if name != "path"},
                "images_of": _images_of(answer),
            }
            for answer in found
        ]

    def _embedded(self, files: MemoryFiles, served: ServedStore, images: _Images, notices: list[str]) -> None:
        """Embed what was sent, where there is no run to answer."""
        found = served.encoding.of(SearchQuery(images=files.paths), notify=notices.append)
        notices[:] = [_nameless(line, files) for line in notices]
        for query in found:
            path, _, frame = str(query.name).partition("#")
            images.names.append(query.name)
            images.jobs.append(DecodeJob(str(Path(path).absolute()), int(frame or 0)))
            images.vectors.append(query.vector)
            images.stored.append(query.image_id)

    def _picture(self, job: DecodeJob, number: int) -> SentPicture | None:
        try:
            small, large = self._pictures.jpeg(job, "small"), self._pictures.jpeg(job, "large")
        except DataError:
            return None
        grey = b""
        if number < _MOST_WINDOWED and job.crop is None:
            try:
                grey = self._pictures.grey(job)
            except DataError:
                grey = b""
        return SentPicture(small, large, grey)


def _take(batch: AnswerBatch, images: _Images) -> None:
    """Add the images of a batch."""
    chunk = batch.chunk
    if chunk is None:
        return
    ids = chunk.units.image_ids.tolist()
    for name, stored, record, vector in zip(
        ids, chunk.stored_ids, _records(chunk.table), chunk.units.X, strict=True
    ):
        images.names.append(str(name))
        path = str(path_from_manifest(ANCHOR, record.path))
        images.jobs.append(DecodeJob(path, record.frame, record.modality, crop=box_of(record)))
        images.vectors.append(np.asarray(vector, np.float32))
        images.stored.append(stored)


def _records(table: pa.Table) -> Iterator[Record]:
    if all(name in table.column_names for name in CROP_COLUMNS):
        return Manifest(table).records()
    return iter(records_of(table))


def _images_of(answer: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return target -> the images that spoke for it, the weightiest or nearest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, of in answer["targets"].items():
        weighed = of.get("image_weights") or []
        cut = of.get("crops") or []
        found[name] = [{"image": entry["image"], "weight": entry["weight"]} for entry in weighed] or [
            {"image": entry["image"]} for entry in cut
        ]
    return found


def _wanted_pictures(answers: Sequence[Mapping[str, Any]], place: Mapping[str, int]) -> list[int]:
    """Return the places of the images to show: those that spoke for targets, best first; else the first ones."""
    ranked = [
        own[rank]["image"]
        for rank in range(3)
        for answer in answers
        for own in answer["images_of"].values()
        if rank < len(own)
    ]
    chosen = list(dict.fromkeys(place[name] for name in ranked if name in place))
    rest = [number for number in dict.fromkeys(place.values()) if number not in chosen]
    return (chosen + rest[: max(0, _SHOWN_AT_LEAST - len(chosen))])[:_MOST_PICTURES]


def _with_pictures(answer: Mapping[str, Any], number_of: Mapping[str, int]) -> dict[str, Any]:
    """Return an answer whose targets name pictures by number."""
    targets = []
    for target in answer["targets"]:
        shown = [
            {"picture": number_of[entry["image"]], "weight": entry.get("weight")}
            for entry in answer["images_of"][target["name"]]
            if entry["image"] in number_of
        ]
        targets.append({**target, "pictures": shown})
    return {name: value for name, value in answer.items() if name != "images_of"} | {"targets": targets}


def _metadata(options: Mapping[str, Any]) -> dict[str, str]:
    given = options.get("metadata") or {}
    if not isinstance(given, dict) or not all(
        isinstance(name, str) and isinstance(value, str) for name, value in given.items()
    ):
        raise UsageError("metadata must be an object of texts")
    return {name: value for name, value in given.items() if value}


def _nameless(line: str, files: MemoryFiles) -> str:
    """Return a message without the place where files lay while they were answered."""
    return line.replace(f"{files.folder}/", "").replace(str(files.folder), "what was sent")
