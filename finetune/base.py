"""The encoder that is to be fine-tuned, as something to train on a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from embedstore.encoders.checkpoint_encoders import FinetunedEncoder
from embedstore.encoders.registry import encoder_options, image_encoder
from embedstore.encoders.tower import TowerEncoder
from embedstore.encoders.vision_tower import check_pooling
from embedstore.errors import UsageError
from embedstore.files import StrPath, canonical_json, sha256_bytes
from embedstore.finetuned.trained_patients import TrainedPatients, trained_patients
from embedstore.store.reader import Store
from embedstore.view import View
from finetune.job import FineTuning
from finetune.pictures.training_images import LEARNED, VALIDATION, TrainingImages
from finetune.recipe import Recipe
from finetune.towers.head_of_run import head_of_run
from finetune.towers.trainable_blocks import unfreeze_top
from finetune.towers.tunable import ClassificationHead, TunableTower, outputs_of, require_blocks
from heads.runs.run_files import load_run

_SALT_DIGITS = 16


def base_encoder(stores: Sequence[Store], job: FineTuning) -> TowerEncoder:
    """Return the encoder to be fine-tuned, in float32.

    Raises
    ------
    UsageError
        If it has no tower of SigLIP's kind, or fewer blocks than are asked for.
    """
    own = stores[0].identity
    name = job.encoder or own.encoder
    is_own = name == own.encoder
    if not {"pooling", "square_pixels"} <= encoder_options(name, revision=job.revision):
        raise UsageError(
            f"`encoder` must be a SigLIP or Gemma 3 checkpoint to be fine-tuned; {name!r} has no blocks. Name the "
            "folder or hub id of one"
        )
    encoder = image_encoder(
        name,
        preset=job.preset or (own.preprocess["preset"] if is_own else None),
        device="cpu",
        dtype="float32",
        revision=job.revision,
        pooling=job.pooling or (own.pooling if is_own else None),
    )
    if not isinstance(encoder, TowerEncoder):
        raise UsageError(f"`encoder` must have a tower of SigLIP's kind to be fine-tuned; {name!r} has none")
    require_blocks(job.recipe.blocks, encoder.shape.num_hidden_layers)
    return encoder


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


def patients_of(images: TrainingImages, base: TowerEncoder) -> TrainedPatients:
    """Return whose images taught or judged the encoder, its base's own training included."""
    before = base.folder.patients() if isinstance(base, FinetunedEncoder) else None
    salt = base.identity.weights_sha256[:_SALT_DIGITS] if before is None else before.salt
    found = trained_patients(images.patients_of(LEARNED), images.patients_of(VALIDATION), salt=salt)
    return found if before is None else found.with_earlier(before)
