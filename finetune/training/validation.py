"""What a model says of units: the mean of the probabilities of their images, and how good that is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.statistics.metric_functions import auroc, log_loss

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Validation:
    """How good the answers for units are; the mean over the targets that have labels.

    Parameters
    ----------
    loss
        Log loss.
    auroc
        Area under the ROC curve, of more than two classes the mean of each against the others; NaN where a target has
        one class only among these units.
    accuracy
        Share of units whose likeliest class is theirs.
    units
        Units with a label.
    """

    loss: float
    auroc: float
    accuracy: float
    units: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"auroc": None if np.isnan(self.auroc) else self.auroc}


def unit_probabilities(
    of_images: Floats, unit_of_image: npt.NDArray[np.int64], speaks: npt.NDArray[np.bool_], *, n_units: int
) -> Floats:
    """Return (n_units, targets, classes): the arithmetic mean over the images that speak for a target; else NaN.

    Parameters
    ----------
    of_images
        (n_images, targets, classes).
    unit_of_image
        (n_images,) int64.
    speaks
        (n_images, targets) bool.
    n_units
        Number of units.
    """
    sums = np.zeros((n_units, *of_images.shape[1:]))
    counts = np.zeros((n_units, of_images.shape[1]))
    np.add.at(sums, unit_of_image, np.where(speaks[:, :, None], of_images, 0.0))
    np.add.at(counts, unit_of_image, speaks)
    with np.errstate(invalid="ignore"):
        found: Floats = sums / counts[:, :, None]
    return found


def validation_of(y: npt.NDArray[np.int64], probabilities: Floats) -> Validation:
    """Judge (n_units, targets, classes) probabilities by (n_units, targets) labels."""
    losses, areas, hits = [], [], []
    for target in range(y.shape[1]):
        there = (y[:, target] != MISSING) & np.isfinite(probabilities[:, target]).all(axis=1)
        known, said = y[there, target], probabilities[there, target]
        if not len(known):
            continue
        losses.append(float(log_loss(known, said)[0]))
        areas.append(float(auroc(known, said)[0]) if len(np.unique(known)) > 1 else np.nan)
        hits.append(float((said.argmax(axis=1) == known).mean()))
    units = int((y != MISSING).any(axis=1).sum())
    return Validation(float(np.mean(losses)), float(np.mean(areas)), float(np.mean(hits)), units)
