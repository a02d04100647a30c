"""Time the logistic probe at the size of MURA, beside scikit-learn doing the same grid.

Vectors have a decaying spectrum as embeddings have; labels follow a linear rule with noise. scikit-learn
solves the same problems with L-BFGS one by one. By default it does all of them; ``--reference-problems N``
does N, spread over the grid, and extrapolates their mean to the whole grid, which the table then says.

Examples
--------
python benchmarks/probe.py --rows 4000 --dim 256 --patients 1200
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from embedstore.identity import Identity
from embedstore.metrics import log_loss
from embedstore.task import Task
from embedstore.view import View
from heads.base import Training, probabilities_from_scores
from heads.fitting import Rows
from heads.leakage import leakage_groups
from heads.logistic import STRENGTHS, LogisticFamily
from heads.probe import probe

FOLDS = 5
_REFERENCE_ITERATIONS = 1000


def main() -> None:
    """Measure, print and keep the numbers."""
    options = _options()
    torch.set_num_threads(options.threads)
    view = synthetic_view(options.rows, options.dim, options.patients, options.seed)
    with threadpool_limits(options.threads):
        numbers = measure(view, options)
    for name, number in numbers.items():
        print(f"{name:<44} {number:.4g}" if isinstance(number, float) else f"{name:<44} {number}")
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")


def synthetic_view(rows: int, dim: int, patients: int, seed: int) -> View:
    """Make images in studies of patients; a tenth of the patients, with studies beside, judge."""
    generator = np.random.default_rng(seed)
    studies = max(int(rows / 2.735), patients)  # MURA: 36,808 images in 13,457 studies
    patient_of_study = np.sort(
        np.concatenate([np.arange(patients), generator.integers(0, patients, studies - patients)])
    )
    extra = generator.integers(0, studies, max(rows - studies, 0))
    train_units = np.sort(np.concatenate([np.arange(studies), extra]))
    judged = max(studies // 11, 50)
    unit_of_image = np.concatenate([train_units, studies + np.arange(judged)])
    patient_of_unit = np.concatenate([patient_of_study, patients + np.arange(judged)])
    n, n_units = len(unit_of_image), studies + judged
    spectrum = np.arange(1, dim + 1) ** -1.0
    rotation = np.linalg.qr(generator.normal(size=(dim, dim)))[0]
    latent = generator.normal(size=(n, dim)).astype(np.float32)
    latent += generator.normal(size=(n_units, dim)).astype(np.float32)[unit_of_image]
    X = (latent @ (spectrum[:, None] * rotation * np.sqrt(dim)).astype(np.float32)).astype(np.float32)
    rule = generator.normal(size=dim).astype(np.float32)
    by_unit = np.bincount(unit_of_image, latent @ rule) / np.bincount(unit_of_image)
    logit = 2 * by_unit / by_unit.std() - 0.5
    y = (generator.random(n_units) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    unit_ids = np.array([f"study{index}" for index in range(n_units)])
    classes = ("normal", "abnormal")
    labels = pa.table({"unit_id": unit_ids.tolist(), "finding": [classes[k] for k in y]})
    content = np.zeros((n, 32), np.uint8)
    content[:, :8] = np.arange(n, dtype=np.uint64)[:, None].view(np.uint8)
    return View(
        task=Task("synthetic", "study", ("finding",), classes, labels),
        identity=Identity("synthetic", "1", "none", {}, "none", "float32", dim),
        X=X,
        image_ids=np.array([f"image{index}" for index in range(n)]),
        content_sha256=content,
        unit_of_image=unit_of_image,
        unit_ids=unit_ids,
        y=y[:, None],
        patients=np.array([f"patient{index}" for index in patient_of_unit]),
        splits=np.where(np.arange(n_units) < studies, "train", "test"),
        subgroups={},
        excluded={},
    )


def measure(view: View, options: argparse.Namespace) -> dict[str, float | int | str | bool]:
    """Run the probe, then the grid alone, then scikit-learn on the same grid."""
    family = LogisticFamily(normalisations=("none",))
    started, cpu = time.perf_counter(), time.process_time()
    result = probe(view, family=family, draws=options.draws, folds=FOLDS, seed=options.seed)
    whole_s, whole_cpu_s = time.perf_counter() - started, time.process_time() - cpu
    train = view.splits == "train"
    rows = Rows.of_view(view, leakage_groups(view), "mean-probability").take(train)
    folds = result.fitted.folds[rows.unit_of_row]
    y = rows.y[rows.unit_of_row]
    training = Training(rows.X, y, np.ones(y.shape, np.float32), folds, 2)
    started = time.perf_counter()
    scores = family.out_of_fold(training, folds, seed=options.seed)
    grid_s = time.perf_counter() - started
    problems = [(strength, fold) for strength in range(len(STRENGTHS)) for fold in range(FOLDS)]
    wanted = options.reference_problems or len(problems)
    chosen = [problems[i] for i in np.unique(np.linspace(0, len(problems) - 1, wanted).round().astype(int))]
    reference_s, worst, converged = _reference(rows.X, y[:, 0], folds, scores, chosen)
    whole_reference_s = reference_s * len(problems) / len(chosen)
    return {
        "rows": len(rows.X),
        "dim": rows.X.shape[1],
        "patients": len(np.unique(view.patients[train])),
        "threads": options.threads,
        "strengths x folds": f"{len(STRENGTHS)} x {FOLDS}",
        "whole probe (s), promise 15": whole_s,
        "  its processor seconds, all threads": whole_cpu_s,
        "  of it fit (s)": result.seconds["fit"],
        f"  of it evaluation, {options.draws} draws (s)": result.seconds["evaluate"],
        "grid alone (s)": grid_s,
        "scikit-learn, same grid (s)": whole_reference_s,
        "scikit-learn extrapolated": len(chosen) < len(problems),
        "scikit-learn problems solved": len(chosen),
        "times faster, promise 30": whole_reference_s / grid_s,
        "scikit-learn problems converged": converged,
        "largest log loss difference, promise 1e-4": worst,
        "auroc": result.evaluation.overall["auroc"].value,
    }


def _reference(
    X: np.ndarray, y: np.ndarray, folds: np.ndarray, scores: np.ndarray, problems: list[tuple[int, int]]
) -> tuple[float, float, int]:
    """Return scikit-learn's seconds, the largest difference in held-out log loss, and how many converged.

    A problem that scikit-learn gave up after 1,000 iterations has no solution to compare with.
    """
    seconds, worst, converged = 0.0, 0.0, 0
    for strength, fold in problems:
        inside = folds != fold
        vectors, labels = X[inside], y[inside]
        model = LogisticRegression(C=STRENGTHS[strength], max_iter=_REFERENCE_ITERATIONS)
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(vectors, labels)
        seconds += time.perf_counter() - started
        if model.n_iter_[0] >= _REFERENCE_ITERATIONS:
            continue
        converged += 1
        own = log_loss(y[~inside], probabilities_from_scores(scores[strength, ~inside, 0]))[0]
        theirs = log_loss(y[~inside], model.predict_proba(X[~inside]))[0]
        worst = max(worst, abs(float(own - theirs)))
    return seconds, worst, converged


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=36_808, help="training images")
    parser.add_argument("--dim", type=int, default=1152)
    parser.add_argument("--patients", type=int, default=11_184, help="training patients")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--reference-problems", type=int, help="solve only so many with scikit-learn, and extrapolate"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
