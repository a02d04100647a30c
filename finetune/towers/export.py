"""From a trained tower to an encoder's folder, and the proof that the folder gives the same vectors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from embedstore.encoders.tower import TowerEncoder
from embedstore.encoders.vision_tower import check_pooling
from embedstore.errors import UsageError, first_few
from embedstore.files import canonical_json, make_folder_durable, sha256_bytes, write_durable
from embedstore.finetuned.encoder_folder import (
    CHANGED_FILE,
    ENCODER_FILE,
    HEAD_FILE,
    EncoderFolder,
    write_encoder_document,
)
from embedstore.finetuned.trained_patients import PATIENTS_FILE, TrainedPatients
from finetune.towers.tunable import ClassificationHead


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training leaves.

    Parameters
    ----------
    base
        The encoder that was fine-tuned, in float32.
    changed
        Weights of its tower that differ, by name, float32.
    head
        The classification head; None where none was trained.
    method, recipe
        How, as plain JSON values.
    patients
        Whose images taught it or judged it.
    training
        Further facts: task, targets, classes, units, images.
    arithmetic
        Of the passes in training.
    weights
        Of the base in training.
    files
        Further files, name -> content: PEFT's own where adapters were trained, a fold's answers.
    """

    base: TowerEncoder
    changed: Mapping[str, torch.Tensor]
    head: ClassificationHead | None
    method: str
    recipe: Mapping[str, Any]
    patients: TrainedPatients
    training: Mapping[str, Any]
    arithmetic: str
    files: Mapping[str, bytes]
    weights: str = "float32"


# Of a training that is not finished, in the folder that the encoder will be.
TRAINING_FOLDER = "training"


def require_free(folder: Path) -> None:
    """Refuse a folder that is a finished encoder, or holds something else; raises UsageError."""
    if (folder / ENCODER_FILE).exists():
        raise UsageError(f"`out` must be a new folder; {folder} is a finished encoder")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"`out` must be a folder; {folder} is a file")
    there = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    if there and TRAINING_FOLDER not in there:
        raise UsageError(f"`out` must be a new or an empty folder; {folder} holds {first_few(there)}")


def write_encoder(folder: Path, trained: Trained) -> EncoderFolder:
    """Write the folder of a fine-tuned encoder; ``encoder.json`` comes last."""
    make_folder_durable(folder)
    files = {
        CHANGED_FILE: safetensors.torch.save(dict(trained.changed)),
        **({} if trained.head is None else {HEAD_FILE: _head_bytes(trained.head)}),
        PATIENTS_FILE: canonical_json(trained.patients.to_json()),
        **trained.files,
    }
    for name, payload in files.items():
        make_folder_durable((folder / name).parent)
        write_durable(folder / name, payload, label="encoder-file")
    return write_encoder_document(
        folder, _document(folder, trained) | {"files": {name: sha256_bytes(files[name]) for name in files}}
    )


def _head_bytes(head: ClassificationHead) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    return bytes(safetensors.torch.save(tensors))


def _document(folder: Path, trained: Trained) -> dict[str, Any]:
    base = trained.base
    return {
        "base": {
            "origin": _seen_from(folder, base.origin),
            "revision": base.checkpoint.revision,
            "encoder": base.name,
            "weights_sha256": base.identity.weights_sha256,
        },
        "method": trained.method,
        "recipe": trained.recipe,
        "preset": base.preset,
        "square_pixels": base.square_pixels,
        "pooling": check_pooling(base.pooling, base.shape, origin=base.origin),
        "arithmetic": {"weights": trained.weights, "passes": trained.arithmetic, "changed": "float32"},
        "training": {
            **trained.training,
            "patients": len(trained.patients.taught),
            "validation_patients": len(trained.patients.judged),
            "patients_sha256": trained.patients.sha256,
        },
    }


def _seen_from(folder: Path, origin: str) -> str:
    """Return a base's folder as it is seen from the encoder's, so that both may move together; a hub id as it is."""
    place = Path(origin).expanduser()
    return os.path.relpath(place.resolve(), folder.resolve()) if place.is_dir() else origin
