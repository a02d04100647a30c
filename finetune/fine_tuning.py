"""From a store's task and a recipe to a fine-tuned encoder: what `embed finetune` does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from embedstore.encoders.tower import TowerEncoder
from embedstore.errors import UsageError
from embedstore.files import parquet_bytes
from embedstore.finetuned.encoder_folder import EncoderFolder, is_encoder_folder, open_encoder_folder
from embedstore.lumbar.levels import TARGETS
from embedstore.lumbar.target_images import rules_of_crops
from embedstore.queries.load_view import load_views
from embedstore.queries.opened_stores import only_task
from embedstore.store.reader import Store, open_store
from embedstore.store.tasks import read_task
from embedstore.task import ImageRule
from embedstore.view import take_targets
from finetune.base import (
    base_encoder,
    patients_of,
    question_of,
    require_unseen_by_base,
    tell_seen_by_head,
    tunable,
)
from finetune.job import FineTuned, FineTuning, Watchers
from finetune.pictures.cached_inputs import drop_cache
from finetune.pictures.inputs import PictureInputs, TowerInputs
from finetune.pictures.picture_source import PictureSource
from finetune.pictures.training_images import (
    LEARNED,
    LEFT_OUT,
    VALIDATION,
    TrainingImages,
    require_same_display,
    training_images,
)
from finetune.prefix import CachedTraining, CacheWatch, inputs_of
from finetune.recipe import Recipe, differences
from finetune.towers.export import TRAINING_FOLDER, Trained, require_free, write_encoder
from finetune.towers.lora import Adapters, add_adapters
from finetune.towers.trainable_blocks import changed_of, trained_names
from finetune.towers.tunable import TunableTower
from finetune.training.devices import accelerated, arithmetic_of
from finetune.training.head_start import base_vectors, start_head
from finetune.training.lesson import Keeping, Lesson, Progress
from finetune.training.loop import Trainer
from finetune.training.losses import class_weights_of
from finetune.training.state import drop_state, read_state, require_fresh
from finetune.training.validation import unit_probabilities

CACHE_FOLDER = "cache"
OUT_OF_FOLD_FILE = "out_of_fold.parquet"
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
    finished = job.resume and is_encoder_folder(out)
    if not finished:
        require_free(out)
    if not job.resume:
        require_fresh(out / TRAINING_FOLDER)
    prepared = prepare(job, watching)
    if finished:
        watching.say(f"{out} is finished; nothing to train")
        return finished_training(prepared, out)
    return train_on(prepared, job, watching)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is checked before anything is trained.

    Parameters
    ----------
    images
        Which images teach and judge.
    base
        The encoder, in float32.
    recipe
        How.
    arithmetic
        Of the passes.
    """

    images: TrainingImages
    base: TowerEncoder
    recipe: Recipe
    arithmetic: str

    def require_recipe(self, folder: EncoderFolder) -> None:
        """Refuse a finished encoder of another recipe or base; raises UsageError with what differs."""
        was = {"recipe": folder.document["recipe"], "base": folder.base["weights_sha256"]}
        now = {"recipe": self.recipe.to_json(), "base": self.base.identity.weights_sha256}
        found = differences(was, json.loads(json.dumps(now)))
        if found:
            raise UsageError(
                f"{folder.folder} is a finished encoder of other settings: {'; '.join(found)}. Give another `out`"
            )


def prepare(job: FineTuning, watching: Watchers) -> Prepared:
    """Open the stores, find base and images, and say who is for what; raises as `fine_tune`, before any training."""
    arithmetic = arithmetic_of(job.recipe.dtype, job.device)
    stores = [open_store(Path(store)) for store in job.stores]
    view = load_views(stores, job.task, image_rules=_image_rules(stores, job.task))
    view = take_targets(view, job.targets) if job.targets else view
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
    require_unseen_by_base(base, images)
    if job.from_run is not None:
        tell_seen_by_head(job.from_run, images, watching.say)
    return Prepared(images=images, base=base, recipe=job.recipe, arithmetic=arithmetic)


def _image_rules(stores: Sequence[Store], task: str | None) -> Mapping[str, ImageRule] | None:
    """Return which crops speak for which target of the RSNA lumbar task, as a probe has it; None for any other."""
    if stores[0].identity.crop is None:
        return None
    asked = read_task(stores[0].path, task or only_task(stores[0]))
    of_lumbar = asked.unit == "study" and set(asked.targets) == set(TARGETS)
    return rules_of_crops() if of_lumbar else None


