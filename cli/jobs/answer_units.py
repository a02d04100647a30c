"""Vectors of units -> answers: what the head says, and beside it the file, the store's image and the nearest cases."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cli.jobs.metadata_values import with_metadata
from cli.notify import Notify
from cli.project import shown
from cli.studying.unit_facts import UnitFacts, facts_of_units, with_levels
from embedstore.encoders.base import Encoder
from embedstore.inputs.unit_chunks import EmbeddedUnits, FileUnitsChunk, joined
from embedstore.manifest import path_from_manifest
from embedstore.pipeline.embed_images import lines_of_notes
from embedstore.queries.image_files import root_of
from embedstore.queries.nearest_cases import LabelledCases
from embedstore.store.reader import Store
from embedstore.view import Units
from heads.runs.answers import predict_units
from heads.runs.run import Run
from heads.runs.run_document import learned_kinds, store_dtype
from heads.statistics.prevalence import EM

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """What answers for units, files and rows of a store alike.

    Parameters
    ----------
    run
        The loaded run.
    threshold, prevalence
        As `heads.runs.answers.predict_units`.
    cases
        Where nearest labelled cases are looked for; None where they are not wanted.
    count
        How many of them.
    with_paths
        Name a unit's first file; else that is left empty.
    """

    run: Run
    threshold: str
    prevalence: str | None
    cases: LabelledCases | None = None
    count: int = 0
    with_paths: bool = True

    def answer(
        self, units: Units, facts: Sequence[UnitFacts], stored_ids: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Return one answer a unit.

        Parameters
        ----------
        units
            The units, with the metadata that the run needs.
        facts
            One per unit.
        stored_ids
            Of each image the store's id, ``""`` where the store does not hold it.
        """
        if not len(units.unit_ids):
            return []
        answers = predict_units(
            self.run,
            units.X,
            units.unit_of_image,
            units.unit_ids.tolist(),
            threshold=self.threshold,
            prevalence=self.prevalence,
            metadata=units.metadata,
            content_sha256=units.content_sha256,
            image_of_target=units.image_of_target,
            image_ids=[
                stored or str(own) for stored, own in zip(stored_ids, units.image_ids.tolist(), strict=True)
            ],
        )
        answers = [self._with_facts(answer, fact) for answer, fact in zip(answers, facts, strict=True)]
        if self.cases is not None:
            nearest = self.cases.nearest(units, stored_ids, count=self.count)
            for answer, cases in zip(answers, nearest, strict=True):
                answer["neighbors"] = cases
        return answers

    def _with_facts(self, answer: dict[str, Any], facts: UnitFacts) -> dict[str, Any]:
        unseen = self.unseen_kinds(facts)
        path = facts.path if self.with_paths else ""
        named = {"unit_id": answer["unit_id"], "path": path, "image_id": facts.image_id}
        whole = {"images": answer["images"], "partial": facts.partial}
        further = {"kinds_unseen": unseen} if unseen else {}
        # No distance tells a CT from a radiograph where the head learned from a dozen units.
        unlike = answer["unlike_training"] or "modality" in unseen
        return (
            named
            | whole
            | with_levels(answer, facts, self.run.identity)
            | {"unlike_training": unlike}
            | further
        )

    def unseen_kinds(self, facts: UnitFacts) -> dict[str, list[str]]:
        """Return column -> what the unit's images are and none was that the run learned from."""
        learned = learned_kinds(self.run.document)
        found = {
            column: sorted(facts.kinds.get(column, frozenset()) - set(known))
            for column, known in learned.items()
        }
        return {column: kinds for column, kinds in found.items() if kinds}


@dataclass(frozen=True, kw_only=True)
class StoreAnswers:
    """Units of a store, to be answered.

    Parameters
    ----------
    answerer
        What answers.
    store
        The opened store.
    units
        Its units, with the metadata that the run needs.
    """

    answerer: Answerer
    store: Store
    units: Units

    def answer(self, notify: Notify) -> list[dict[str, Any]]:
        """Return the answers, and tell what is unlike the images learned from."""
        image_ids = self.units.image_ids.tolist()
        rows = [self.store.row_of[image_id] for image_id in image_ids]
        table = self.store.table.take(pa.array(rows, pa.int64()))
        facts = facts_of_units(
            self.units,
            paths=self._paths(rows, table.column("path").to_pylist()),
            stored_ids=image_ids,
            table=table,
            partial=[False] * len(self.units.unit_ids),
        )
        tally = Tally(answerer=self.answerer)
        answers = self.answerer.answer(self.units, facts, image_ids)
        tally.add(answers)
        tally.tell(notify)
        return answers

    def _paths(self, rows: Sequence[int], cells: Sequence[str | None]) -> list[str]:
        """Return the file of each row where it lies where it lay, else what the manifest says of it."""
        starts = [start for start, _ in self.store.offsets()]
        roots = [root_of(self.store, part) for part in self.store.parts]
        found = []
        for row, cell in zip(rows, cells, strict=True):
            if cell is None:  # hidden
                found.append("")
                continue
            file = path_from_manifest(roots[bisect_right(starts, row) - 1], cell)
            found.append(shown(file) if file.is_file() else cell)
        return found


