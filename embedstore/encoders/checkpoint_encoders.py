"""Which encoder reads a checkpoint, by what its config.json says; and the one of a folder that was fine-tuned here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embedstore.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedstore.checkpoints.safetensors_header import Shard
from embedstore.encoders import medgemma, siglip
from embedstore.encoders.medgemma import MedGemmaEncoder
from embedstore.encoders.siglip import SiglipEncoder
from embedstore.encoders.tower import TowerEncoder
from embedstore.encoders.vision_tower import VisionShape
from embedstore.errors import DataError, IdentityMismatch, MissingWeights, UsageError
from embedstore.finetuned.changed_weights import changed_weights, lay_over
from embedstore.finetuned.encoder_folder import (
    BASE_FOLDER,
    EncoderFolder,
    is_encoder_folder,
    open_encoder_folder,
)
from embedstore.finetuned.trained_patients import PATIENTS_FILE
from embedstore.identity import Identity

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
        Folder or hub id; or a folder that a fine-tuning left.
    revision
        Branch, tag or commit of a hub id.

    Raises
    ------
    DataError
        If no encoder reads this architecture, or a fine-tuned encoder was edited.
    MissingWeights
        If it is not there and cannot be fetched.
    """
    if is_encoder_folder(origin):
        if revision is not None:
            raise UsageError(
                f"revision {revision!r} belongs to a hub id, and {origin} is a folder; leave it out"
            )
        tuned: Callable[..., TowerEncoder] = partial(FinetunedEncoder, open_encoder_folder(origin))
        return tuned
    return _encoder_of(open_checkpoint(origin, revision=revision))


def _encoder_of(checkpoint: Checkpoint) -> Callable[..., TowerEncoder]:
    origin = checkpoint.origin
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


class FinetunedEncoder(TowerEncoder):
    """The tower of a base with the weights that a fine-tuning changed.

    Parameters
    ----------
    folder
        The opened folder.
    finetuned
        What the identity of vectors says of the training, which must be what the folder says; None for any.
    preset, pooling, square_pixels, others
        As `TowerEncoder`; by default those of the training.

    Raises
    ------
    IdentityMismatch
        If `finetuned` is another training.
    """

    def __init__(
        self,
        folder: EncoderFolder,
        *,
        finetuned: Mapping[str, Any] | None = None,
        preset: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        pooling: str | None = None,
        pass_rows: int | None = None,
        execution: str = "auto",
        square_pixels: bool | None = None,
        tokens: int | None = None,
    ) -> None:
        document, (facts,) = folder.document, folder.identity_options.values()
        if finetuned is not None and dict(finetuned) != facts:
            apart = [name for name in facts if finetuned.get(name) != facts[name]]
            raise IdentityMismatch(
                f"{folder.folder} was trained otherwise than the encoder that made these vectors (other "
                f"{', '.join(apart)}); name the folder of that one"
            )
        # Stores keep the list of patients: one that is missing is said before anything is computed.
        folder.require_unchanged(PATIENTS_FILE)
        squares = document["square_pixels"] if square_pixels is None else square_pixels
        super().__init__(
            str(folder.folder),
            name=Path(folder.folder).resolve().name,
            preset=preset or document["preset"],
            device=device,
            dtype=dtype,
            pooling=pooling or document["pooling"],
            pass_rows=pass_rows,
            execution=execution,
            square_pixels=squares,
            tokens=tokens,
        )
        self.folder = folder

    @cached_property
    def base(self) -> TowerEncoder:
        """The encoder that was fine-tuned, found again and compared by the digest of its weights.

        Raises
        ------
        MissingWeights
            If it is not where it was.
        DataError
            If another one is there.
        """
        stated = self.folder.base
        place = self._place_of_base()
        revision = None if Path(place).is_dir() else str(stated["revision"])
        advice = f"Put it, or a link to it, at {self.folder.folder / BASE_FOLDER}"
        try:
            found = encoder_for_checkpoint(place, revision=revision)(preset=self.preset, device=self._device)
        except MissingWeights as error:
            raise MissingWeights(
                f"encoder {self.origin} needs what it was made from: {error}. {advice}"
            ) from error
        found.report_to(self._tell)
        weights = found.identity.weights_sha256
        if weights != stated["weights_sha256"]:
            raise DataError(
                f"encoder {self.origin} was made from weights with sha256 {str(stated['weights_sha256'])[:12]}; "
                f"{place} holds {weights[:12]}. {advice}"
            )
        return found

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Where the base's weights lie."""
        return self.base.checkpoint

    def read_shape(self, checkpoint: Checkpoint) -> VisionShape:
        """Return the shape of the base's tower."""
        return self.base.read_shape(checkpoint)

    def find_shards(self, checkpoint: Checkpoint) -> list[Shard]:
        """Return the base's files."""
        return self.base.find_shards(checkpoint)

    def load_tower(self, dtype: torch.dtype) -> nn.Module:
        """Return the base's tower with the changed weights, each cast from float32 once; raises as `base`."""
        changed = changed_weights(self.folder)
        return lay_over(self.base.load_tower(dtype), changed, holder=str(self.folder.changed_file))

    @cached_property
    def identity(self) -> Identity:
        """That of the base, under the folder's name, with its weights, and what it was trained on."""
        return replace(
            super().identity,
            encoder=self.name,
            weights_sha256=self.folder.weights_sha256,
            options=self.folder.identity_options,
        )

    def _place_of_base(self) -> str:
        """Return where the base lies: in the folder itself, or where it was seen from there; else its hub id."""
        named = str(self.folder.base["origin"])
        beside = (self.folder.folder / BASE_FOLDER, self.folder.folder / named, Path(named).expanduser())
        return next((str(place) for place in beside if place.is_dir()), named)
