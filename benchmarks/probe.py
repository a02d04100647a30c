"""Time the logistic probe at the size of MURA, beside scikit-learn doing the same grid.

Vectors have a decaying spectrum as embeddings have; labels follow a linear rule with noise. scikit-learn
solves the same problems with L-BFGS one by one. By default it does all of them; ``--reference-problems N``
does N, spread over the grid (16: each strength once), and the ratio is then of its seconds for these N to ours
for all: the smallest that it can be. For this comparison every strength is solved; the probe leaves out those that
cannot win.

Examples
--------
python benchmarks/probe.py --rows 4000 --dim 256 --patients 1200
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from synthetic import synthetic_view
from threadpoolctl import threadpool_limits

from embedstore.view import View
from heads.base import Training
from heads.estimators.logistic import STRENGTHS, LogisticFamily
from heads.inputs.leakage import leakage_groups
from heads.inputs.unit_images import UnitImages
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe
from heads.scores import probabilities_from_scores
from heads.statistics.metric_functions import log_loss

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


def measure(view: View, options: argparse.Namespace) -> dict[str, float | int | str | bool]:
    """Run the probe, then the grid alone, then scikit-learn on the same grid."""
    family = LogisticFamily(normalisations=("none",))
    started, cpu = time.perf_counter(), time.process_time()
    result = probe(view, ProbeOptions(draws=options.draws, folds=FOLDS, seed=options.seed), family=family)
    whole_s, whole_cpu_s = time.perf_counter() - started, time.process_time() - cpu
    train = view.splits == "train"
    rows = UnitImages.of_view(view, leakage_groups(view)).take(train)
    folds = result.fitted.folds[rows.unit_of_row]
    y = rows.y[rows.unit_of_row]
    training = Training.of_rows(
        rows.X, y, sample_weight=np.ones(y.shape, np.float32), groups=folds, n_classes=2
    )
    started = time.perf_counter()
    found = np.isfinite(family.out_of_fold(training, folds, seed=options.seed).scores).all(axis=(1, 2, 3))
    chosen_s = time.perf_counter() - started
    # Every strength solved, as scikit-learn solves every one.
    started = time.perf_counter()
    scores = replace(family, doubt=np.inf).out_of_fold(training, folds, seed=options.seed).scores
    grid_s = time.perf_counter() - started
    problems = [(strength, fold) for strength in range(len(STRENGTHS)) for fold in range(FOLDS)]
    wanted = options.reference_problems or len(problems)
    chosen = [problems[i] for i in np.unique(np.linspace(0, len(problems) - 1, wanted).round().astype(int))]
    reference_s, worst, converged = _reference(rows.X, y[:, 0], folds, scores, chosen)
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
        "grid as the probe solves it (s)": chosen_s,
        "  strengths finished in it": int(found.sum()),
        "whole grid, every strength (s)": grid_s,
        "problems of the grid": len(problems),
        "scikit-learn problems solved": len(chosen),
        "scikit-learn, these problems (s)": reference_s,
        "times faster at least, promise 30": reference_s / grid_s,
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
    parser.add_argument("--reference-problems", type=int, help="solve only so many with scikit-learn")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
