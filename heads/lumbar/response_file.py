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
from embedstore.lumbar.levels import TARGETS
from embedstore.lumbar.severity_codes import (
    FLAWS_OF_CELLS,
    FLAWS_OF_RESPONSES,
    UNREAD_RESPONSES,
    ReadResponse,
    read_response,
)
from embedstore.view import MISSING

_SHOWN = 80


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
    flaws
        For each study, kind of flaw -> how often.
    repeated
        Lines left out because they say again what an earlier one said of the study.
    """

    path: Path
    study_ids: npt.NDArray[np.str_]
    classes: npt.NDArray[np.int64]
    flaws: tuple[Mapping[str, int], ...]
    repeated: int

    def take(self, rows: Sequence[int]) -> Responses:
        """Return some of the studies, in this order."""
        return Responses(
            path=self.path,
            study_ids=self.study_ids[list(rows)],
            classes=self.classes[list(rows)],
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
            "repeated_lines": self.repeated,
            "flaws_of_responses": {kind: total[kind] for kind in FLAWS_OF_RESPONSES},
            "flaws_of_cells": {kind: total[kind] for kind in FLAWS_OF_CELLS},
        }


def read_responses(path: StrPath) -> Responses:
    """Read a file of generated answers, one JSON object with ``study_id`` and ``response`` on each line.

    What a response says is read as `embedstore.lumbar.severity_codes.read_response` does, never refused; the response
    may be text, or the JSON object itself. Other keys of a line are left alone.

    Raises
    ------
    DataError
        If the file cannot be read or holds no line, a line is no such object, or two lines of a study differ; with the
        line.
    """
    place = Path(path)
    try:
        lines = place.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{place} must be a file of JSON lines in UTF-8; found {_reason(error)}") from error
    text_of: dict[str, tuple[str, int]] = {}
    repeated = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        study, text = _line(line, f"{place}, line {number}")
        if study not in text_of:
            text_of[study] = (text, number)
            continue
        earlier, first = text_of[study]
        if earlier != text:
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
        flaws=tuple(entry.flaws for entry in read),
        repeated=repeated,
    )


def _line(line: str, where: str) -> tuple[str, str]:
    """Return the study and the response of a line."""
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
    return str(study).strip(), response if isinstance(response, str) else json.dumps(response)


def _stacked(read: Sequence[ReadResponse]) -> npt.NDArray[np.int64]:
    return np.array([entry.classes for entry in read], np.int64).reshape(-1, len(TARGETS))


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "other bytes" if isinstance(error, UnicodeDecodeError) else (error.strerror or str(error)).lower()
