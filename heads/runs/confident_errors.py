"""The evaluated units that a head was surest about and wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedstore.view import MISSING
from heads.runs.run import Run

SHOWN = 12


@dataclass(frozen=True)
class ConfidentError:
    """One wrong answer.

    Parameters
    ----------
    unit_id, target
        What was predicted.
    label, stated
        The class it is labelled with and the likeliest one.
    probability
        Of the stated class.
    """

    unit_id: str
    target: str
    label: str
    stated: str
    probability: float


def confident_errors(run: Run, *, limit: int = SHOWN) -> list[ConfidentError]:
    """Return the wrong answers of all targets, the surest first.

    Parameters
    ----------
    run
        The run.
    limit
        How many at most.
    """
    units = run.evaluated
    found: list[ConfidentError] = []
    for index, target in enumerate(run.targets):
        y, probabilities = units.y[:, index], units.probabilities[:, index]
        stated, surest = probabilities.argmax(1), probabilities.max(1)
        wrong = np.flatnonzero((y != MISSING) & (stated != y))
        found += [
            ConfidentError(
                str(units.unit_ids[row]),
                target,
                run.classes[y[row]],
                run.classes[stated[row]],
                float(surest[row]),
            )
            for row in wrong[np.argsort(-surest[wrong], kind="stable")][:limit]
        ]
    return sorted(found, key=lambda error: -error.probability)[:limit]
