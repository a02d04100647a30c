"""What a blend of final heads is worth on fresh patients, against each of its parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.blending.joining import Said, join
from heads.inputs.unit_images import UnitImages
from heads.protocol.fitting import Fitted
from heads.protocol.predictor import BlendedPredictor
from heads.scores import log_odds_of
from heads.statistics.metric_functions import auroc, calibration_slope, log_loss

Floats = npt.NDArray[np.float64]
JOINS = "+"


@dataclass(frozen=True)
class Blended:
    """A blend and its fitted parts."""

    parts: dict[str, Fitted]
    predictor: BlendedPredictor


def fit_blend(case: Any, images: UnitImages, *, seed: int) -> Blended:
    """Fit every part that the head of a `simulations.Case` names (``logistic+xgboost``), and join them."""
    parts = {name: replace(case, head=name).fit(images, seed=seed) for name in case.head.split(JOINS)}
    fitted = list(parts.values())
    said = Said(
        y=images.y,
        groups=images.groups,
        folds=fitted[0].folds,
        log_odds=np.stack([log_odds_of(part.out_of_fold_probabilities) for part in fitted], axis=1),
        cut=np.stack([log_odds_of(part.cut_probabilities) for part in fitted], axis=1),
    )
    joined = join(said, n_classes=2)
    predictor = BlendedPredictor(
        parts={name: part.predictor for name, part in parts.items()},
        weights=joined.weights,
        calibrators=joined.calibrators,
    )
    return Blended(parts, predictor)


def blend_of_final_heads(case: Any, seed: int) -> dict[str, float]:
    """Return slope, AUROC and log loss of the blend, and how its log loss differs from that of each part."""
    learned, fresh = case.draw(seed)
    y = fresh.y[:, 0]
    found = fit_blend(case, learned, seed=seed)
    stated = {
        name: predictor.probabilities(predictor.scores(fresh.X, fresh.unit_of_row, n_units=fresh.n_units))[
            :, 0
        ]
        for name, predictor in [("blend", found.predictor), *found.predictor.parts.items()]
    }
    losses = {name: float(log_loss(y, probabilities)[0]) for name, probabilities in stated.items()}
    of_parts = [losses[name] for name in found.parts]
    weights = dict(zip(found.parts, found.predictor.weights[0], strict=True))
    return {
        "slope": float(calibration_slope(y, stated["blend"])[0]),
        "AUROC": float(auroc(y, stated["blend"])[0]),
        "log loss": losses["blend"],
        "log loss, difference to the best part of each set": losses["blend"] - min(of_parts),
        **{f"log loss, difference to {name}": losses["blend"] - losses[name] for name in found.parts},
        **{f"weight of {name}": weight for name, weight in weights.items()},
    }