@dataclass(frozen=True, kw_only=True)
class FileAnswers:
    """Units of files, to be encoded and answered.

    Parameters
    ----------
    answerer
        What answers.
    files
        The units.
    metadata
        Column -> value of all of them.
    encoder
        The encoder of the run's vectors; loaded when the first answer is asked for. Of crops, that of whole images.
    workers
        Decoding processes.
    """

    answerer: Answerer
    files: EmbeddedUnits
    metadata: Mapping[str, str]
    encoder: Encoder
    workers: int

    def answer(
        self, stopping: Callable[[], bool], notify: Notify
    ) -> Iterator[tuple[list[dict[str, Any]], Sequence[str], FileUnitsChunk]]:
        """Yield answers, lines of images without a vector, and the chunk that they are of; tell the rest at the end."""
        tally = Tally(answerer=self.answerer)
        chunks = self.files.embed(
            self.encoder,
            store_dtype=store_dtype(self.answerer.run.document),
            workers=self.workers,
            stopping=stopping,
        )
        if self.answerer.prevalence == EM:
            # What is assumed of one depends on all.
            every = list(chunks)
            chunks = iter([joined(every)] if every else [])
        for chunk in chunks:
            answers = self._answers(chunk, tally) if len(chunk.units.unit_ids) else []
            tally.lack(chunk)
            failed = [f"{shown(Path(path))}: {why}" for path, why in chunk.failed]
            yield answers, failed, chunk
        tally.tell(notify)

    def _answers(self, chunk: FileUnitsChunk, tally: Tally) -> list[dict[str, Any]]:
        units = with_metadata(self.answerer.run, chunk.units, self.metadata, notify=tally.say_once)
        images = np.bincount(units.unit_of_image, minlength=len(units.unit_ids))
        facts = facts_of_units(
            units,
            paths=[shown(Path(path)) for path in chunk.paths],
            stored_ids=chunk.stored_ids,
            table=chunk.table,
            partial=[bool(count < known) for count, known in zip(images, chunk.known, strict=True)],
        )
        answers = self.answerer.answer(units, facts, chunk.stored_ids)
        tally.add(answers)
        tally.note(chunk)
        return answers


@dataclass(kw_only=True)
class Tally:
    """What a person should know at the end of many answers."""

    answerer: Answerer
    units: int = 0
    unlike: int = 0
    unsure: list[str] = field(default_factory=list)
    lacking: Counter[str] = field(default_factory=Counter)
    partial: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    said: dict[str, None] = field(default_factory=dict)

    def add(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Count answers."""
        self.units += len(answers)
        self.unlike += sum(bool(answer["unlike_training"]) for answer in answers)
        self.unsure += [_unsure(answer) for answer in answers if answer.get("level_unsure")]
        for answer in answers:
            self.kinds.update(
                (column, kind) for column, kinds in answer.get("kinds_unseen", {}).items() for kind in kinds
            )

    def lack(self, chunk: FileUnitsChunk) -> None:
        """Count what the units of a chunk lack."""
        self.lacking.update(chunk.lacking)

    def note(self, chunk: FileUnitsChunk) -> None:
        """Count what is special about the images of a chunk."""
        self.notes.update(chunk.notes)
        self.replaced += [shown(Path(path)) for path in chunk.replaced]
        counts = Counter(chunk.units.unit_of_image.tolist())
        for place, (name, known) in enumerate(zip(chunk.units.unit_ids.tolist(), chunk.known, strict=True)):
            if counts[place] < known:
                self.partial.append(f"{name} ({counts[place]:,} of {known:,} images)")

    def say_once(self, line: str) -> None:
        """Keep a line for the end, once."""
        self.said[line] = None

    def tell(self, notify: Notify) -> None:
        """Tell all of it."""
        for line in (*self.said, *lines_of_notes(self.notes)):
            notify(line)
        if self.lacking:
            notify("lacking: " + "; ".join(f"{count:,} x {what}" for what, count in self.lacking.items()))
        if self.unsure:
            notify(
                f"{len(self.unsure):,} of {self.units:,} units with unsure levels (level_unsure), whose names may be "
                f"one off: {_first(self.unsure)}"
            )
        if self.partial:
            notify(f"answered from a part of their images: {_first(self.partial)}")
        if self.replaced:
            notify(f"files with other pixels than the store holds of them: {_first(self.replaced)}")
        learned = learned_kinds(self.answerer.run.document)
        for (column, kind), count in sorted(self.kinds.items()):
            notify(
                f"{column} {kind}: {count:,} of {self.units:,} units; the run learned from "
                f"{', '.join(learned[column])} only"
            )
        if 2 * self.unlike > self.units:
            notify(
                f"{self.unlike:,} of {self.units:,} units are unlike those that the run learned from "
                "(unlike_training): do not rely on these answers"
            )


def _unsure(answer: Mapping[str, Any]) -> str:
    confidence = answer["localisation"]["confidence"]
    return f"{answer['unit_id']}" + ("" if confidence is None else f" (confidence {confidence:.2f})")


def _first(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - _SHOWN:,} more" if len(lines) > _SHOWN else ""
    return ", ".join(lines[:_SHOWN]) + more
