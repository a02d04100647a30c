"""A checkpoint of a model that reads images and writes text: that it is one, and which, before its weights are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.checkpoints.checkpoint import (
    Checkpoint,
    check_blobs,
    open_checkpoint,
    open_shards,
    weight_map,
    weights_sha256,
)
from embedstore.checkpoints.digest import measured_sha256
from embedstore.checkpoints.hub import WITHOUT_WEIGHTS
from embedstore.checkpoints.image_processor import ImageProcessor, image_processor
from embedstore.errors import DataError, MissingWeights, UsageError

ARCHITECTURE = "gemma3"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
# Whatever changes what a model reads or where it stops.
_WORDS = (
    *_TOKENIZERS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
    "generation_config.json",
)
# Keys of config.json that say who wrote it, and nothing about what it computes.
_OF_THE_WRITER = frozenset({"transformers_version", "_name_or_path", "torch_dtype", "dtype"})


@dataclass(frozen=True)
class ModelFiles:
    """The files of a checkpoint.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    size_px
        Side of the square picture that it takes.
    sha256
        Digest of its weights, its configuration, its tokenizer, template and processor.
    """

    checkpoint: Checkpoint
    size_px: int
    sha256: str


def open_model_files(
    origin: str, *, revision: str | None = None, say: Callable[[str], None] = lambda line: None
) -> ModelFiles:
    """Find a MedGemma or another Gemma 3 that reads images, and digest its files.

    Parameters
    ----------
    origin
        A folder, or a hub id ``owner/name``.
    revision
        Branch, tag or commit of a hub id.
    say
        As `open_checkpoint`.

    Raises
    ------
    MissingWeights
        If it is not there and cannot be fetched.
    DataError
        If it reads no images, is of another architecture, or has no tokenizer, processor or chat template.
    UsageError
        If `origin` is neither a folder nor a hub id.
    """
    is_there = Path(origin).expanduser().is_dir()
    if not is_there and origin.startswith((".", "/", "~")):
        raise MissingWeights(
            f"the folder {origin} of `model` is not there; a hub id has the form 'owner/name'"
        )
    if not is_there and not _HUB_ID.fullmatch(origin):
        raise UsageError(
            f"`model` must be a folder that is there, or a hub id 'owner/name'; found {origin!r}"
        )
    try:
        checkpoint = open_checkpoint(origin, revision=revision, say=say)
        size_px = _picture_size(checkpoint)
        shards = open_shards(checkpoint, weight_map(checkpoint).values())
        words = {name: path for name in _WORDS if (path := checkpoint.find(name)) is not None}
    except MissingWeights as error:
        # An encoder without weights is no help here.
        raise MissingWeights(error.problem.replace(f" {WITHOUT_WEIGHTS}", "")) from error
    _require_words(checkpoint, words)
    check_blobs(shards)
    config = {name: entry for name, entry in checkpoint.config.items() if name not in _OF_THE_WRITER}
    digests = {name: measured_sha256(path) for name, path in words.items()}
    return ModelFiles(checkpoint, size_px, weights_sha256(shards, {"config": config, "words": digests}))


def _picture_size(checkpoint: Checkpoint) -> int:
    """Return the side of the picture, after the checks that its configuration allows."""
    config = checkpoint.config
    if checkpoint.architecture != ARCHITECTURE or not isinstance(config.get("vision_config"), dict):
        what = "reads text alone" if "text" in checkpoint.architecture else "is of another kind"
        raise DataError(
            f"`model` must be a MedGemma or another Gemma 3 that reads images (model_type {ARCHITECTURE!r} and a "
            f"vision_config); {checkpoint.origin} {what}: model_type {checkpoint.architecture!r}"
        )
    processor = image_processor(checkpoint)
    if processor is None:
        raise DataError(
            f"{checkpoint.origin} must hold a processor, preprocessor_config.json or processor_config.json; found "
            "none. Copy it from the model that this one was made from, or save it with processor.save_pretrained"
        )
    processor.check_normalisation()
    size_px = int(config["vision_config"].get("image_size", 0))
    _require_whole_picture(processor, size_px)
    return size_px


def _require_whole_picture(processor: ImageProcessor, size_px: int) -> None:
    """Refuse a processor that would change a picture of the model's own size."""
    if processor.settings.get("do_pan_and_scan"):
        raise DataError(
            f"{processor.place}: do_pan_and_scan must be off: slices are shown whole; found it on"
        )
    size = processor.settings.get("size")
    if size is not None and (size.get("height"), size.get("width")) != (size_px, size_px):
        raise DataError(
            f"{processor.place}: size must be that of the image tower, {size_px} px; found {size.get('height')} x "
            f"{size.get('width')}"
        )


def _require_words(checkpoint: Checkpoint, words: dict[str, Path]) -> None:
    """Refuse a checkpoint that cannot read a question: no tokenizer, or no template of a conversation."""
    if not any(name in words for name in _TOKENIZERS):
        raise DataError(
            f"{checkpoint.origin} must hold a tokenizer, {' or '.join(_TOKENIZERS)}; found neither. Copy it from the "
            "model that this one was made from"
        )
    templates = ("chat_template.jinja", "chat_template.json")
    inside = ("tokenizer_config.json", "processor_config.json")
    if not any(name in words for name in templates) and not any(
        b'"chat_template"' in words[name].read_bytes() for name in inside if name in words
    ):
        raise DataError(
            f"{checkpoint.origin} must hold a chat template ({templates[0]}), by which questions are asked; found "
            "none. Give an instruction-tuned model (-it), or copy the template of the one this was made from"
        )


def settings_of(files: ModelFiles) -> dict[str, Any]:
    """Return what every answer says of the model: its name, revision and digest."""
    checkpoint = files.checkpoint
    return {"model": checkpoint.name, "revision": checkpoint.revision, "model_sha256": files.sha256}
