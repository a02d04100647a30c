"""What is asked of a fine-tuning, who is told, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedstore.files import StrPath
from embedstore.keys.key_file import Key
from finetune.prefix import CacheOptions
from finetune.recipe import Recipe
from finetune.training.lesson import Progress, Reached


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """A fine-tuning as people ask for it.

    Parameters
    ----------
    stores
        One store, or several of one identity with different images.
    out
        Folder of the encoder.
    task, targets
        What is learned: a task of the stores, or some of its targets.
    encoder, revision, preset, pooling
        The base, as `embedstore.encoders.registry.image_encoder`; by default the stores' own.
    recipe
        How.
    from_run
        A run whose head is gone on from, in place of a new one of `Recipe.head_widths`.
    device, workers
        Where, and decoding processes; 0 decodes in this process.
    key
        The key of stores whose paths are hidden.
    resume
        Whether to go on with what lies in `out`.
    minutes
        Between two states.
    cache
        Whether frozen blocks run once a picture, and their work is kept on disk.
    """

    stores: Sequence[StrPath]
    out: StrPath
    task: str | None = None
    targets: Sequence[str] = ()
    encoder: str | None = None
    revision: str | None = None
    preset: str | None = None
    pooling: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    from_run: StrPath | None = None
    device: str = "auto"
    workers: int = 2
    key: Key | None = None
    resume: bool = False
    minutes: float = 10.0
    cache: CacheOptions = field(default_factory=CacheOptions)


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """What came of it.

    Parameters
    ----------
    folder
        The encoder.
    progress
        How far it went; its history has a validation for each epoch, that of epoch 0 of the base with the head alone.
    patients
        Patients whose images taught or judged it.
    images
        Images that taught it.
    trained_weights
        Numbers that were trained, head included.
    """

    folder: Path
    progress: Progress
    patients: int
    images: int
    trained_weights: int


@dataclass(frozen=True, kw_only=True)
class Watchers:
    """Who is asked and told.

    Parameters
    ----------
    stopping
        Asked before each step.
    say, show
        Take lines for people, and progress.
    """

    stopping: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda line: None
    show: Callable[[Reached], None] = lambda reached: None
