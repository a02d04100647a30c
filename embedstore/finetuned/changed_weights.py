"""The weights that fine-tuning changed, laid over those of the base."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from embedstore.checkpoints.safetensors_header import damaged_tensors
from embedstore.errors import DataError, first_few
from embedstore.finetuned.encoder_folder import CHANGED_FILE, EncoderFolder


def changed_weights(folder: EncoderFolder) -> dict[str, torch.Tensor]:
    """Return the changed weights by name, float32, after their digest was checked.

    Raises
    ------
    MissingWeights, DataError
        If the file is missing; if it was edited or is damaged.
    """
    folder.require_unchanged(CHANGED_FILE)
    try:
        return load_file(folder.changed_file)
    except SafetensorError as error:
        raise damaged_tensors(folder.changed_file, error) from error


def lay_over(tower: nn.Module, changed: Mapping[str, torch.Tensor], *, holder: str) -> nn.Module:
    """Replace weights of a tower in place, all of them or none; return the tower.

    Parameters
    ----------
    tower
        The base's tower, in the arithmetic that it will compute in.
    changed
        Weights by the tower's own names; cast to the arithmetic of those that they replace.
    holder
        Where they lie, for messages.

    Raises
    ------
    DataError
        If the tower has no weight of a name, or one of another shape.
    """
    weights = dict(tower.named_parameters())
    strange = sorted(set(changed) - set(weights))
    if strange or not changed:
        raise DataError(
            f"{holder} must hold weights of the base's tower; found "
            + (f"{len(strange)} that it lacks: {first_few(strange, shown=3)}" if strange else "none")
        )
    for name, tensor in changed.items():
        if tensor.shape != weights[name].shape:
            raise DataError(
                f"{holder}: {name} must have shape {tuple(weights[name].shape)}; found {tuple(tensor.shape)}. It "
                "belongs to another base"
            )
    with torch.no_grad():
        for name, tensor in changed.items():
            weights[name].copy_(tensor)
    return tower
