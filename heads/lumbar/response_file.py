"""A file of generated answers: JSON lines with ``study_id`` and ``response``, and what is wrong with them, counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.files import StrPath
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.lumbar.severity_codes import (
    FLAWS_OF_CELLS,
    FLAWS_OF_RESPONSES,
    UNREAD_RESPONSES,
    ReadResponse,
    read_response,
)
from embedstore.view import MISSING
from heads.scores import Floats

_SHOWN = 80
# Probabilities are written with six digits or so.
_SUM_TO_1 = 1e-3


@dataclass(frozen=True, kw_only=True)
class Responses:
    """The answers in a file.

    Parameters
    ----------
    path
        The file.
    study_ids
        (n,) str, each once, in the order of the file.
    classes
        (n, 25) int64 in the order of `TARGETS`: 0, 1, 2, or `MISSING` where nothing can be read.
    probabilities
        (n, 25, 3) of N, M and S in the order of `TARGETS`, NaN where a line has none; None where no line has.
    flaws
        For each study, kind of flaw -> how often.
    repeated
        Lines left out because they say again what an earlier one said of the study.
    """

    path: Path
    study_ids: npt.NDArray[np.str_]
    classes: npt.NDArray[np.int64]
    probabilities: Floats | None
    flaws: tuple[Mapping[str, int], ...]
    repeated: int

    @property
    def has_probabilities(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: which studies have probabilities."""
        if self.probabilities is None:
            return np.zeros(len(self.study_ids), np.bool_)
        return np.asarray(np.isfinite(self.probabilities).all(axis=(1, 2)), np.bool_)

    def take(self, rows: Sequence[int]) -> Responses:
        """Return some of the studies, in this order."""
        return Responses(
            path=self.path,
            study_ids=self.study_ids[list(rows)],
            classes=self.classes[list(rows)],
            probabilities=None if self.probabilities is None else self.probabilities[list(rows)],
            flaws=tuple(self.flaws[row] for row in rows),
            repeated=self.repeated,
        )

    def counts(self) -> dict[str, Any]:
        """Return how many responses and cells were read, and how many have each kind of flaw, as plain JSON values."""
        total: Counter[str] = Counter()
        for of_study in self.flaws:
            total.update(of_study)
        return {
            "file": str(self.path),
            "responses": len(self.study_ids),
            "unread_responses": sum(total[kind] for kind in UNREAD_RESPONSES),
            "cells": int(self.classes.size),
            "unread_cells": int((self.classes == MISSING).sum()),
            "responses_with_probabilities": int(self.has_probabilities.sum()),
            "repeated_lines": self.repeated,
            "flaws_of_responses": {kind: total[kind] for kind in FLAWS_OF_RESPONSES},
            "flaws_of_cells": {kind: total[kind] for kind in FLAWS_OF_CELLS},
        }


def read_responses(path: StrPath) -> Responses:
    """Read a file of generated answers, one JSON object with ``study_id`` and ``response`` on each line.

    What a response says is read as `embedstore.lumbar.severity_codes.read_response` does, never refused; the response
    may be text, or the JSON object itself. A line may have the probabilities behind its codes, ``slot_probabilities``:
    target of `TARGETS` -> those of N, M and S. Other keys of a line are left alone.

    Raises
    ------
    DataError
        If the file cannot be read or holds no line, a line is no such object, its probabilities are none, or two lines
        of a study differ; with the line.
    """
    place = Path(path)
    try:
        lines = place.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{place} must be a file of JSON lines in UTF-8; found {_reason(error)}") from error
    text_of: dict[str, tuple[str, int]] = {}
    slots_of: dict[str, Floats | None] = {}
    repeated = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        study, text, slots = _line(line, f"{place}, line {number}")
        if study not in text_of:
            text_of[study], slots_of[study] = (text, number), slots
            continue
        earlier, first = text_of[study]
        if earlier != text or not _same(slots_of[study], slots):
            raise DataError(
                f"{place}, line {number}: a study must have one response; found another one of study {study!r} than on "
                f"line {first}: keep one line for each study, or a file for each model"
            )
        repeated += 1
    if not text_of:
        raise DataError(
            f'{place} must hold a line such as {{"study_id": 44036939, "response": "..."}}; found no line'
        )
    read = [read_response(text) for text, _ in text_of.values()]
    return Responses(
        path=place,
        study_ids=np.array(list(text_of), np.str_),
        classes=_stacked(read),
        probabilities=_joined(list(slots_of.values())),
        flaws=tuple(entry.flaws for entry in read),
        repeated=repeated,
    )


def _line(line: str, where: str) -> tuple[str, str, Floats | None]:
    """Return the study and the response of a line, and the probabilities behind it."""
    wanted = 'a JSON object with "study_id" and "response"'
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: must be {wanted}; found {line.strip()[:_SHOWN]!r}") from error
    if not isinstance(entry, dict) or not {"study_id", "response"} <= entry.keys():
        found = f"the keys {list(entry)}" if isinstance(entry, dict) else repr(entry)[:_SHOWN]
        raise DataError(f"{where}: must be {wanted}; found {found}")
    study, response = entry["study_id"], entry["response"]
    if isinstance(study, bool) or not isinstance(study, str | int) or not str(study).strip():
        raise DataError(f"{where}: study_id must be text or a whole number; found {study!r}")
    if response is None:
        response = ""
    text = response if isinstance(response, str) else json.dumps(response)
    slots = entry.get("slot_probabilities")
    return str(study).strip(), text, None if slots is None else _slots(slots, where)


def _slots(slots: object, where: str) -> Floats:
    """Return (25, 3) probabilities, each row of which sums to 1 but for the rounding in the file."""
    wanted = (
        f"slot_probabilities must give each of the {len(TARGETS)} targets the probabilities of N, M and S"
    )
    if not isinstance(slots, dict):
        raise DataError(f"{where}: {wanted}; found {repr(slots)[:_SHOWN]}")
    for name in (*TARGETS, *slots):
        if name not in TARGETS or name not in slots:
            raise DataError(f"{where}: {wanted}; found {'no' if name in TARGETS else 'also'} {name!r}")
    for target in TARGETS:
        found = slots[target]
        numbers = isinstance(found, list) and all(type(value) in (int, float) for value in found)
        if (
            not numbers
            or len(found) != len(CLASSES)
            or min(found) < 0
            or not abs(sum(found) - 1) <= _SUM_TO_1
        ):
            raise DataError(f"{where}: {wanted}, which sum to 1; found {found!r} for {target}")
    table = np.array([slots[target] for target in TARGETS], np.float64)
    return np.asarray(table / table.sum(axis=1, keepdims=True), np.float64)


def _same(one: Floats | None, other: Floats | None) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def _joined(slots: Sequence[Floats | None]) -> Floats | None:
    if all(of_study is None for of_study in slots):
        return None
    none = np.full((len(TARGETS), len(CLASSES)), np.nan)
    return np.stack([none if of_study is None else of_study for of_study in slots])


def _stacked(read: Sequence[ReadResponse]) -> npt.NDArray[np.int64]:
    return np.array([entry.classes for entry in read], np.int64).reshape(-1, len(TARGETS))


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "other bytes" if isinstance(error, UnicodeDecodeError) else (error.strerror or str(error)).lower()
