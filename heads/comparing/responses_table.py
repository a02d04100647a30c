"""Generated answers against runs: files of responses beside the runs that evaluated the same lumbar studies.

A response that cannot be read, whole or in part, is counted in two ways, a row for each: its cells as normal or mild,
which is what most cells are, and as missing. Probabilities that a file gives for its codes are those of the first of
these rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.brief import Brief
from embedstore.errors import UsageError, and_more, require_whole_number
from embedstore.files import StrPath
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.view import MISSING
from heads.comparing.compared_answers import (
    PRIOR,
    RESPONSES,
    RUN,
    Answerer,
    ComparedAnswers,
    compare_answers,
    decisions_of,
)
from heads.comparing.compared_names import compared_names
from heads.comparing.matched_units import MatchedUnits, match_units
from heads.lumbar.response_file import Responses, read_responses
from heads.runs.run import Run
from heads.runs.run_files import load_run
from heads.scores import Floats
from heads.statistics.bootstrap import draw_patients

PRIOR_NAME = "the prior, no image"
_FALLBACK = 0  # Normal/Mild
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, repr=False)
class ResponsesTable(Brief):
    """Runs, generated answers and the prior on the same studies.

    Parameters
    ----------
    task, unit
        Name and unit of the runs' task.
    targets
        Targets that every run has.
    rows
        Runs in the order given, files of responses, the prior.
    baseline
        Position of the run that the others are compared with.
    studies, patients, cells
        How many are compared; cells have a label.
    draws, seed
        Of the bootstrap, which draws whole patients, the same for every row and metric.
    read
        For each file what `heads.lumbar.response_file.Responses.counts` says of the studies compared.
    notes
        What must be known: studies left out, other training sets.
    sources
        The runs' stores, as ``run.json`` has them.
    """

    task: str
    unit: str
    targets: tuple[str, ...]
    rows: tuple[ComparedAnswers, ...]
    baseline: int
    studies: int
    patients: int
    cells: int
    draws: int
    seed: int
    read: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    sources: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the table as plain JSON values."""
        return {
            "task": self.task,
            "unit": self.unit,
            "targets": list(self.targets),
            "baseline": self.rows[self.baseline].name,
            "studies": self.studies,
            "patients": self.patients,
            "cells": self.cells,
            "draws": self.draws,
            "seed": self.seed,
            "rows": [row.to_json() for row in self.rows],
            "responses": list(self.read),
            "notes": list(self.notes),
        }

    def _facts(self) -> dict[str, Any]:
        kappas = {row.name: round(row.metrics["kappa"].value, 3) for row in self.rows}
        return {"task": self.task, "studies": self.studies, "kappa": kappas}


def responses_table(
    runs: Sequence[Run | StrPath],
    responses: Sequence[StrPath],
    *,
    baseline: Run | StrPath | None = None,
    draws: int | None = None,
    seed: int | None = None,
) -> ResponsesTable:
    """Compare generated answers with runs, on the studies that every run evaluated and every file answers.

    Parameters
    ----------
    runs
        One or more of the RSNA 2024 lumbar task, loaded or by their folders.
    responses
        One file or more (`heads.lumbar.response_file.read_responses`), each of one model.
    baseline
        The run that all else is compared with; the first by default.
    draws, seed
        Of the bootstrap; those of the baseline by default.

    Raises
    ------
    UsageError
        If there is no file, targets or classes of a run are not the competition's, or runs and files have no study in
        common.
    DataError
        If a run or a file cannot be read.
    """
    if isinstance(responses, str) or not responses:
        raise UsageError(f"`responses` must name one file or more; found {responses!r}")
    loaded, position = _loaded(runs, baseline)
    _require_lumbar(loaded)
    settings = loaded[position].document["settings"]
    draws, seed = settings["draws"] if draws is None else draws, settings["seed"] if seed is None else seed
    require_whole_number("draws", draws)
    require_whole_number("seed", seed)
    if draws < 1 or seed < 0:
        raise UsageError(f"draws must be 1 or more and seed 0 or more; found draws={draws}, seed={seed}")
    names = compared_names(loaded)
    matched = match_units(loaded, names, baseline=position)
    files = [read_responses(path) for path in dict.fromkeys(map(Path, responses))]
    rows, notes = _common(matched, files, loaded)
    y, patients = matched.y[rows], matched.patients[rows]
    if not (y != MISSING).any():
        raise UsageError("studies of runs and responses must have a label; found none")
    studies = matched.unit_ids[rows].tolist()
    files = [_of_studies(file, studies) for file in files]
    answerers = [
        Answerer(name=name, kind=RUN, said=decisions_of(said[rows]), probabilities=said[rows])
        for name, said in zip(names, matched.probabilities, strict=True)
    ]
    columns = [TARGETS.index(target) for target in matched.targets]
    prior = _prior(loaded[position], matched.targets, len(y))
    for file, name in zip(files, _file_names(files), strict=True):
        answerers += _of_file(name, file.classes[:, columns], _probabilities(file, columns, prior))
        notes += _without_probabilities(file)
    answerers.append(prior)
    return ResponsesTable(
        task=loaded[position].document["task"]["name"],
        unit=loaded[position].document["task"]["unit"],
        targets=matched.targets,
        rows=compare_answers(
            answerers,
            y,
            draw_patients(patients, draws=draws, seed=seed),
            targets=matched.targets,
            classes=loaded[position].classes,
            baseline=position,
        ),
        baseline=position,
        studies=len(y),
        patients=len(np.unique(patients)),
        cells=int((y != MISSING).sum()),
        draws=draws,
        seed=seed,
        read=tuple(file.counts() for file in files),
        notes=(*matched.notes, *notes),
        sources=tuple(source for run in loaded for source in run.document["sources"]),
    )


