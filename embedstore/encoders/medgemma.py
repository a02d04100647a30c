"""The image tower of MedGemma (and of any Gemma 3), without the language model.

The tower is a SigLIP image tower without a pooling head; its tokens after the last layer norm are averaged.
Only the safetensors files that hold it are opened, and of them only its tensors are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, partial

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from embedstore.checkpoints.checkpoint import Checkpoint, open_shards, weight_map
from embedstore.checkpoints.safetensors_header import Shard, damaged_tensors
from embedstore.encoders.tower import TowerEncoder
from embedstore.encoders.transformers_models import SHOWN_NAMES, frozen, headless_vision_model, require_all
from embedstore.encoders.vision_tower import VisionShape, vision_shape
from embedstore.errors import DataError, first_few

MODEL = "gemma3"
MEDGEMMA_896_NAME = "medgemma-896"
MEDGEMMA_896_HUB_ID = "google/medgemma-4b-pt"
# What transformers 4 puts before every name of a lone tower, and transformers 5 does not.
_WRAPPER = "vision_model."
_FIRST_WEIGHT = "embeddings.patch_embedding.weight"
_HEAD = "head."


class MedGemmaEncoder(TowerEncoder):
    """Image tower of a Gemma 3 checkpoint, mean of its tokens.

    Takes the options of `TowerEncoder`; `pooling` is ``mean``.
    """

    def read_shape(self, checkpoint: Checkpoint) -> VisionShape:
        """Return the image tower's shape, without the pooling head that is never there.

        Raises
        ------
        DataError
            If the checkpoint is of another architecture, or of a Gemma without images.
        """
        config = checkpoint.config.get("vision_config")
        if checkpoint.architecture != MODEL or not isinstance(config, dict):
            raise DataError(
                f"{checkpoint.origin} must be a MedGemma or Gemma 3 checkpoint with an image tower (model_type "
                f"'{MODEL}' and a vision_config); its config.json says {checkpoint.architecture!r}"
            )
        return vision_shape({**config, "vision_use_head": False}, origin=checkpoint.origin)

    def find_shards(self, checkpoint: Checkpoint) -> list[Shard]:
        """Return the files that hold a tensor of the image tower; the others need not even be there."""
        names = self._names
        return open_shards(checkpoint, (names[name] for name in _tower_names(names, checkpoint)))

    def load_tower(self, dtype: torch.dtype) -> nn.Module:
        """Return transformers' ``SiglipVisionModel`` without a head, filled from the tower's tensors."""
        checkpoint, names = self.checkpoint, self._names
        model = headless_vision_model(checkpoint.config["vision_config"], dtype)
        prefix = _tower_prefix(names, checkpoint)
        wanted = {prefix + key.removeprefix(_WRAPPER): key for key in model.state_dict()}
        inside = _tower_names(names, checkpoint)
        require_all(wanted.keys() - inside, checkpoint, part="image tower")
        surplus = sorted(inside - wanted.keys())
        if surplus:
            raise DataError(
                f"the image tower of {checkpoint.origin} has {len(surplus)} weights that its config.json does not "
                f"describe: {first_few(surplus, shown=SHOWN_NAMES)}"
            )
        tensors = {wanted[name]: tensor for name, tensor in _read_tensors(self.shards, wanted, dtype)}
        require_all(wanted.values() - tensors.keys(), checkpoint, part="image tower")
        try:
            model.load_state_dict(tensors, strict=True, assign=True)
        except RuntimeError as error:
            raise DataError(
                f"the image tower of {checkpoint.origin} is not what its config.json says: "
                f"{' '.join(str(error).split())}"
            ) from error
        _fill_positions(model)
        return frozen(model)

    @cached_property
    def _names(self) -> dict[str, str]:
        return weight_map(self.checkpoint)


MEDGEMMA_896 = partial(MedGemmaEncoder, MEDGEMMA_896_HUB_ID, name=MEDGEMMA_896_NAME)


def _tower_prefix(names: Iterable[str], checkpoint: Checkpoint) -> str:
    """Return what stands before the tower's own names.

    ``vision_tower.vision_model.`` in the original, ``model.vision_tower.vision_model.`` or
    ``model.vision_tower.`` when saved again by transformers 4 or 5.
    """
    found = [
        name.removesuffix(_FIRST_WEIGHT)
        for name in names
        if name.endswith(_FIRST_WEIGHT) and "vision_tower." in name
    ]
    if len(found) != 1:
        raise DataError(
            f"{checkpoint.origin} must hold one image tower (a tensor vision_tower...{_FIRST_WEIGHT}); "
            f"found {len(found)}"
        )
    return found[0]


def _tower_names(names: Iterable[str], checkpoint: Checkpoint) -> set[str]:
    """Return the full names of the tower's tensors, a pooling head aside."""
    prefix = _tower_prefix(names, checkpoint)
    return {name for name in names if name.startswith(prefix) and not name.startswith(prefix + _HEAD)}


def _read_tensors(
    shards: Iterable[Shard], wanted: Iterable[str], dtype: torch.dtype
) -> Iterable[tuple[str, torch.Tensor]]:
    """Yield (name, tensor in `dtype`) of the wanted tensors; no other byte is read."""
    names = set(wanted)
    for shard in shards:
        try:
            with safe_open(shard.path, framework="pt") as file:
                for name in sorted(names & shard.shapes.keys()):
                    # A copy, because safetensors maps the file, which may vanish during a long run.
                    yield name, file.get_tensor(name).to(dtype, copy=True)
        except SafetensorError as error:
            raise damaged_tensors(shard.path, error) from error


def _fill_positions(model: nn.Module) -> None:
    """Fill in the numbers of the positions: the one buffer of the tower that no file holds."""
    for module in model.modules():
        positions = getattr(module, "position_ids", None)
        if isinstance(positions, torch.Tensor) and positions.is_meta:
            module.position_ids = torch.arange(positions.shape[-1]).expand(positions.shape)
