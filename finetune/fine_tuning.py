"""From a store's task and a recipe to a fine-tuned encoder: what `embed finetune` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from embedstore.encoders.tower import TowerEncoder
from embedstore.queries.load_view import load_views
from embedstore.store.reader import Store, open_store
from embedstore.view import View, take_targets
from finetune.base import base_encoder, patients_of, question_of, tunable
from finetune.job import FineTuned, FineTuning, Watchers
from finetune.pictures.cached_inputs import drop_cache
from finetune.pictures.inputs import PictureInputs, TowerInputs
from finetune.pictures.picture_source import PictureSource
from finetune.pictures.training_images import (
    LEARNED,
    VALIDATION,
    TrainingImages,
    require_same_display,
    training_images,
)
from finetune.prefix import CachedTraining, CacheWatch, inputs_of
from finetune.recipe import Recipe
from finetune.towers.export import Trained, require_free, write_encoder
from finetune.towers.lora import Adapters, add_adapters
from finetune.towers.trainable_blocks import changed_of, trained_names
from finetune.towers.tunable import TunableTower
from finetune.training.devices import accelerated, arithmetic_of
from finetune.training.head_start import base_vectors, start_head
from finetune.training.lesson import Keeping, Lesson, Progress
from finetune.training.loop import Trainer
from finetune.training.losses import class_weights_of
from finetune.training.state import drop_state, read_state, require_fresh

TRAINING_FOLDER = "training"
CACHE_FOLDER = "cache"
_TOWER = "tower."


def fine_tune(job: FineTuning, watchers: Watchers | None = None) -> FineTuned:
    """Fine-tune an encoder on a task of stores, and leave it as a folder that `image_encoder` takes.

    Parameters
    ----------
    job
        What is asked for.
    watchers
        Who is asked and told; nobody by default.

    Raises
    ------
    UsageError
        If an option cannot be used, before anything is trained.
    DataError
        If the task cannot be learned, or an image is nowhere to be found.
    finetune.training.lesson.Stopped
        If `Watchers.stopping` said so; the state is kept, and the same job with `resume` goes on.
    finetune.training.lesson.TrainingDiverged
        If a loss is no number; the last good state is kept.
    """
    watching, out = watchers or Watchers(), Path(job.out)
    arithmetic = arithmetic_of(job.recipe.dtype, job.device)
    require_free(out)
    if not job.resume:
        require_fresh(out / TRAINING_FOLDER)
    stores = [open_store(Path(store)) for store in job.stores]
    view = opened_view(stores, job)
    base = base_encoder(stores, job)
    base.report_to(watching.say)
    require_same_display(stores, base.identity.preprocess)
    images = training_images(
        stores,
        view,
        share=job.recipe.validation_share,
        hold_out=job.recipe.hold_out,
        seed=job.recipe.seed,
        key=job.key,
    )
    return train_on(images, base, job, arithmetic, watching)


def opened_view(stores: Sequence[Store], job: FineTuning) -> View:
    """Return the units of the job's task and targets."""
    view = load_views(stores, job.task)
    return take_targets(view, job.targets) if job.targets else view


