"""How much of the spread of out-of-fold scores is noise of the heads, and what a steadier mean would show of it.

An out-of-fold score is the mean of as many heads as there are repeats, the final score that of all heads. With t the
score that endless repeats would give a unit and s2 the variance of one head about it, the first mean varies over
units as var(t) + s2 / repeats, the second as var(t) + s2 / heads. A noisier score has a flatter relation to the
outcome (regression dilution; Carroll et al. 2006, Measurement Error in Nonlinear Models, chapter 4), flatter by the
ratio of these two. Drawing the out-of-fold scores together about their mean by that ratio makes the relation as steep
as it is for the final score, so that a calibrator learned from the one holds for the other. Drawn together by the
root of the ratio they are as wide as the final scores, though flatter: that is what thresholds and bars are cut from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from heads.scores import Floats


def reliability_ratio(scores: npt.NDArray[Any], *, heads: int) -> float:
    """Return the variance of means of all heads over that of means of the repeats, from 1 / folds to 1.

    Parameters
    ----------
    scores
        (repeats, n, columns), repeats 2 or more: each unit's score by one head in every repeat. Of several columns the
        mean is taken out, which a softmax does not see, and variances are summed over them.
    heads
        Heads in all: repeats times folds.
    """
    wide = np.asarray(scores, np.float64)
    if wide.shape[2] > 1:
        wide = wide - wide.mean(axis=2, keepdims=True)
    repeats = len(wide)
    of_head = float(wide.var(axis=0, ddof=1).mean(axis=0).sum())
    of_mean = float(wide.mean(axis=0).var(axis=0, ddof=1).sum())
    true = max(of_mean - of_head / repeats, 0.0)
    noisy = true + of_head / repeats
    return (true + of_head / heads) / noisy if noisy > 0 else 1.0


def drawn_together(scores: npt.NDArray[Any], ratio: float) -> Floats:
    """Return the (n, columns) means over repeats of (repeats, n, columns) scores, drawn to their mean by a ratio."""
    means = np.asarray(scores, np.float64).mean(axis=0)
    center = means.mean(axis=0)
    drawn: Floats = center + ratio * (means - center)
    return drawn
