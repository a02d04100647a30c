"""What a training learns from, where it is kept, how far it is, and how it may end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedstore.errors import EmbedError
from finetune.pictures.inputs import TowerInputs


class TrainingDiverged(EmbedError):
    """A loss or gradient is no number any more; the state before it is kept."""


class Stopped(Exception):
    """Somebody asked to stop; the state was saved."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What is learned from.

    Parameters
    ----------
    inputs
        Gives the images.
    y
        (n_images, targets) labels, `MISSING` where there is none or the image does not speak for the target.
    unit_of_image, y_of_unit
        (n_images,) and (n_units, targets).
    learned, validation
        Numbers of the images that teach and that judge.
    class_weights
        (targets, classes), on the device.
    """

    inputs: TowerInputs
    y: npt.NDArray[np.int64]
    unit_of_image: npt.NDArray[np.int64]
    y_of_unit: npt.NDArray[np.int64]
    learned: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    class_weights: torch.Tensor


@dataclass(frozen=True)
class Reached:
    """How far a training is, for progress: epoch from 1, images of it so far and in all, the loss, images a second."""

    epoch: int
    images: int
    of_images: int
    loss: float
    images_per_s: float


def _ignore(reached: Reached) -> None:
    del reached


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where and when the state is kept, and who is told.

    Parameters
    ----------
    folder
        Of state and metrics.
    question
        As `finetune.training.state.save_state`.
    minutes
        Between two states; one is kept at the end of every epoch, too.
    stopping
        Asked before each step; when true the state is saved and `Stopped` is raised.
    say, show
        Take lines for people, and progress.
    """

    folder: Path
    question: Mapping[str, Any]
    minutes: float = 10.0
    stopping: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda line: None
    show: Callable[[Reached], None] = _ignore


@dataclass
class Progress:
    """How far a training is; what a state keeps beside tensors."""

    epoch: int = 0
    in_epoch: int = 0  # steps of this epoch that are done
    step: int = 0
    micro_batch: int = 0
    best_epoch: int = -1
    best_loss: float = float("inf")
    waited: int = 0  # epochs without a smaller loss
    seconds: float = 0.0
    images: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
