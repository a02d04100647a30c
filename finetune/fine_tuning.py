"""From a store's task and a recipe to a fine-tuned encoder: what `embed finetune` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedstore.encoders.checkpoint_encoders import FinetunedEncoder
from embedstore.encoders.registry import image_encoder
from embedstore.encoders.tower import TowerEncoder
from embedstore.encoders.vision_tower import check_pooling
from embedstore.errors import UsageError
from embedstore.files import StrPath, canonical_json, sha256_bytes
from embedstore.finetuned.trained_patients import TrainedPatients, trained_patients
from embedstore.keys.key_file import Key
from embedstore.queries.load_view import load_views
from embedstore.store.reader import Store, open_store
from embedstore.view import View, take_targets
from finetune.pictures.inputs import PictureInputs
from finetune.pictures.picture_source import PictureSource
from finetune.pictures.training_images import (
    LEARNED,
    VALIDATION,
    TrainingImages,
    require_same_display,
    training_images,
)
from finetune.recipe import Recipe
from finetune.towers.export import Trained, require_free, write_encoder
from finetune.towers.head_of_run import head_of_run
from finetune.towers.lora import Adapters, add_adapters
from finetune.towers.trainable_blocks import changed_of, trained_names, unfreeze_top
from finetune.towers.tunable import ClassificationHead, TunableTower, outputs_of, require_blocks
from finetune.training.devices import accelerated, arithmetic_of
from finetune.training.head_start import base_vectors, start_head
from finetune.training.lesson import Keeping, Lesson, Progress, Reached
from finetune.training.loop import Trainer
from finetune.training.losses import class_weights_of
from finetune.training.state import drop_state, read_state, require_fresh
from heads.runs.run_files import load_run

TRAINING_FOLDER = "training"
_SALT_DIGITS = 16
_TOWER = "tower."


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


def base_encoder(stores: Sequence[Store], job: FineTuning) -> TowerEncoder:
    """Return the encoder to be fine-tuned, in float32.

    Raises
    ------
    UsageError
        If it has no tower of SigLIP's kind, or fewer blocks than are asked for.
    """
    own = stores[0].identity
    name = job.encoder or own.encoder
    is_own = job.encoder is None or job.encoder == own.encoder
    encoder = (
        image_encoder(
            name,
            preset=job.preset or (own.preprocess.get("preset") if is_own else None),
            device="cpu",
            dtype="float32",
            revision=job.revision,
            pooling=job.pooling if job.pooling or not is_own else own.pooling,
        )
        if name != "hog"
        else None
    )
    if not isinstance(encoder, TowerEncoder):
        raise UsageError(
            f"`encoder` must be a SigLIP or Gemma 3 checkpoint to be fine-tuned; {name!r} has no blocks. Name the "
            "folder or hub id of one"
        )
    require_blocks(job.recipe.blocks, encoder.shape.num_hidden_layers)
    return encoder


def train_on(
    images: TrainingImages, base: TowerEncoder, job: FineTuning, arithmetic: str, watching: Watchers
) -> FineTuned:
    """Train on chosen images and write the encoder; raises as `fine_tune`."""
    out, recipe = Path(job.out), job.recipe
    work = out / TRAINING_FOLDER
    question = question_of(images, base, job, arithmetic)
    state = read_state(work, question) if job.resume else None
    model = tunable(base, images.view, recipe, from_run=job.from_run)
    adapters = None if recipe.lora is None else add_adapters(model, recipe.lora)
    with ExitStack() as open_things:
        open_things.enter_context(torch.random.fork_rng())
        accelerator = open_things.enter_context(accelerated(job.device, arithmetic))
        model.to(accelerator.device)
        source = open_things.enter_context(PictureSource(images.jobs, base.preprocess, workers=job.workers))
        inputs = PictureInputs(
            source, images.view.image_ids.tolist(), accelerator.device, recipe.augmentation, recipe.seed
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
        accelerator.wait_for_everyone()
    return FineTuned(
        folder=out,
        progress=progress,
        patients=len(images.patients_of(LEARNED, VALIDATION)),
        images=len(lesson.learned),
        trained_weights=sum(weight.numel() for weight in trainer.weights.values()),
    )


def tunable(
    base: TowerEncoder, view: View, recipe: Recipe, *, from_run: StrPath | None = None
) -> TunableTower:
    """Return the base's tower with a head for the view's task, its trained weights marked; nothing is moved yet."""
    top = require_blocks(recipe.blocks, base.shape.num_hidden_layers)
    task = view.task
    torch.manual_seed(recipe.seed)
    if from_run is not None:
        head = head_of_run(from_run, base, view, dropout=recipe.head_dropout)
    else:
        head = ClassificationHead(
            base.shape.hidden_size,
            recipe.head_widths,
            outputs_of(len(task.targets), len(task.classes)),
            dropout=recipe.head_dropout,
        )
    model = TunableTower(
        base.load_tower(torch.float32),
        check_pooling(base.pooling, base.shape, origin=base.origin),
        head,
        frozen_blocks=base.shape.num_hidden_layers - top,
        recompute=recipe.recompute,
    )
    unfreeze_top(model, whole=recipe.blocks is None)
    return model


def lesson_of(images: TrainingImages, inputs: PictureInputs, recipe: Recipe, device: torch.device) -> Lesson:
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


def question_of(
    images: TrainingImages, base: TowerEncoder, job: FineTuning, arithmetic: str
) -> dict[str, Any]:
    """Return what decides the result, as plain JSON values."""
    view = images.view

    def digest(array: Any) -> str:
        return sha256_bytes(canonical_json(np.asarray(array).tolist()))

    return {
        "recipe": job.recipe.to_json(),
        "head_of_run": None if job.from_run is None else load_run(job.from_run).run_id,
        "arithmetic": arithmetic,
        "base": replace(base.identity, options={}).to_json(),
        "task": view.task.name,
        "targets": list(view.task.targets),
        "classes": list(view.task.classes),
        "images_sha256": digest(view.image_ids),
        "labels_sha256": digest(view.y),
        "roles_sha256": digest(images.role),
    }


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


def patients_of(images: TrainingImages, base: TowerEncoder) -> TrainedPatients:
    """Return whose images taught or judged the encoder, its base's own training included."""
    before = base.folder.patients() if isinstance(base, FinetunedEncoder) else None
    salt = base.identity.weights_sha256[:_SALT_DIGITS] if before is None else before.salt
    found = trained_patients(images.patients_of(LEARNED), images.patients_of(VALIDATION), salt=salt)
    return found if before is None else found.with_earlier(before)
