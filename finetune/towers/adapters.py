"""LoRA adapters that others trained on a SigLIP tower: merged whole, or refused.

``PeftModel.from_pretrained`` of peft 0.21 under transformers 5 does not apply an adapter that was trained under
transformers 4, where every name of the tower began with ``vision_model.``: it warns, and answers as the untuned tower.
Here names are translated, and an adapter is refused if a weight of it finds no layer, a layer that its configuration
names has no weight, or a pair was left at zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from embedstore.checkpoints.checkpoint import read_json
from embedstore.checkpoints.safetensors_header import damaged_tensors
from embedstore.errors import DataError, first_few
from embedstore.generation.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter, open_adapter
from finetune.towers.lora import require_peft

# What a lone tower, and a model with both towers, put before the names of the tower.
_PREFIXES = ("", "vision_model.", "vision_model.vision_model.", "model.vision_model.", "siglip.vision_model.")
_PEFT_PREFIX = "base_model.model."
# Its attention reads this weight and never calls the layer, so that nothing can be trained around it.
_NEVER_RUNS = "head.attention.out_proj"
_HALVES = {".lora_A.weight": "A", ".lora_B.weight": "B"}
_SHOWN = 3


def merge_adapter(tower: nn.Module, folder: Path) -> list[str]:
    """Add an adapter to a tower's weights in float32; return the names of the weights that it changed.

    Parameters
    ----------
    tower
        transformers' ``SiglipVisionModel``, float32.
    folder
        PEFT's ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises
    ------
    MissingWeights
        If there is no such folder.
    DataError
        If it is no plain LoRA adapter, is of another base, lacks a weight, or has one that was never trained.
    """
    adapter = open_adapter(folder)
    layers = {name: layer for name, layer in tower.named_modules() if isinstance(layer, nn.Linear)}
    pairs = _pairs(adapter, layers)
    _require_all(adapter, pairs, layers)
    changes = {name: _change(adapter, name, halves, layers[name]) for name, halves in pairs.items()}
    idle = [name for name, change in changes.items() if not change.any() and name != _NEVER_RUNS]
    if idle:
        raise DataError(
            f"adapter {folder}: {len(idle)} of its {len(changes)} pairs change nothing, the first of {idle[0]}: they "
            "were left at zero, so it was not trained or not saved whole"
        )
    if _NEVER_RUNS in changes and changes[_NEVER_RUNS].any():
        raise DataError(
            f"adapter {folder} has weights for {_NEVER_RUNS}, which the tower never calls: in training they had no "
            "part, and merged they would change every answer. Remove them from its file"
        )
    with torch.no_grad():
        for name, change in changes.items():
            weight = layers[name].weight
            weight.copy_(weight.float() + change.to(weight.device))
    return sorted(f"{name}.weight" for name in changes if name != _NEVER_RUNS)


def _pairs(adapter: Adapter, layers: Mapping[str, nn.Linear]) -> dict[str, dict[str, torch.Tensor]]:
    found: dict[str, dict[str, torch.Tensor]] = {}
    strange = []
    for key, tensor in _tensors(adapter.folder / WEIGHTS_FILE).items():
        plain = key.replace(".default.weight", ".weight")
        half = next((ending for ending in _HALVES if plain.endswith(ending)), None)
        name = None if half is None else _layer_name(plain.removesuffix(half), layers)
        if half is None or name is None:
            strange.append(key)
        else:
            found.setdefault(name, {})[_HALVES[half]] = tensor
    if strange:
        raise DataError(
            f"adapter {adapter.folder} has {len(strange)} weights for which the tower has no layer: "
            f"{first_few(strange, shown=_SHOWN)}. It belongs to another base"
            + (f"; it says {adapter.base!r}" if adapter.base else "")
        )
    return found


def _layer_name(name: str, layers: Mapping[str, nn.Linear]) -> str | None:
    """Return the layer behind a name, by that of transformers 5 or what transformers 4 called it."""
    bare = name.removeprefix(_PEFT_PREFIX)
    return next(
        (
            bare.removeprefix(prefix)
            for prefix in _PREFIXES
            if bare.startswith(prefix) and bare[len(prefix) :] in layers
        ),
        None,
    )


def _require_all(
    adapter: Adapter, pairs: Mapping[str, Mapping[str, torch.Tensor]], layers: Mapping[str, nn.Linear]
) -> None:
    """Refuse an adapter without a weight that its configuration promises."""
    config = read_json(adapter.folder / CONFIG_FILE)
    wanted = [name for name in layers if _is_target(config, name)]
    lacking = [name for name in wanted if set(pairs.get(name, {})) != {"A", "B"}]
    lacking += [name for name, halves in pairs.items() if set(halves) != {"A", "B"} and name not in lacking]
    if lacking:
        raise DataError(
            f"adapter {adapter.folder} must have two weights for each layer that its {CONFIG_FILE} names; they lack "
            f"for {first_few(lacking, shown=_SHOWN)}"
        )


def _is_target(config: Mapping[str, Any], name: str) -> bool:
    """Whether an adapter's configuration names a layer, by its present name or any earlier one."""
    peft = require_peft()
    from peft.tuners.tuners_utils import check_target_module_exists

    if config.get("target_modules") == "all-linear":
        return True
    known = {key: entry for key, entry in config.items() if key in peft.LoraConfig.__dataclass_fields__}
    asked = peft.LoraConfig(**known)
    return any(bool(check_target_module_exists(asked, prefix + name)) for prefix in _PREFIXES)


def _change(
    adapter: Adapter, name: str, halves: Mapping[str, torch.Tensor], layer: nn.Linear
) -> torch.Tensor:
    down, up = halves["A"].float(), halves["B"].float()
    if down.shape != (adapter.rank, layer.in_features) or up.shape != (layer.out_features, adapter.rank):
        raise DataError(
            f"adapter {adapter.folder} must fit {name}, {layer.in_features} numbers to {layer.out_features} by rank "
            f"{adapter.rank}; found {tuple(down.shape)} and {tuple(up.shape)}. It belongs to another base"
        )
    change = adapter.scale * (up @ down)
    if not bool(torch.isfinite(change).all()):
        raise DataError(f"adapter {adapter.folder} must hold finite numbers; found others for {name}")
    return change


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise damaged_tensors(path, error) from error
