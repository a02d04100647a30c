"""Predictions as plain JSON values: probabilities, the decision and its threshold, and what made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from heads.run import Run

NOTICE = "Research software, not a medical device."


def predict_units(
    run: Run,
    X: npt.NDArray[np.float32],
    unit_of_image: npt.NDArray[np.int64],
    unit_ids: Sequence[str],
    *,
    threshold: str = "half",
) -> list[dict[str, Any]]:
    """Predict every unit.

    Parameters
    ----------
    run
        A loaded run; the caller has checked the identity (`Run.require_identity`).
    X
        (n_images, dim) float32, finite.
    unit_of_image
        (n_images,) int64: row in `unit_ids`; every unit has at least one image.
    unit_ids
        Names of the units.
    threshold
        Rule of the decision between two classes: one that the run holds, or a number between 0 and 1.

    Returns
    -------
    list of dict
        Per unit: ``unit_id``, ``images``, ``targets`` (target -> ``probabilities`` by class, ``decision`` and,
        with two classes, ``threshold``), ``run_id`` and ``notice``.

    Raises
    ------
    UsageError
        If the run has no such threshold.
    """
    probabilities = run.predict(X, unit_of_image, n_units=len(unit_ids))
    images = np.bincount(unit_of_image, minlength=len(unit_ids))
    thresholds = [_threshold(run, index, threshold) for index in range(len(run.targets))]
    return [
        {
            "unit_id": unit_id,
            "images": int(images[row]),
            "targets": {
                target: _answer(run.classes, probabilities[row, index], thresholds[index])
                for index, target in enumerate(run.targets)
            },
            "run_id": run.run_id,
            "notice": NOTICE,
        }
        for row, unit_id in enumerate(unit_ids)
    ]


def _answer(
    classes: Sequence[str], probabilities: npt.NDArray[Any], threshold: float | None
) -> Mapping[str, Any]:
    named = {name: float(probability) for name, probability in zip(classes, probabilities, strict=True)}
    if threshold is None:
        return {"probabilities": named, "decision": classes[int(np.argmax(probabilities))]}
    decision = classes[int(probabilities[1] >= threshold)]
    return {"probabilities": named, "decision": decision, "threshold": threshold}


def _threshold(run: Run, index: int, rule: str) -> float | None:
    if len(run.classes) > 2:
        return None
    known: Mapping[str, float] = run.document["heads"][index]["thresholds"]
    if rule in known:
        return known[rule]
    try:
        number = float(rule)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise UsageError(
            f"threshold must be one of {', '.join(known)} or a number from 0 to 1; found {rule!r}"
        )
    return number
