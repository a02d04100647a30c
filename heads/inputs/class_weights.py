"""Weights of classes in training, and how they are undone in scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.task import Task
from embedstore.view import MISSING
from heads.scores import Floats

ClassWeights = Literal["none", "balanced", "task"]
CLASS_WEIGHTS: tuple[ClassWeights, ...] = ("none", "balanced", "task")


def training_weights(
    y: npt.NDArray[np.int64], task: Task, class_weights: ClassWeights
) -> tuple[tuple[float, ...], ...]:
    """Return the weight of each class in training, by target.

    ``balanced`` gives every class the same total, ``task`` takes the task's own weights.

    Raises
    ------
    UsageError
        If the rule is unknown or the task has no weights.
    """
    n_classes = len(task.classes)
    if class_weights not in CLASS_WEIGHTS:
        raise UsageError(f"class_weights must be one of {', '.join(CLASS_WEIGHTS)}; found {class_weights!r}")
    if class_weights == "none":
        return ((1.0,) * n_classes,) * len(task.targets)
    if class_weights == "task":
        if task.class_weights is None:
            raise UsageError(
                f"class_weights='task', but task {task.name!r} states none; use 'balanced' or 'none'"
            )
        return (task.class_weights,) * len(task.targets)
    counts = [np.bincount(column[column != MISSING], minlength=n_classes) for column in y.T]
    return tuple(tuple((count.sum() / (n_classes * count)).tolist()) for count in counts)


def class_weight_shift(weights: Sequence[float]) -> Floats:
    """Return what class weights of training added to decision scores, (columns,) float64.

    A head trained with weight w_k on class k learns ``p_k * w_k`` up to a factor (Elkan 2001, IJCAI, theorem
    2), so its logit is too large by ``log(w_k)``.
    """
    shift: Floats = np.log(np.asarray(weights, np.float64))
    return shift[1:] - shift[:1] if len(shift) == 2 else shift
