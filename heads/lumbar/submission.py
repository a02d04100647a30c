"""Submission files of the RSNA 2024 Lumbar Spine competition: a row for each study and target, three probabilities."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from embedstore.files import StrPath, write_durable
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.tables.rows import Cell, Rows
from embedstore.tables.table_file import read_rows
from heads.lumbar.rsna_score import require_all_targets
from heads.scores import Floats

COLUMNS = ("row_id", "normal_mild", "moderate", "severe")
_ROW_ID = re.compile(r"(\d+)_(" + "|".join(TARGETS) + ")")
# scikit-learn's `log_loss` asks for the square root of float64's resolution; files are written with six digits, too.
_SUM_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The content of a submission file.

    Parameters
    ----------
    study_ids
        (n_studies,) str, in the order of the file.
    probabilities
        (n_studies, 25, 3) in the order of `targets` and of the classes: normal or mild, moderate, severe.
    targets
        The competition's 25 targets, as `embed extract --dataset rsna-lumbar` names them.
    """

    study_ids: npt.NDArray[np.str_]
    probabilities: Floats
    targets: tuple[str, ...] = TARGETS


def write_submission(
    path: StrPath,
    study_ids: Sequence[str],
    probabilities: npt.ArrayLike,
    *,
    targets: Sequence[str] = TARGETS,
) -> None:
    """Write a submission file, with the competition's columns and its order of rows.

    Parameters
    ----------
    path
        A ``.csv`` file; its folder must exist.
    study_ids
        (n_studies,) numbers of the competition's studies, each once.
    probabilities
        (n_studies, targets, 3); calibrated ones score best after `heads.for_rsna_score`.
    targets
        Names of the columns of `probabilities`, all of the competition's in any order.

    Raises
    ------
    UsageError
        If a study id is no number or stands there twice, a target is missing, shapes do not agree, or a study has no
        probabilities for a target.

    Examples
    --------
    >>> prior = np.tile([0.7, 0.2, 0.1], (2, 25, 1))
    >>> heads.write_submission("submission.csv", ["44036939", "44036940"], heads.for_rsna_score(prior))
    >>> heads.read_submission("submission.csv").probabilities.shape
    (2, 25, 3)
    """
    require_all_targets(targets)
    values = np.asarray(probabilities, np.float64)
    if values.shape != (len(study_ids), len(targets), len(CLASSES)):
        raise UsageError(
            f"probabilities must have shape ({len(study_ids)}, {len(targets)}, {len(CLASSES)}); found {values.shape}"
        )
    _require_studies(study_ids)
    _require_distributions(values, study_ids, targets)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    order = sorted(range(len(targets)), key=lambda at: targets[at])
    for row in sorted(range(len(study_ids)), key=lambda at: int(study_ids[at])):
        for at in order:
            writer.writerow([f"{study_ids[row]}_{targets[at]}", *map(repr, values[row, at].tolist())])
    write_durable(Path(path), text.getvalue().encode(), label="submission")


def read_submission(path: StrPath) -> Submission:
    """Read a submission file with the competition's checks.

    Raises
    ------
    DataError
        If a column is missing or too many, a row id is none or stands there twice, a number is none, is negative or not
        finite, a row does not sum to 1, or a study has not all of its 25 rows; with the line.

    Examples
    --------
    >>> prior = np.tile([0.7, 0.2, 0.1], (2, 25, 1))
    >>> heads.write_submission("submission.csv", ["44036939", "44036940"], heads.for_rsna_score(prior))
    >>> found = heads.read_submission("submission.csv")
    >>> found.study_ids.tolist(), found.probabilities[0, 0].round(3).tolist()
    (['44036939', '44036940'], [0.467, 0.267, 0.267])
    """
    rows = read_rows(Path(path))
    if sorted(rows.columns) != sorted(COLUMNS):
        raise DataError(
            f"{path}: must have the columns {', '.join(COLUMNS)}; found {', '.join(rows.columns)}"
        )
    numbers = np.array([_distribution(rows, row) for row in range(len(rows))]).reshape(-1, len(CLASSES))
    place_of_target = {target: at for at, target in enumerate(TARGETS)}
    rows_of_study: dict[str, list[int]] = {}
    for row, cell in enumerate(rows.columns["row_id"]):
        study, target = _row_id(rows, row, cell)
        places = rows_of_study.setdefault(study, [-1] * len(TARGETS))
        at = place_of_target[target]
        if places[at] >= 0:
            raise DataError(
                f"{rows.where(row)}: row_id must be given once; found {cell}, which stands on "
                f"{rows.place_of(places[at])} already"
            )
        places[at] = row
    for study, places in rows_of_study.items():
        if -1 in places:
            raise DataError(
                f"{path}: study {study} must have {len(TARGETS)} rows; found {len(TARGETS) - places.count(-1)}, and no "
                f"{study}_{TARGETS[places.index(-1)]}"
            )
    order = np.array(list(rows_of_study.values()), np.int64).reshape(-1, len(TARGETS))
    return Submission(study_ids=np.array(list(rows_of_study), np.str_), probabilities=numbers[order])


def _row_id(rows: Rows, row: int, cell: Cell) -> tuple[str, str]:
    found = _ROW_ID.fullmatch(str(cell))
    if found is None:
        raise DataError(
            f"{rows.where(row)}: row_id must be STUDY_CONDITION_LEVEL, as 44036939_{TARGETS[0]}; found {cell!r}"
        )
    return found[1], found[2]


def _distribution(rows: Rows, row: int) -> list[float]:
    numbers = []
    for name in COLUMNS[1:]:
        cell = rows.columns[name][row]
        try:
            number = float(cell if cell is not None else "nothing")
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0:
            raise DataError(f"{rows.where(row)}: {name} must be a finite number of 0 or more; found {cell!r}")
        numbers.append(number)
    if abs(sum(numbers) - 1) > _SUM_TOLERANCE:
        raise DataError(
            f"{rows.where(row)}: {', '.join(COLUMNS[1:])} must sum to 1; found {sum(numbers):.6g}"
        )
    return numbers


def _require_studies(study_ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for study in map(str, study_ids):
        if not re.fullmatch(r"\d+", study):
            raise UsageError(f"study_ids must be numbers of the competition's studies; found {study!r}")
        if study in seen:
            raise UsageError(f"study_ids must hold each study once; found {study!r} twice")
        seen.add(study)


def _require_distributions(values: Floats, study_ids: Sequence[str], targets: Sequence[str]) -> None:
    absent = np.argwhere(np.isnan(values).any(axis=2))
    if len(absent):
        study, target = absent[0].tolist()
        raise UsageError(
            f"probabilities must be there for every study and target; found none of {len(absent):,}, such as study "
            f"{study_ids[study]}, target {targets[target]}: give what you would say without an image (the prevalence)"
        )
    wrong = np.argwhere((values < 0).any(axis=2) | (np.abs(values.sum(axis=2) - 1) > _SUM_TOLERANCE))
    if len(wrong):
        study, target = wrong[0].tolist()
        raise UsageError(
            f"each row of probabilities must sum to 1 and none be negative; found {values[study, target].tolist()} of "
            f"study {study_ids[study]}, target {targets[target]}"
        )
