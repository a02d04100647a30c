"""Answers as they come: JSON lines on stdout or in a file, a table for a spreadsheet, or Parquet."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from embedstore.errors import UsageError
from embedstore.files import StrPath
from heads.lumbar.coded_answers import coded_answer
from heads.lumbar.submitted_studies import SubmittedStudies

COMPACT, FULL, SUBMISSION, CODES = "compact", "full", "submission", "codes"
STDOUT = Path("-")
_ENDINGS = (".jsonl", ".csv", ".parquet")
_SHORT_DIGITS = 4
_APART = "|"  # between the classes of a set in one cell
_COMPACT_COLUMNS = (
    "unit_id",
    "path",
    "target",
    "decision",
    "conformal_set",
    "unlike_training",
    "level_unsure",
)

Answers = Sequence[Mapping[str, Any]]
Write = Callable[[Answers], None]


def require_prediction_file(path: StrPath, form: str = FULL) -> None:
    """Refuse a name that says no known format, or whose folder is not there; raises UsageError."""
    if form == SUBMISSION and Path(path).suffix != ".csv":
        raise UsageError(
            f"--format submission needs a file to write, --out submission.csv; found --out {path}"
        )
    if form == CODES and Path(path) != STDOUT and Path(path).suffix != ".jsonl":
        raise UsageError(f"--format codes writes JSON lines, --out codes.jsonl; found --out {path}")
    if Path(path) != STDOUT and Path(path).suffix not in _ENDINGS:
        raise UsageError(
            f"--out: the suffix must be {', '.join(_ENDINGS)}, or the name - for stdout; found {Path(path).suffix!r}"
        )
    if not Path(path).parent.is_dir():
        raise UsageError(f"--out: the folder {Path(path).parent} does not exist")


@contextmanager
def open_predictions(path: StrPath, form: str = FULL) -> Iterator[Write]:
    """Yield what takes answers of `cli.jobs.predict_inputs` as they come.

    A file is there when the context ends without an error, and not before.

    Parameters
    ----------
    path
        ``-`` for JSON lines on stdout, or a file by whose ending its format is known: ``.jsonl``, ``.csv`` and
        ``.parquet`` (a row for each unit and target).
    form
        ``full``; ``compact``: what one looks at first, rounded; ``codes``: RSNA lumbar studies as severity codes
        (`heads.lumbar.coded_answers`), JSON lines only; or ``submission``: the file of the RSNA 2024 Lumbar Spine
        competition (`heads.lumbar.submitted_studies`), written when the last answer has come.

    Raises
    ------
    UsageError
        As `require_prediction_file`.
    """
    require_prediction_file(path, form)
    place = Path(path)
    if form == SUBMISSION:
        studies = SubmittedStudies()
        yield studies.add
        studies.write(place)
        return
    if place == STDOUT:
        yield lambda answers: _write_lines(sys.stdout, answers, form)
        return
    part = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        if place.suffix == ".parquet":
            rows: list[dict[str, Any]] = []
            yield lambda answers: rows.extend(_flat(answers, form))
            _write_parquet(part, rows)
        else:
            with part.open("w", encoding="utf-8", newline="") as file:
                yield (
                    _writer_of_lines(file, form) if place.suffix == ".jsonl" else _writer_of_rows(file, form)
                )
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def compact(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one looks at first of an answer: probabilities to four digits, decision and conformal set.

    It says ``partial`` only of answers from a part of a unit's images, and ``level_unsure`` only of crops.
    """
    return {
        "unit": answer["unit_id"],
        "path": answer["path"],
        "targets": {
            target: {
                "probabilities": _rounded(of["probabilities"]),
                "decision": of["decision"],
                "set": of["conformal_set"],
            }
            for target, of in answer["targets"].items()
        },
        "unlike_training": answer["unlike_training"],
        **({"partial": True} if answer["partial"] else {}),
        **_levels(answer),
    }


def _coded(answer: Mapping[str, Any]) -> dict[str, Any]:
    return coded_answer(answer) | _levels(answer)


def _levels(answer: Mapping[str, Any]) -> dict[str, bool]:
    """Return whether the names of an answer's levels are unsure; nothing of whole images."""
    return {"level_unsure": answer["level_unsure"]} if "level_unsure" in answer else {}


def _rounded(probabilities: Mapping[str, float] | None) -> dict[str, float] | None:
    if probabilities is None:
        return None
    return {name: round(probability, _SHORT_DIGITS) for name, probability in probabilities.items()}


def _writer_of_lines(file: IO[str], form: str) -> Write:
    return lambda answers: _write_lines(file, answers, form)


def _write_lines(file: IO[str], answers: Answers, form: str) -> None:
    for answer in answers:
        shown = {COMPACT: compact, CODES: _coded}.get(form, dict)(answer)
        file.write(json.dumps(shown, ensure_ascii=False) + "\n")
    file.flush()


def _writer_of_rows(file: IO[str], form: str) -> Write:
    table: list[csv.DictWriter[str]] = []

    def write(answers: Answers) -> None:
        for row in _flat(answers, form):
            if not table:
                table.append(csv.DictWriter(file, list(row), lineterminator="\n"))
                table[0].writeheader()
            table[0].writerow({name: _cell(value) for name, value in row.items()})
        file.flush()

    return write


def _cell(value: Any) -> Any:
    """Return a value as a spreadsheet takes it."""
    if isinstance(value, list):
        return _APART.join(value)
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else value


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def _flat(answers: Answers, form: str) -> Iterator[dict[str, Any]]:
    """Yield one row per unit and target, with a column per class."""
    for entry in answers:
        for target, answer in entry["targets"].items():
            row = _row(entry, target, answer)
            if form == COMPACT:
                row = {
                    name: round(value, _SHORT_DIGITS) if isinstance(value, float) else value
                    for name, value in row.items()
                    if name in _COMPACT_COLUMNS or name.startswith("prob_")
                }
            yield row


def _row(entry: Mapping[str, Any], target: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    assumed = answer["prevalence"]["assumed"]
    return {
        "unit_id": entry["unit_id"],
        "path": entry["path"],
        "image_id": entry["image_id"],
        "target": target,
        **{f"prob_{name}": (answer["probabilities"] or {}).get(name) for name in assumed},
        "decision": answer["decision"],
        "threshold": answer.get("threshold"),
        "conformal_set": answer["conformal_set"],
        **_heaviest(answer),
        **{f"prevalence_{name}": share for name, share in assumed.items()},
        "source_of_prevalence": answer["prevalence"]["source"],
        **{f"ood_p_{method}": p for method, p in entry["ood_p_value"].items()},
        "unlike_training": entry["unlike_training"],
        "images": entry["images"],
        "partial": entry["partial"],
        "learned_from": entry["learned_from"],
        **_levels(entry),
        **({"level_confidence": entry["localisation"]["confidence"]} if "localisation" in entry else {}),
        "run_id": entry["run_id"],
    }


def _heaviest(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image that had most to say and its weight, from a head that weighs images."""
    if "image_weights" not in answer:
        return {}
    first = next(iter(answer["image_weights"]), {"image": None, "weight": None})
    return {"heaviest_image": first["image"], "image_weight": first["weight"]}
