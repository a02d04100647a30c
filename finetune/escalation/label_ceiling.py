"""How many labels may be wrong, and how good an answer that is always right would then look.

A head that has learned all there is, on labels of which a share is wrong by chance, errs as often where it is sure as
elsewhere; one that lacks something errs less where it is sure. So errors out of fold are taken for wrong labels only
where those of the surest quarter of the units are hardly rarer than the others', and all are rare beside chance; and
then as many as the lower end of an interval says, of the surest or of all, whichever err less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from embedstore.view import MISSING
from heads.scores import Floats
from heads.statistics.evaluation import decide
from heads.statistics.label_noise import label_noise_candidates
from heads.statistics.metrics import METRICS

# The surest of the units, by the probability of the likeliest class.
SUREST_SHARE = 0.25
# Of fewer, a share of errors says nothing.
LEAST_SUREST = 25
# The others' share of errors over that of the surest, below which the head counts as having learned all there is: it
# is 1 there, and 1.7 or more for a head of AUROC 0.65 to 0.9 that merely lacks something (docs/escalate.md).
SATURATED_RATIO = 1.5
# The share of errors over that of always saying the most frequent class. A head at chance errs alike everywhere as
# well, but at 1.
SATURATED_OF_CHANCE = 0.5
LEVEL = 0.95
_FLIPS = 200


@dataclass(frozen=True, kw_only=True)
class LabelEvidence:
    """What out-of-fold answers say of the labels, over all targets that count.

    Parameters
    ----------
    labelled, doubtful
        Labels, and those that some other class explains better (`heads.statistics.label_noise`).
    surest, surest_errors
        The surest labels, and how many of them the head contradicts.
    others, other_errors
        The same of the others.
    saturated
        Whether the head's errors are taken for wrong labels.
    wrong_share
        Share of wrong labels: the lower end of a 95 % interval of the surest units' errors or of all, whichever are
        fewer; 0 unless saturated.
    ceiling
        The goal's metric of an answer that is always right, where so many labels are wrong; NaN where none is known.
    """

    labelled: int
    doubtful: int
    surest: int
    surest_errors: int
    others: int
    other_errors: int
    saturated: bool
    wrong_share: float
    ceiling: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found: dict[str, Any] = dict(self.__dict__)
        return found | {"ceiling": None if np.isnan(self.ceiling) else self.ceiling}


def label_evidence(
    y: npt.NDArray[np.int64],
    probabilities: Floats,
    classes: Sequence[str],
    *,
    evaluated: npt.NDArray[np.int64],
    metric: str,
    seed: int = 0,
) -> LabelEvidence:
    """Judge the labels by calibrated answers out of fold.

    Parameters
    ----------
    y
        (n, targets) int64, `MISSING` where there is no label.
    probabilities
        (n, targets, n_classes), out of fold.
    classes
        Names.
    evaluated
        (m, targets) int64 labels of the evaluation set, for which the ceiling is stated.
    metric
        Name of the goal's metric.
    seed
        Of the labels that are turned to state a ceiling.
    """
    doubtful = 0
    chance_errors = 0.0
    counts = np.zeros((2, 2), np.int64)
    for target in range(y.shape[1]):
        known = (y[:, target] != MISSING) & np.isfinite(probabilities[:, target]).all(axis=1)
        truth, said = y[known, target], probabilities[known, target]
        if not len(truth):
            continue
        doubtful += len(label_noise_candidates(truth, said, classes))
        order = np.argsort(-said.max(axis=1), kind="stable")
        wrong = (decide(said) != truth)[order]
        cut = int(np.ceil(SUREST_SHARE * len(truth)))
        for row, part in enumerate((wrong[:cut], wrong[cut:])):
            counts[row] += (len(part), int(part.sum()))
        chance_errors += len(truth) - int(np.bincount(truth, minlength=len(classes)).max())
    (surest, surest_errors), (others, other_errors) = counts.tolist()
    parts = [(surest, surest_errors), (surest + others, surest_errors + other_errors)]
    of_surest, of_all = (errors / max(count, 1) for count, errors in parts)
    saturated = (
        surest >= LEAST_SUREST
        and surest_errors > 0
        and other_errors / max(others, 1) < SATURATED_RATIO * of_surest
        and of_all <= SATURATED_OF_CHANCE * chance_errors / max(surest + others, 1)
    )
    count, errors = parts[0] if of_surest < of_all else parts[1]
    wrong_share = float(beta.ppf((1 - LEVEL) / 2, errors, count - errors + 1)) if saturated else 0.0
    return LabelEvidence(
        labelled=surest + others,
        doubtful=doubtful,
        surest=surest,
        surest_errors=surest_errors,
        others=others,
        other_errors=other_errors,
        saturated=saturated,
        wrong_share=wrong_share,
        ceiling=label_ceiling(evaluated, len(classes), wrong_share, metric=metric, seed=seed)
        if saturated
        else float("nan"),
    )


def label_ceiling(
    y: npt.NDArray[np.int64], n_classes: int, wrong_share: float, *, metric: str, seed: int = 0
) -> float:
    """Return what a metric of an answer that is always right comes to, on labels of which a share is wrong.

    The mean over 200 ways in which that share of labels may have been turned into another class at random; NaN for a
    metric that needs more than labels and answers.

    Parameters
    ----------
    y
        (n, targets) int64 labels, `MISSING` where there is none.
    n_classes
        Number of classes.
    wrong_share
        Share of wrong labels, 0 to 1.
    metric
        Name of the metric.
    seed
        Of the turned labels.

    Examples
    --------
    >>> y = np.repeat([[0], [1]], 500, axis=0)
    >>> round(label_ceiling(y, 2, 0.1, metric="accuracy"), 2), round(label_ceiling(y, 2, 0.1, metric="kappa"), 2)
    (0.9, 0.8)
    """
    row = METRICS[metric]
    if row.needs_class_weights:
        return float("nan")
    generator = np.random.default_rng(seed)
    found = []
    for target in range(y.shape[1]):
        labels = y[y[:, target] != MISSING, target]
        if not len(labels):
            continue
        values = []
        for _ in range(_FLIPS):
            turned = generator.random(len(labels)) < wrong_share
            truth = np.where(
                turned, (labels + generator.integers(1, n_classes, len(labels))) % n_classes, labels
            )
            said = np.full((len(labels), n_classes), wrong_share / (n_classes - 1))
            said[np.arange(len(labels)), truth] = 1 - wrong_share
            values.append(float(row.values(labels, said, decide(said), None)[0]))
        found.append(np.mean(values))
    return float(np.mean(found)) if found else float("nan")
