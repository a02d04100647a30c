"""The encoder that is to be fine-tuned, as something to train on a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from finetune.pictures.training_images import LEARNED, LEFT_OUT, VALIDATION, TrainingImages
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


def require_unseen_by_base(base: TowerEncoder, images: TrainingImages) -> None:
    """Refuse a base that was fine-tuned on patients who would judge now, or have no part: nobody could tell then.

    Raises
    ------
    UsageError
        With how many they are.
    """
    if not isinstance(base, FinetunedEncoder):
        return
    patients = np.unique(images.view.patients)
    seen = int(np.count_nonzero(base.folder.patients().parts_of(patients.tolist()) != ""))
    if seen:
        raise UsageError(
            f"{base.origin} was fine-tuned on {seen:,} of these {len(patients):,} patients: who judges now, or is held "
            f"out, must be new to it. Train its own base, {base.folder.base['encoder']}, or take other patients"
        )


def tell_seen_by_head(run: StrPath, images: TrainingImages, say: Callable[[str], None]) -> None:
    """Refuse a run whose head has learned from patients who are held out; say it of those who judge.

    Raises
    ------
    UsageError
        With how many are held out.
    """
    learned = {digest.tobytes() for digest in load_run(run).learned_images}
    view = images.view
    known = np.array([digest.tobytes() in learned for digest in view.content_sha256], np.bool_)
    seen = {
        role: len(
            np.unique(
                view.patients[
                    np.unique(view.unit_of_image[known & (images.role[view.unit_of_image] == role)])
                ]
            )
        )
        for role in (LEFT_OUT, VALIDATION)
    }
    if seen[LEFT_OUT]:
        raise UsageError(
            f"`from_run`: the head of {run} has learned from {seen[LEFT_OUT]:,} patients who are held out, and would "
            "bring them into the encoder. Leave `from_run` out, or hold nobody out with `hold_out=0`"
        )
    if seen[VALIDATION]:
        say(
            f"the head of {run} has learned from {seen[VALIDATION]:,} patients who judge: losses look better than they "
            "are, most of all before the first epoch, so that training may stop early"
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


def patients_of(images: TrainingImages, base: TowerEncoder) -> TrainedPatients:
    """Return whose images taught or judged the encoder, its base's own training included."""
    before = base.folder.patients() if isinstance(base, FinetunedEncoder) else None
    salt = base.identity.weights_sha256[:_SALT_DIGITS] if before is None else before.salt
    found = trained_patients(images.patients_of(LEARNED), images.patients_of(VALIDATION), salt=salt)
    return found if before is None else found.with_earlier(before)
