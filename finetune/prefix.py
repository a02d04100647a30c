"""Whether a training reads its frozen blocks' work from disk, and the cache that it reads it from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from embedstore.encoders.tower import TowerEncoder
from embedstore.files import sha256_bytes
from finetune.pictures.cached_inputs import CachedInputs, cache_format, fill_cache, has_room
from finetune.pictures.inputs import PictureInputs, TowerInputs
from finetune.pictures.prefix_cache import PLAIN_VIEW, CacheSpec, open_cache
from finetune.pictures.training_images import TrainingImages
from finetune.recipe import QUANTISED_BITS, Recipe
from finetune.towers.tunable import TunableTower
from finetune.training.lesson import Reached, Stopped

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """How a prefix cache is chosen and where it lies.

    Parameters
    ----------
    asked
        ``auto`` (where it pays and fits), ``none``, ``float16`` or ``int8``.
    folder
        Where; None for one beside the training's state, which goes when the training is done.
    limit_gb
        What it may take at most, 10**9 bytes; None for no limit but the disk's.
    """

    asked: str = "auto"
    folder: Path | None = None
    limit_gb: float | None = None


@dataclass(frozen=True, kw_only=True)
class CachedTraining:
    """What a cache's numbers depend on beside base and pictures.

    Parameters
    ----------
    recipe
        How the encoder is trained.
    arithmetic
        Of the passes.
    autocast
        The context in which passes have it.
    """

    recipe: Recipe
    arithmetic: str
    autocast: Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class CacheWatch:
    """Who is asked and told while a cache is filled; as `finetune.fine_tuning.Watchers`."""

    stopping: Callable[[], bool]
    say: Callable[[str], None]
    show: Callable[[Reached], None]


def inputs_of(
    images: TrainingImages,
    base: TowerEncoder,
    model: TunableTower,
    pictures: PictureInputs,
    *,
    options: CacheOptions,
    training: CachedTraining,
    folder: Path,
    watch: CacheWatch,
) -> TowerInputs:
    """Return what a model is fed with: pictures, or a whole cache of what its frozen blocks made of them.

    Parameters
    ----------
    images
        Those that teach and judge.
    base, model
        The encoder, and the model on its device.
    pictures
        The pictures.
    options, training
        How a cache is chosen, and what its numbers depend on.
    folder
        Where caches lie.
    watch
        Who is asked and told.

    Raises
    ------
    DataError
        If a cache was asked for and does not fit, or the residual stream does not fit its format.
    Stopped
        If somebody asked to stop while it was filled; finished chunks stay.
    """
    recipe = training.recipe
    sizes = {"blocks": model.blocks, "frozen": model.frozen_blocks}
    kind = cache_format(options.asked, recipe, **sizes, say=watch.say)
    if kind is None:
        return pictures
    numbers = _rows_by_view(images, recipe)
    cache = open_cache(folder, _spec(images, base, model, training, kind, numbers))
    if not has_room(cache, limit_gb=options.limit_gb, asked=options.asked, say=watch.say):
        return pictures

    def advance(done: int, total: int, seconds: float) -> None:
        watch.show(Reached(0, done, total, float("nan"), done / max(seconds, 1e-9)))

    def below(given: torch.Tensor) -> torch.Tensor:
        with training.autocast():
            return model.below(given)

    model.eval()
    whole = fill_cache(
        cache, numbers, pictures, below, batch=recipe.batch, stopping=watch.stopping, advance=advance
    )
    if not whole:
        raise Stopped
    places = {view: {int(n): at for at, n in enumerate(own)} for view, own in numbers.items()}
    return CachedInputs(cache, places, pictures, below)


def _rows_by_view(images: TrainingImages, recipe: Recipe) -> dict[int, Numbers]:
    """Return which images have a row in which view: those that teach in every view, those that judge as they are."""
    learned, judging = images.may_learn, images.may_judge
    if recipe.augmentation.changes_nothing:
        return {PLAIN_VIEW: np.union1d(learned, judging)}
    views = min(recipe.views or recipe.epochs, recipe.epochs)
    return {**dict.fromkeys(range(views), learned), PLAIN_VIEW: judging}


def _spec(
    images: TrainingImages,
    base: TowerEncoder,
    model: TunableTower,
    training: CachedTraining,
    kind: str,
    numbers: Mapping[int, Numbers],
) -> CacheSpec:
    view, recipe = images.view, training.recipe
    plain = recipe.augmentation.changes_nothing
    quantised = recipe.lora is not None and recipe.lora.is_quantised
    ids = view.image_ids
    return CacheSpec(
        question={
            "base_weights_sha256": base.identity.weights_sha256,
            "preprocess": base.preprocess.to_json(),
            "arithmetic": training.arithmetic,
            "frozen_blocks": model.frozen_blocks,
            "augmentation": None if plain else asdict(recipe.augmentation),
            "seed": None if plain else recipe.seed,
            **({"base_bits": QUANTISED_BITS} if quantised else {}),
        },
        image_ids={at: [str(ids[number]) for number in own] for at, own in numbers.items()},
        content_sha256=sha256_bytes(np.ascontiguousarray(view.content_sha256).tobytes()),
        tokens=base.shape.tokens,
        dim=base.shape.hidden_size,
        format=kind,
    )
