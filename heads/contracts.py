"""How contract tests say what is broken, and the contract of heads of folds (`heads.base.HeadFamily.cross_fit`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.base import CrossFit, Head, HeadFamily, Training
from heads.scores import probabilities_from_scores

SEED = 3
# Largest difference of probabilities that must be the same but for rounding and the solver's tolerance.
SAME_PROBABILITY = 5e-3


def check_cross_fit(family: HeadFamily, head: type[Head], training: Training) -> None:
    """Check the heads of two partitions: each scores its fold, was made without it, and is the same again.

    Raises
    ------
    AssertionError
        With what was broken.
    """
    folds = np.stack([training.groups % 3, (training.groups // 3) % 3])
    params = [family.points[0]] * training.y.shape[1]
    found = family.cross_fit(training, folds, params, seed=SEED)
    _check_shape(found, family, head, training)
    again = family.cross_fit(training, folds, params, seed=SEED)
    require_same(again.scores, found.scores, "cross_fit with the same seed")
    _check_scores(found, family, training, folds)
    inside = folds[0] == 0
    y = training.y.copy()
    y[inside] = (y[inside] + 1) % training.n_classes
    flipped = family.cross_fit(replace(training, y=y), folds, params, seed=SEED)
    for target, (before, after) in enumerate(zip(found.heads, flipped.heads, strict=True)):
        require_close(
            after[0].predict_proba(training.X),
            before[0].predict_proba(training.X),
            SAME_PROBABILITY,
            f"the labels of a fold must not move the head that scores it (target {target})",
        )


def _check_shape(found: CrossFit, family: HeadFamily, head: type[Head], training: Training) -> None:
    cases = training.n_units if family.scores_units else len(training.X)
    shape = (2, cases, training.y.shape[1], training.columns)
    require(
        found.scores.shape == shape and found.scores.dtype == np.float32,
        f"cross_fit must return float32 scores of shape {shape}; found {found.scores.dtype} of {found.scores.shape}",
    )
    counts = [len(of_target) for of_target in found.heads]
    require(
        counts == [6] * training.y.shape[1],
        f"cross_fit must return a head for each of 2 x 3 folds, by target; found {counts}",
    )
    kinds = {type(member) for of_target in found.heads for member in of_target}
    require(
        kinds == {head},
        f"cross_fit must return {head.__name__}; found {', '.join(sorted(kind.__name__ for kind in kinds))}",
    )


def _check_scores(
    found: CrossFit, family: HeadFamily, training: Training, folds: npt.NDArray[np.int64]
) -> None:
    """Check that the scores are those of the heads, in their order: repeat by repeat, and fold by fold."""
    for target, heads in enumerate(found.heads):
        for place, member in enumerate(heads):
            repeat, fold = divmod(place, 3)
            of_unit = folds[repeat][training.row_of_unit] == fold
            inside = training.take_units(of_unit)
            scores = (
                member.unit_scores(inside.X, inside.unit_of_row, inside.n_units)
                if family.scores_units
                else member.decision_function(inside.X).reshape(len(inside.X), -1)
            )
            cases = of_unit if family.scores_units else of_unit[training.unit_of_row]
            require_close(
                probabilities_from_scores(found.scores[repeat, cases, target]),
                probabilities_from_scores(scores),
                SAME_PROBABILITY,
                f"scores of repeat {repeat}, fold {fold} must be those of the head in that place",
            )


def require_raises(kind: type[Exception], match: str, call: Callable[[], object], what: str) -> None:
    """Require that a call raises an error whose message has a pattern."""
    try:
        call()
    except kind as error:
        require(
            re.search(match, str(error)) is not None,
            f"{what}: the message must say {match!r}; found: {error}",
        )
    else:
        raise AssertionError(f"{what} must raise {kind.__name__}")


def require_same(found: npt.NDArray[Any], wanted: npt.NDArray[Any], what: str) -> None:
    """Require equal bits."""
    if found.tobytes() != wanted.tobytes():
        apart = np.abs(found.ravel() - wanted.ravel()).max() if found.size == wanted.size else np.nan
        raise AssertionError(
            f"{what}: scores must have the same bits; the largest difference is {apart:.3g}. A matrix product "
            "rounds differently for another number of rows; sums along a row do not"
        )


def require_close(found: npt.NDArray[Any], wanted: npt.NDArray[Any], within: float, what: str) -> None:
    """Require that no value is further from the wanted one than `within`."""
    apart = float(np.abs(found - wanted).max())
    require(apart <= within, f"{what}; the largest difference is {apart:.3g}")


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with a message unless a condition holds."""
    if not condition:
        raise AssertionError(message)
