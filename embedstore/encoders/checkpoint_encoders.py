"""Which encoder reads a checkpoint, by what its config.json says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from embedstore.checkpoints.checkpoint import open_checkpoint
from embedstore.encoders import medgemma, siglip
from embedstore.encoders.medgemma import MedGemmaEncoder
from embedstore.encoders.siglip import SiglipEncoder
from embedstore.encoders.tower import TowerEncoder
from embedstore.errors import DataError

_ENCODERS: dict[str, type[TowerEncoder]] = {
    siglip.MODEL: SiglipEncoder,
    siglip.IMAGE_TOWER: SiglipEncoder,
    medgemma.MODEL: MedGemmaEncoder,
}
# Architectures that people bring because their towers are SigLIP's too, and what to bring instead.
_NEAR_MISSES = {
    "paligemma": "PaliGemma projects its tokens for its language model; give a SigLIP or Gemma 3 checkpoint",
    "siglip2": "SigLIP 2 with flexible resolution takes patches, not pictures; give a fixed-size one",
    "gemma3_text": "this Gemma 3 has no image tower; give a multimodal one, such as google/medgemma-4b-pt",
    "clip": "CLIP has another tower and normalisation; give a SigLIP checkpoint",
}


def encoder_for_checkpoint(origin: str, *, revision: str | None = None) -> Callable[..., TowerEncoder]:
    """Return what builds the encoder of a folder or hub id; only its config.json is read, once.

    Parameters
    ----------
    origin
        Folder or hub id.
    revision
        Branch, tag or commit of a hub id.

    Raises
    ------
    DataError
        If no encoder reads this architecture.
    MissingWeights
        If it is not there and cannot be fetched.
    """
    checkpoint = open_checkpoint(origin, revision=revision)
    architecture = checkpoint.architecture
    encoder: Any = _ENCODERS.get(architecture)
    if encoder is None:
        advice = _NEAR_MISSES.get(architecture, "give a checkpoint of one of these")
        raise DataError(
            f"{origin} has model_type {architecture!r}, which no encoder reads; known are "
            f"{', '.join(_ENCODERS)}. {advice[0].upper()}{advice[1:]}"
        )
    builder: Callable[..., TowerEncoder] = partial(encoder, checkpoint)
    return builder
