"""Time the cross-validated logistic probe of a small data set, beside scikit-learn's LogisticRegressionCV.

Both choose among the same strengths, on raw and on standardised vectors, in the same patient folds: five outer folds,
and in each the inner folds of its own patients. The probe does more in its time: it also fits all patients, calibrates,
makes conformal sets and draws intervals; scikit-learn's seconds are those of its five outer fits alone. Log losses
are of the units of the outer folds, the probe's uncalibrated beside its calibrated ones.

Examples
--------
python benchmarks/small_probe.py
python benchmarks/small_probe.py --sizes 250,1000 --threads 1
"""

from __future__ import annotations

import time
import warnings
from argparse import ArgumentParser
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from synthetic import synthetic_view
from table import parse, show
from threadpoolctl import threadpool_limits

from embedstore.view import View
from heads.estimators.logistic import STRENGTHS
from heads.folds import assign_folds
from heads.inputs.leakage import leakage_groups
from heads.inputs.unit_images import UnitImages
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe
from heads.scores import probabilities_from_scores
from heads.statistics.metric_functions import log_loss

FOLDS = 5
# Of 1,000 real chest radiographs 682 patients; one image each is a unit here.
_PATIENTS = 0.68
_ITERATIONS = 1000


def main() -> None:
    """Measure and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="250,1000", help="comma-separated numbers of images")
    parser.add_argument("--dim", type=int, default=1152)
    parser.add_argument("--informative", type=int, default=30, help="axes that the labels follow")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-reference", action="store_true", help="time the probe alone")
    options = parse(parser)
    torch.set_num_threads(options.threads)
    # What is loaded at the first use is no time of the probe's.
    probe(synthetic_view(300, 8, 100, 0), ProbeOptions(draws=2))
    rows = []
    with threadpool_limits(options.threads):
        for size in (int(size) for size in options.sizes.split(",")):
            view = synthetic_view(
                size, options.dim, int(_PATIENTS * size), options.seed, informative=options.informative
            )
            rows.append(measure(view, reference=not options.no_reference))
    show(f"{options.dim} dimensions, {options.threads} threads", rows, json_path=options.json)


def measure(view: View, *, reference: bool) -> dict[str, Any]:
    """Return a row: seconds and log loss of the probe, and of scikit-learn on the same folds."""
    started, cpu = time.perf_counter(), time.process_time()
    result = probe(view, ProbeOptions(cross_validate=True, folds=FOLDS))
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    evaluated = result.evaluated
    y = evaluated.y[:, 0]
    row: dict[str, Any] = {
        "images": len(view.X),
        "units": len(y),
        "probe (s)": seconds,
        "of it processor (s)": cpu_s,
        "log loss, calibrated": float(log_loss(y, evaluated.probabilities[:, 0])[0]),
        "uncalibrated": float(log_loss(y, probabilities_from_scores(evaluated.scores[:, 0]))[0]),
    }
    if reference:
        started, cpu = time.perf_counter(), time.process_time()
        probabilities = _reference(view, evaluated.fold)
        row["LogisticRegressionCV (s)"] = time.perf_counter() - started
        row["its processor (s)"] = time.process_time() - cpu
        row["its log loss"] = float(log_loss(y, probabilities)[0])
        row["times faster"] = row["LogisticRegressionCV (s)"] / seconds
        row["by processor time"] = row["its processor (s)"] / cpu_s
    return row


def _reference(view: View, folds: np.ndarray) -> np.ndarray:
    """Return scikit-learn's probabilities of the outer folds, by the better normalisation of the inner ones."""
    units = UnitImages.of_view(view, leakage_groups(view))
    X, unit_of_row, y = units.X, units.unit_of_row, units.y[:, 0]
    answers = np.empty((len(y), 2))
    for fold in range(FOLDS):
        inside = folds != fold
        inner = assign_folds(
            units.y[inside],
            np.unique(units.groups[inside], return_inverse=True)[1],
            folds=FOLDS,
            n_classes=2,
            seed=1 + fold,
        )
        fold_of_unit = np.full(len(y), -1)
        fold_of_unit[inside] = inner
        learned = inside[unit_of_row]
        fold_of_row = fold_of_unit[unit_of_row[learned]]
        cv = [(np.flatnonzero(fold_of_row != k), np.flatnonzero(fold_of_row == k)) for k in range(FOLDS)]
        models = [_model(cv), make_pipeline(StandardScaler(), _model(cv))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for model in models:
                model.fit(X[learned], y[unit_of_row[learned]])
        best = max(models, key=_inner_score)
        probabilities = best.predict_proba(X[~learned])
        of_row = unit_of_row[~learned]
        for k in range(2):
            sums = np.bincount(of_row, probabilities[:, k], len(y))
            answers[~inside, k] = (sums / np.maximum(np.bincount(of_row, minlength=len(y)), 1))[~inside]
    return answers


def _model(cv: list[tuple[np.ndarray, np.ndarray]]) -> LogisticRegressionCV:
    return LogisticRegressionCV(
        Cs=list(STRENGTHS),
        cv=cv,
        scoring="neg_log_loss",
        max_iter=_ITERATIONS,
        use_legacy_attributes=False,
        l1_ratios=(0.0,),
    )


def _inner_score(model: Any) -> float:
    fitted = model[-1] if hasattr(model, "steps") else model
    return float(fitted.scores_.mean(axis=0).max())


if __name__ == "__main__":
    main()
