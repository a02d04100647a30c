"""Units whose label deserves a second look, from probabilities of models that never saw them.

Confident learning (Northcutt, Jiang & Chuang 2021, JAIR 70:1373, arXiv 1911.00068): a unit is a candidate when
some other class is at least as probable as it is, on average, for the units that carry that class's label, and
more probable than the unit's own label. A candidate is a question to the people who labelled, not an answer:
hard cases and errors of the head are among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.scores import Floats


@dataclass(frozen=True)
class Candidate:
    """One doubtful label.

    Parameters
    ----------
    row
        Its row among the units given.
    label, suggested
        The class it is labelled with and the one that the probabilities speak for.
    probability_of_label, probability_of_suggested
        Out-of-fold, calibrated.
    """

    row: int
    label: str
    suggested: str
    probability_of_label: float
    probability_of_suggested: float


def label_noise_candidates(
    y: npt.NDArray[np.int64], probabilities: Floats, classes: Sequence[str]
) -> list[Candidate]:
    """Return the candidates, the most doubtful first.

    Parameters
    ----------
    y
        (n,) int64, `MISSING` where there is no label; such units are never candidates.
    probabilities
        (n, n_classes) out-of-fold and calibrated.
    classes
        Names.

    Returns
    -------
    list of Candidate
        Ordered by how much more probable the suggested class is than the label.
    """
    labelled = np.flatnonzero(y != MISSING)
    stated, truth = probabilities[labelled], y[labelled]
    usual = np.array(
        [stated[truth == k, k].mean() if (truth == k).any() else np.inf for k in range(len(classes))]
    )
    own = stated[np.arange(len(truth)), truth]
    others = np.where(stated >= usual, stated, -1.0)
    others[np.arange(len(truth)), truth] = -1.0
    suggested = others.argmax(1)
    margin = others.max(1, initial=-1.0) - own
    doubtful = np.flatnonzero(margin > 0)
    ranked = doubtful[np.argsort(-margin[doubtful], kind="stable")]
    return [
        Candidate(
            int(labelled[at]),
            classes[truth[at]],
            classes[suggested[at]],
            float(own[at]),
            float(stated[at, suggested[at]]),
        )
        for at in ranked
    ]
