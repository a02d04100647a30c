"""SigLIP encoders: MedSigLIP and any other checkpoint of that architecture, images and text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import torch
from torch import nn

from embedstore.checkpoints.checkpoint import Checkpoint, open_shards, weight_map
from embedstore.checkpoints.safetensors_header import Shard
from embedstore.encoders.passes import Vectors
from embedstore.encoders.siglip_text import SiglipText
from embedstore.encoders.tower import TowerEncoder
from embedstore.encoders.transformers_models import load_pretrained
from embedstore.encoders.vision_tower import VisionShape, vision_shape
from embedstore.errors import DataError

MODEL = "siglip"
IMAGE_TOWER = "siglip_vision_model"
MEDSIGLIP_448_HUB_ID = "google/medsiglip-448"


class SiglipEncoder(TowerEncoder):
    """Image tower of a SigLIP checkpoint; the text tower is loaded apart, when text is first encoded.

    Takes the options of `TowerEncoder`. A checkpoint of the image tower alone (``SiglipVisionModel``) serves
    as well, without text.

    Examples
    --------
    >>> encoder = SiglipEncoder("google/medsiglip-448", device="cpu", dtype="float32")
    >>> encoder.name
    'medsiglip-448'
    """

    def read_shape(self, checkpoint: Checkpoint) -> VisionShape:
        """Return the image tower's shape.

        Raises
        ------
        DataError
            If the checkpoint is of another architecture.
        """
        if checkpoint.architecture not in (MODEL, IMAGE_TOWER):
            raise DataError(
                f"{checkpoint.origin} must be a SigLIP checkpoint (model_type '{MODEL}' or '{IMAGE_TOWER}'); "
                f"its config.json says {checkpoint.architecture!r}"
            )
        config = checkpoint.config
        return vision_shape(config.get("vision_config", config), origin=checkpoint.origin)

    def find_shards(self, checkpoint: Checkpoint) -> list[Shard]:
        """Return all weight files: ``from_pretrained`` wants every one that the index names."""
        return open_shards(checkpoint, weight_map(checkpoint).values())

    def load_tower(self, dtype: torch.dtype) -> nn.Module:
        """Return transformers' ``SiglipVisionModel``."""
        return load_pretrained("SiglipVisionModel", self.checkpoint, dtype, tower="image")

    @cached_property
    def text(self) -> SiglipText:
        """The text tower of the same checkpoint, on the same device."""
        return SiglipText(self.checkpoint, device=self.device)

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Encode prompts (`SiglipText.encode`): (n, dim) float32, un-normalised."""
        return self.text.encode(texts)


MEDSIGLIP_448 = partial(SiglipEncoder, MEDSIGLIP_448_HUB_ID)