def train_on(
    images: TrainingImages, base: TowerEncoder, job: FineTuning, arithmetic: str, watching: Watchers
) -> FineTuned:
    """Train on chosen images and write the encoder; raises as `fine_tune`."""
    out, recipe = Path(job.out), job.recipe
    work = out / TRAINING_FOLDER
    question = question_of(images, base, job, arithmetic)
    state = read_state(work, question) if job.resume else None
    with ExitStack() as open_things:
        open_things.enter_context(torch.random.fork_rng())
        model = tunable(base, images.view, recipe, from_run=job.from_run)
        adapters = None if recipe.lora is None else add_adapters(model, recipe.lora)
        accelerator = open_things.enter_context(accelerated(job.device, arithmetic))
        model.to(accelerator.device)
        source = open_things.enter_context(PictureSource(images.jobs, base.preprocess, workers=job.workers))
        pictures = PictureInputs(
            source, images.view.image_ids.tolist(), accelerator.device, recipe.augmentation, recipe.seed
        )
        inputs = inputs_of(
            images,
            base,
            model,
            pictures,
            options=job.cache,
            training=CachedTraining(recipe=recipe, arithmetic=arithmetic, autocast=accelerator.autocast),
            folder=Path(job.cache.folder or work / CACHE_FOLDER),
            watch=CacheWatch(stopping=watching.stopping, say=watching.say, show=watching.show),
        )
        lesson = lesson_of(images, inputs, recipe, accelerator.device)
        if state is None:
            watching.say(f"{len(lesson.learned):,} images teach, {len(lesson.validation):,} judge")
            _start(model, lesson, recipe, accelerator, warm=job.from_run is not None)
        keeping = Keeping(
            folder=work,
            question=question,
            minutes=job.minutes,
            stopping=watching.stopping,
            say=watching.say,
            show=watching.show,
        )
        trainer = Trainer(accelerator, model, lesson, recipe, keeping)
        if state is not None:
            trainer.restore(state)
            watching.say(f"going on behind step {trainer.progress.step:,}")
        progress = trainer.run()
        if accelerator.is_main_process:
            write_encoder(out, _trained(model, adapters, base, images, recipe, arithmetic, progress))
            drop_state(work)
            if job.cache.folder is None:
                drop_cache(work / CACHE_FOLDER)
        accelerator.wait_for_everyone()
    return FineTuned(
        folder=out,
        progress=progress,
        patients=len(images.patients_of(LEARNED, VALIDATION)),
        images=len(lesson.learned),
        trained_weights=sum(weight.numel() for weight in trainer.weights.values()),
    )


def lesson_of(images: TrainingImages, inputs: TowerInputs, recipe: Recipe, device: torch.device) -> Lesson:
    """Return what is learned from, on a device."""
    view, learned = images.view, images.images_of(LEARNED)
    weights = class_weights_of(
        images.y_of_image[learned], n_classes=len(view.task.classes), rule=recipe.class_weights
    )
    return Lesson(
        inputs=inputs,
        y=images.y_of_image,
        unit_of_image=view.unit_of_image,
        y_of_unit=view.y,
        learned=learned,
        validation=images.images_of(VALIDATION),
        class_weights=torch.from_numpy(weights).to(device),
    )


def _start(model: TunableTower, lesson: Lesson, recipe: Recipe, accelerator: Any, *, warm: bool) -> None:
    with accelerator.autocast():
        vectors = base_vectors(model, lesson.inputs, lesson.learned, batch=recipe.micro_batch or recipe.batch)
    start_head(model, vectors, lesson.y[lesson.learned], lesson.class_weights, recipe, warm=warm)


def _trained(
    model: TunableTower,
    adapters: Adapters | None,
    base: TowerEncoder,
    images: TrainingImages,
    recipe: Recipe,
    arithmetic: str,
    progress: Progress,
) -> Trained:
    view = images.view
    files = {} if adapters is None else adapters.files()
    if adapters is None:
        learned = [name.removeprefix(_TOWER) for name in trained_names(model) if name.startswith(_TOWER)]
    else:
        _, learned = adapters.merged()
    changed = changed_of(model.tower, base.load_tower(torch.float32), learned)
    facts: Mapping[str, Any] = {
        "task": view.task.name,
        "targets": list(view.task.targets),
        "classes": list(view.task.classes),
        "images": len(images.images_of(LEARNED)),
        "validation_images": len(images.images_of(VALIDATION)),
        "best_epoch": progress.best_epoch,
        "history": progress.history,
        "seconds": round(progress.seconds, 1),
    }
    return Trained(
        base=base,
        changed=changed,
        head=model.head,
        recipe=recipe,
        patients=patients_of(images, base),
        training=facts,
        arithmetic=arithmetic,
        adapter=files,
    )