def _loaded(runs: Sequence[Run | StrPath], baseline: Run | StrPath | None) -> tuple[list[Run], int]:
    """Return the runs, each once, and where the baseline is among them."""
    asked = [*runs] if baseline is None else [*runs, baseline]
    by_place: dict[Path, Run] = {}
    for run in asked:
        place = (run.folder if isinstance(run, Run) else Path(run)).resolve()
        if place not in by_place:
            by_place[place] = run if isinstance(run, Run) else load_run(run)
    if not by_place:
        raise UsageError("runs must be one or more to be compared with responses; found none")
    if baseline is None:
        return list(by_place.values()), 0
    place = (baseline.folder if isinstance(baseline, Run) else Path(baseline)).resolve()
    return list(by_place.values()), list(by_place).index(place)


def _require_lumbar(runs: Sequence[Run]) -> None:
    for run in runs:
        unknown = [target for target in run.targets if target not in TARGETS]
        if unknown or run.classes != CLASSES:
            found = f"target {unknown[0]!r}" if unknown else f"classes {', '.join(run.classes)}"
            raise UsageError(
                "`responses` are severity codes of the RSNA 2024 lumbar targets, and runs must be of these with the "
                f"classes {', '.join(CLASSES)}; found {found} in {run.folder}"
            )


def _common(
    matched: MatchedUnits, files: Sequence[Responses], runs: Sequence[Run]
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the rows of the studies that every file answers, and who is left out."""
    evaluated = matched.unit_ids.tolist()
    answered = set.intersection(*(set(file.study_ids.tolist()) for file in files))
    rows = np.array([row for row, study in enumerate(evaluated) if study in answered], np.int64)
    if not len(rows):
        raise UsageError(
            "`responses` must be of studies that the runs evaluated; found none in common: such as "
            f"{files[0].study_ids.tolist()[0]!r} in {files[0].path}, {evaluated[0]!r} in the runs. Answer the "
            "studies of the evaluation set, by the ids that predictions.parquet has in unit_id"
        )
    learned = frozenset[str]().union(*(run.learned_units for run in runs)) - set(evaluated)
    notes = []
    for file in files:
        others = [study for study in file.study_ids.tolist() if study not in set(evaluated)]
        known = [study for study in others if study in learned]
        unknown = [study for study in others if study not in learned]
        for studies, why in (
            (unknown, "the runs do not know"),
            (known, "runs learned from or did not all evaluate"),
        ):
            if studies:
                notes.append(
                    f"{file.path}: {len(studies):,} responses left out, of studies that {why}: "
                    f"{', '.join(studies[:_SHOWN])}{and_more(len(studies) - _SHOWN)}"
                )
    without = len(evaluated) - len(rows)
    if without:
        notes.append(
            f"{without:,} of {len(evaluated):,} evaluated studies have no response and are left out: if answering them "
            "failed, add them with an empty response"
        )
    return rows, notes


def _of_studies(file: Responses, studies: Sequence[str]) -> Responses:
    row_of = {study: row for row, study in enumerate(file.study_ids.tolist())}
    return file.take([row_of[study] for study in studies])


def _file_names(files: Sequence[Responses]) -> list[str]:
    often = Counter(file.path.stem for file in files)
    return [file.path.stem if often[file.path.stem] == 1 else str(file.path) for file in files]


def _of_file(name: str, classes: npt.NDArray[np.int64], probabilities: Floats | None) -> list[Answerer]:
    """Return the answers of a file with unread cells as normal or mild, and, where there are any, as missing."""
    unread = classes == MISSING
    said = np.where(unread, _FALLBACK, classes)
    filled = Answerer(name=name, kind=RESPONSES, said=said, probabilities=probabilities)
    if not unread.any():
        return [filled]
    return [
        filled,
        replace(filled, name=f"{name}, unread cells left out", said=classes, probabilities=None),
    ]


def _probabilities(file: Responses, columns: Sequence[int], prior: Answerer) -> Floats | None:
    """Return those of a file, and of studies that it gives none for the prior's; None where it gives none at all."""
    if file.probabilities is None or prior.probabilities is None or not file.has_probabilities.any():
        return None
    known = file.has_probabilities[:, None, None]
    return np.where(known, file.probabilities[:, columns], prior.probabilities)


def _without_probabilities(file: Responses) -> list[str]:
    without = int((~file.has_probabilities).sum())
    if without in (0, len(file.study_ids)):
        return []
    return [
        f"{file.path}: {without:,} of {len(file.study_ids):,} responses have no slot_probabilities; there the file's "
        "score, log loss and ECE count the prior's"
    ]


def _prior(run: Run, targets: Sequence[str], n_studies: int) -> Answerer:
    """Return what a run's labels say of a study without an image: the shares of the classes, by target."""
    part = run.out_of_fold if len(run.out_of_fold.unit_ids) else run.evaluated
    shares = np.array([_shares(part.y[:, run.targets.index(target)]) for target in targets])
    probabilities = np.broadcast_to(shares, (n_studies, *shares.shape))
    return Answerer(
        name=PRIOR_NAME, kind=PRIOR, said=decisions_of(probabilities), probabilities=probabilities
    )


def _shares(y: npt.NDArray[np.int64]) -> Floats:
    counts = np.bincount(y[y != MISSING], minlength=len(CLASSES)).astype(np.float64)
    return np.asarray(counts / counts.sum(), np.float64)
