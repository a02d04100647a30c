"""Answers for every labelled cell: where a study has no image for a target, the prevalence is said.

The competition scores all 25 targets of every study. An answer that is missing because no series shows the level, or no
level was found, is therefore what is known without an image: how the classes were distributed among other patients, for
the same condition, level and side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.scores import Floats
from heads.statistics.prevalence import shares_outside


@dataclass(frozen=True, kw_only=True)
class CompleteAnswers:
    """Probabilities of every labelled cell.

    Parameters
    ----------
    y
        (n_studies, targets) int64, `MISSING` where there is no label.
    probabilities
        (n_studies, targets, 3).
    filled
        Labelled cells that the prevalence answers.
    """

    y: npt.NDArray[np.int64]
    probabilities: Floats
    filled: int

    @property
    def cells(self) -> int:
        """Labelled cells."""
        return int((self.y != MISSING).sum())


def complete_answers(
    y: npt.NDArray[np.int64],
    probabilities: Floats,
    folds: npt.NDArray[np.int64],
    *,
    learned: npt.NDArray[np.int64],
    learned_folds: npt.NDArray[np.int64],
) -> CompleteAnswers:
    """Fill cells without probabilities.

    Parameters
    ----------
    y
        (n_studies, targets) int64 labels, also of the targets that a study has no image for.
    probabilities
        (n_studies, targets, 3); NaN where there is no answer.
    folds
        (n_studies,) int64: the fold of each study.
    learned, learned_folds
        (m, targets) and (m,) int64: labels of other studies and their folds; a study's prevalence is that of the folds
        that are not its own.
    """
    n_classes = probabilities.shape[2]
    unknown = np.asarray(np.isnan(probabilities).any(axis=2))
    shares = shares_outside(folds, learned, learned_folds, n_classes)
    return CompleteAnswers(
        y=y,
        probabilities=np.where(unknown[..., None], shares, probabilities),
        filled=int((unknown & (y != MISSING)).sum()),
    )
