"""What decided grades are worth, without probabilities: kappa, accuracy and F1 of all cells, or of a condition's.

Cells of several targets are counted together, in one confusion matrix, as the published figures of generated answers
are. A cell that has no label, or that nothing was said of, has no part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedstore.lumbar.levels import CLASS_WEIGHTS, CLASSES
from embedstore.view import MISSING
from heads.scores import Floats
from heads.statistics.bootstrap import Draws, ratio, weighted_sums
from heads.statistics.evaluation import Drawn
from heads.statistics.metric_functions import kappa_of_matrices

# As the model card in `severity_codes` has it. The proxy is this times the weighted error, so it says nothing that
# weighted accuracy does not, and is no log loss: 16.1 is about what one makes of a right class of probability 1e-7.
PROXY_FACTOR = 16.1
LABELS = {
    "kappa": "kappa",
    "linear_kappa": "linear kappa",
    "quadratic_kappa": "quadratic kappa",
    "accuracy": "accuracy",
    "weighted_accuracy": "weighted accuracy",
    "weighted_f1": "weighted F1",
    "rsna_proxy": "RSNA proxy",
}
GRADE_METRICS = tuple(LABELS)
_N = len(CLASSES)


def draw_grades(y: npt.NDArray[np.int64], said: npt.NDArray[np.int64], draws: Draws) -> dict[str, Drawn]:
    """Return `GRADE_METRICS` on all studies and in each draw.

    Parameters
    ----------
    y, said
        (n_studies, targets) int64: true and decided class, `MISSING` where there is none.
    draws
        Of the studies' patients.

    Returns
    -------
    dict
        ``weighted_accuracy`` weighs each cell 1, 2 or 4 by its true class; ``weighted_f1`` is the mean F1 of the
        classes, weighed by how many cells are of each; ``rsna_proxy`` is 16.1 x (1 - weighted accuracy). NaN where no
        cell counts.
    """
    counts = _counts(y, said)
    n = int(counts.sum())
    of_all, of_draws = (
        _values(weighted_sums(counts, weights).reshape(-1, _N, _N)) for weights in (None, draws.weights())
    )
    return {name: Drawn(float(of_all[name][0]), of_draws[name], n) for name in GRADE_METRICS}


def _counts(y: npt.NDArray[np.int64], said: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the cells of each study by true and decided class, (n_studies, 9)."""
    counted = (y != MISSING) & (said != MISSING)
    places = np.where(counted, y * _N + said, 0)
    return np.stack([(counted & (places == place)).sum(axis=1) for place in range(_N * _N)], axis=1).astype(
        np.float32
    )


def _values(matrix: Floats) -> dict[str, Floats]:
    """Return the metrics of each of (draws, 3, 3) confusion matrices: true by decided class."""
    distance = np.abs(np.subtract.outer(np.arange(_N), np.arange(_N))).astype(np.float64)
    of_class, decided = matrix.sum(2), matrix.sum(1)
    right = np.diagonal(matrix, axis1=1, axis2=2)
    weighted = ratio((right * CLASS_WEIGHTS).sum(1), (of_class * CLASS_WEIGHTS).sum(1))
    f1 = np.nan_to_num(ratio(2 * right, of_class + decided))
    return {
        "kappa": kappa_of_matrices(matrix, np.minimum(distance, 1)),
        "linear_kappa": kappa_of_matrices(matrix, distance),
        "quadratic_kappa": kappa_of_matrices(matrix, distance**2),
        "accuracy": ratio(right.sum(1), matrix.sum((1, 2))),
        "weighted_accuracy": weighted,
        "weighted_f1": ratio((f1 * of_class).sum(1), of_class.sum(1)),
        "rsna_proxy": PROXY_FACTOR * (1 - weighted),
    }
