"""What the heads of a lumbar study cost at the competition's size: 1,975 studies of 75 slices, synthetic vectors.

``python benchmarks/lumbar_heads.py`` prints a table and writes JSON; ``--studies 400`` is a quick look, ``--only``
names parts. The limits are for two cores: binned pooling 2 minutes, attention in 5 folds 10 minutes, intervals of
25 targets 30 seconds, a prediction from cached vectors 50 ms a study.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.lumbar.levels import CLASS_WEIGHTS, CLASSES, SEVERITY, TARGETS, scored_condition
from embedstore.task import Task
from embedstore.view import PLACE
from heads.estimators.attention import AttentionFamily
from heads.estimators.logistic import LogisticFamily
from heads.inputs.binned import Bins
from heads.inputs.input_ways import HeadInputs
from heads.inputs.unit_images import UnitImages
from heads.lumbar.rsna_score import draw_run_score
from heads.lumbar.severity_results import draw_severity
from heads.protocol.fitting import fit
from heads.protocol.predictor import Predictor
from heads.statistics.bootstrap import draw_patients
from heads.statistics.evaluation import Scored, evaluate

SERIES = {"sagittal T1": 15, "sagittal T2": 15, "axial T2": 45}
_SPEAKS = {
    "spinal": ("sagittal T2", "axial T2"),
    "foraminal": ("sagittal T1",),
    "subarticular": ("axial T2",),
}
_SHARES = (0.774, 0.163, 0.063)  # of the competition's labels
LIMITS = {
    "binned pooling": 120.0,
    "attention, 5 folds": 600.0,
    "bootstrap of 25 targets": 30.0,
    "prediction, ms a study": 50.0,
}


def lumbar_rows(studies: int, dim: int, seed: int) -> tuple[UnitImages, npt.NDArray[np.str_]]:
    """Return the slices of synthetic studies with labels, and the place of each."""
    generator = np.random.default_rng(seed)
    kinds = np.repeat(list(SERIES), list(SERIES.values()))
    slices = len(kinds)
    within = np.concatenate([np.arange(count) / count for count in SERIES.values()])
    places = np.array([f"{kind} {int(8 * share) + 1}/8" for kind, share in zip(kinds, within, strict=True)])
    severity = generator.normal(size=(studies, 1)) + generator.normal(size=(studies, len(TARGETS)))
    cuts = np.quantile(severity, np.cumsum(_SHARES)[:2])
    y = np.digitize(severity, cuts)
    spectrum = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    X = generator.standard_normal((studies * slices, dim), np.float32) * spectrum
    rows = X.reshape(studies, slices, dim)
    for at, target in enumerate(TARGETS):
        speaking = np.flatnonzero(np.isin(kinds, _SPEAKS[scored_condition(target)]))
        rows[:, speaking[at % len(speaking)], at % dim] += severity[:, at].astype(np.float32)
    speaks = np.stack([np.isin(kinds, _SPEAKS[scored_condition(target)]) for target in TARGETS], axis=1)
    images = UnitImages(
        X=X,
        metadata={PLACE: np.tile(places, studies)},
        unit_of_row=np.repeat(np.arange(studies), slices),
        y=y,
        groups=np.arange(studies),
        image_of_target=np.tile(speaks, (studies, 1)),
    )
    return images, np.tile(places, studies)


def pooled(images: UnitImages) -> None:
    """Learn the places and pool every study."""
    bins = Bins.learn(images.X, images.metadata)
    bins.pool(images.X, images.metadata, images.unit_of_row, n_units=images.n_units)


def attention_folds(images: UnitImages, task: Task, grid: AttentionFamily) -> None:
    """Select, fit and calibrate attention in 5 folds, all 25 targets, each on the slices that speak for it."""
    fit(
        images,
        grid,
        task,
        inputs=[HeadInputs("mean-probability", (PLACE,))],
        folds=5,
        class_weights="none",
        seed=0,
    )


def bootstrap(images: UnitImages, seed: int) -> None:
    """State the score and the results by target, condition, level and side with intervals of 2,000 draws."""
    logits = np.random.default_rng(seed).normal(size=(*images.y.shape, 3))
    logits += 1.5 * (images.y[..., None] == np.arange(3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    draws = draw_patients(images.groups.astype(str), draws=2000, seed=0)
    scored = Scored(images.y, probabilities, draws, (1.0, 2.0, 4.0), ordered=True)
    draw_run_score(scored, TARGETS)
    for cells in draw_severity(scored, TARGETS).values():
        for found in cells.values():
            for entry in found.values():
                entry.estimate()
    for target in range(len(TARGETS)):
        evaluate(scored.take_target(target))


def measure(studies: int, dim: int, only: list[str]) -> dict[str, float]:
    """Return part -> seconds by the clock and of processor time, and milliseconds of a prediction."""
    images, _ = lumbar_rows(studies, dim, 0)
    task = _task()
    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        if only and not any(name.startswith(word) for word in only):
            return None
        started, used = time.perf_counter(), time.process_time()
        result = work()
        found[name] = time.perf_counter() - started
        found[f"{name}, CPU"] = time.process_time() - used
        print(f"{name:<38}{found[name]:9.2f} s, {found[f'{name}, CPU']:.2f} s of processor", flush=True)
        return result

    timed("binned pooling", lambda: pooled(images))
    timed("bootstrap of 25 targets", lambda: bootstrap(images, 1))
    whole = UnitImages(
        X=images.X,
        metadata=images.metadata,
        unit_of_row=images.unit_of_row,
        y=images.y,
        groups=images.groups,
    )
    fitted = timed(
        "binned pooling + logistic, 5 folds",
        lambda: fit(
            whole,
            LogisticFamily(),
            task,
            inputs=[HeadInputs("binned")],
            folds=5,
            class_weights="none",
            seed=0,
        ),
    )
    if fitted is not None:
        found["prediction, ms a study"] = _prediction_ms(fitted.predictor, whole)
        print(f"{'prediction, ms a study':<38}{found['prediction, ms a study']:9.2f} ms", flush=True)
    timed("attention, 5 folds", lambda: attention_folds(images, task, AttentionFamily()))
    return found


def _prediction_ms(predictor: Predictor, images: UnitImages) -> float:
    """Answer for single studies from their vectors, one at a time: processor time, whatever else runs."""
    taken = []
    for study in range(10):
        own = images.unit_of_row == study
        started = time.process_time()
        scores = predictor.scores(
            images.X[own],
            np.zeros(int(own.sum()), np.int64),
            n_units=1,
            metadata={PLACE: images.metadata[PLACE][own]},
        )
        predictor.probabilities(scores)
        taken.append(time.process_time() - started)
    return 1000 * float(np.median(taken))


def _task() -> Task:
    labels = pa.table({name: pa.array([], pa.string()) for name in ("unit_id", *TARGETS)})
    return Task(SEVERITY, "study", TARGETS, CLASSES, labels, class_weights=CLASS_WEIGHTS, ordered=True)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1975)
    parser.add_argument("--dim", type=int, default=1152)
    parser.add_argument("--only", nargs="*", default=[], metavar="PART")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/lumbar_heads.json"))
    given = parser.parse_args()
    found = measure(given.studies, given.dim, given.only)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "studies": given.studies,
        "dim": given.dim,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "measured": found,
        "limits": LIMITS,
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