def train_on(prepared: Prepared, job: FineTuning, watching: Watchers) -> FineTuned:
    """Train on chosen images and write the encoder; raises as `fine_tune`."""
    images, base, recipe, out = prepared.images, prepared.base, prepared.recipe, Path(job.out)
    work = out / TRAINING_FOLDER
    question = question_of(images, base, job, prepared.arithmetic)
    state = read_state(work, question) if job.resume else None
    with ExitStack() as open_things:
        open_things.enter_context(torch.random.fork_rng())
        model = tunable(base, images.view, recipe, from_run=job.from_run)
        adapters = None if recipe.lora is None else add_adapters(model, recipe.lora)
        accelerator = open_things.enter_context(accelerated(job.device, prepared.arithmetic))
        model.to(accelerator.device)
        source = open_things.enter_context(PictureSource(images.jobs, base.preprocess, workers=job.workers))
        ids = images.view.image_ids.tolist()
        pictures = PictureInputs(source, ids, accelerator.device, recipe.augmentation, recipe.seed)
        training = CachedTraining(
            recipe=recipe, arithmetic=prepared.arithmetic, autocast=accelerator.autocast
        )
        inputs = inputs_of(
            images,
            base,
            model,
            pictures,
            options=job.cache,
            training=training,
            folder=Path(job.cache.folder or work / CACHE_FOLDER),
            watch=CacheWatch(stopping=watching.stopping, say=watching.say, show=watching.show),
        )
        lesson = lesson_of(images, inputs, recipe, accelerator.device)
        if state is None:
            watching.say(f"{len(lesson.learned):,} images teach, {len(lesson.validation):,} judge")
            _start(model, lesson, recipe, accelerator, warm=job.from_run is not None)
        trainer = Trainer(accelerator, model, lesson, recipe, _keeping(work, question, job, watching))
        if state is not None:
            trainer.restore(state)
            watching.say(f"going on behind step {trainer.progress.step:,}")
        progress = trainer.run()
        if accelerator.is_main_process:
            further = _answers(trainer, images)
            write_encoder(out, _trained(model, adapters, prepared, progress, further))
            drop_state(work)
            if job.cache.folder is None:
                drop_cache(work / CACHE_FOLDER)
        accelerator.wait_for_everyone()
    return finished_training(prepared, out)


def finished_training(prepared: Prepared, folder: Path) -> FineTuned:
    """Return what came of a training that is finished, after a check that nothing was changed since.

    Raises
    ------
    UsageError
        If it was one with other settings.
    DataError
        If a file was edited.
    """
    opened = open_encoder_folder(folder)
    prepared.require_recipe(opened)
    opened.require_unchanged()
    facts = opened.document["training"]
    return FineTuned(
        folder=folder,
        progress=Progress(**facts["progress"]),
        patients=facts["patients"] + facts["validation_patients"],
        images=facts["images"],
        trained_weights=facts["trained_weights"],
    )


def _keeping(folder: Path, question: Mapping[str, Any], job: FineTuning, watching: Watchers) -> Keeping:
    return Keeping(
        folder=folder,
        question=question,
        minutes=job.minutes,
        stopping=watching.stopping,
        say=watching.say,
        show=watching.show,
    )


def _answers(trainer: Trainer, images: TrainingImages) -> dict[str, bytes]:
    """Return, of a fold, the file of what its encoder says of the units that were left out of it."""
    if images.in_any_fold is None:
        return {}
    view = images.view
    numbers = images.images_of_units(images.in_any_fold & (images.role == LEFT_OUT))
    units, unit_of_image = np.unique(view.unit_of_image[numbers], return_inverse=True)
    speaks = np.ones((len(numbers), len(view.task.targets)), np.bool_)
    if view.image_of_target is not None:
        speaks = view.image_of_target[numbers]
    said = unit_probabilities(trainer.probabilities(numbers), unit_of_image, speaks, n_units=len(units))
    rows, targets = np.nonzero(np.isfinite(said).all(axis=2))
    table = pa.table(
        {
            "unit_id": view.unit_ids[units[rows]].tolist(),
            "target": [view.task.targets[target] for target in targets],
            "probabilities": said[rows, targets].tolist(),
        }
    )
    return {OUT_OF_FOLD_FILE: parquet_bytes(table)}


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
    prepared: Prepared,
    progress: Progress,
    further: Mapping[str, bytes],
) -> Trained:
    images, base = prepared.images, prepared.base
    task = images.view.task
    quantised = adapters is not None and adapters.is_quantised
    files = dict(further) if adapters is None else {**further, **adapters.files()}
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    if adapters is None:
        learned = [name.removeprefix(_TOWER) for name in trained_names(model) if name.startswith(_TOWER)]
    else:
        _, learned = adapters.merged()
    facts: Mapping[str, Any] = {
        "task": task.name,
        "targets": list(task.targets),
        "classes": list(task.classes),
        "images": len(images.images_of(LEARNED)),
        "validation_images": len(images.images_of(VALIDATION)),
        "trained_weights": weights,
        "progress": vars(progress),
        "seconds": round(progress.seconds, 1),
    }
    return Trained(
        base=base,
        changed=changed_of(model.tower, base.load_tower(torch.float32), learned),
        head=model.head,
        method=prepared.recipe.method,
        recipe=prepared.recipe.to_json(),
        patients=patients_of(images, base),
        training=facts,
        arithmetic=prepared.arithmetic,
        weights="nf4 in the blocks, float32 elsewhere" if quantised else "float32",
        files=files,
    )
