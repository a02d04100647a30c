"""A LoRA adapter in PEFT's files, merged into the weights that it was made for; or refused, never left out in silence.

``PeftModel.from_pretrained`` only warns of weights that it does not find. Between transformers 4 and 5 the modules of
Gemma 3 changed their names, so an adapter of the one may change nothing in the other. Here every weight of the file
must find its module, by its own name or by what transformers 4 called it, and must fit it.

A merged weight is W + s B A, in float32 and then rounded to the arithmetic of the model, with s = alpha / r, or
alpha / sqrt(r) for ``use_rslora`` (https://huggingface.co/docs/peft/package_reference/lora).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from embedstore.checkpoints.checkpoint import read_json
from embedstore.checkpoints.digest import measured_sha256
from embedstore.checkpoints.safetensors_header import damaged_tensors, read_shard
from embedstore.errors import DataError, MissingWeights, first_few
from embedstore.files import StrPath, canonical_json, sha256_bytes

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_NAME = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight")
# What would have to be computed otherwise; each with the values that ask for nothing.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "use_dora": (None, False),
    "bias": (None, "none"),
    "modules_to_save": (None, []),
    "lora_bias": (None, False),
    "layer_replication": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "megatron_config": (None,),
    "fan_in_fan_out": (None, False),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    # Others change the base's own weights before training.
    "init_lora_weights": (None, True, False, "gaussian", "orthogonal"),
}
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter on disk; `open_adapter` makes one.

    Parameters
    ----------
    folder
        Where it lies.
    base
        What it says it was trained on, ``""`` where it does not.
    rank, scale
        r and s above.
    sha256
        Digest of its weights and of what changes their effect.
    """

    folder: Path
    base: str
    rank: int
    scale: float
    sha256: str

    def merge_into(self, model: nn.Module) -> int:
        """Add its weights to those of a model, all or none; return how many modules it changed.

        Raises
        ------
        DataError
            If a weight finds no module, its half is missing, it has another shape or no finite number, or all
            together change nothing.
        """
        pairs = self._pairs(model)
        changes = {}
        for name, halves in pairs.items():
            down, up = halves["A"].float(), halves["B"].float()
            change = self.scale * (up @ down)
            if not torch.isfinite(change).all():
                raise DataError(f"adapter {self.folder} must hold finite numbers; found others for {name}")
            changes[name] = change
        moved = sum(bool(change.any()) for change in changes.values())
        if not moved:
            raise DataError(
                f"adapter {self.folder} changes nothing: every product of its {len(changes)} pairs of weights is 0. It "
                "was not trained, or not saved; answers would be those of the model alone"
            )
        for name, change in changes.items():
            weight = model.get_submodule(name).weight
            assert isinstance(weight, torch.Tensor)
            weight.data = (weight.data.float() + change.to(weight.device)).to(weight.dtype)
        return moved

    def _pairs(self, model: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
        """Return module -> its two weights, each of the shape that the module takes."""
        modules = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        found: dict[str, dict[str, torch.Tensor]] = {}
        unknown = []
        for key, tensor in _tensors(self.folder / WEIGHTS_FILE).items():
            match = _NAME.fullmatch(key)
            name = None if match is None else _module_name(match["module"], modules)
            if match is None or name is None:
                unknown.append(key)
            elif match["half"] in found.setdefault(name, {}):
                raise DataError(
                    f"adapter {self.folder} must hold a weight once; found lora_{match['half']} of {name} twice"
                )
            else:
                found[name][match["half"]] = tensor
        if unknown:
            raise DataError(
                f"adapter {self.folder} has {len(unknown)} weights for which the model has no linear layer: "
                f"{first_few(unknown, shown=_SHOWN)}. It belongs to another base"
                + (f"; it says {self.base!r}" if self.base else "")
            )
        for name, halves in found.items():
            self._require_fit(name, halves, modules[name])
        return found

    def _require_fit(self, name: str, halves: Mapping[str, torch.Tensor], module: nn.Linear) -> None:
        missing = [half for half in "AB" if half not in halves]
        if missing:
            raise DataError(
                f"adapter {self.folder} must hold two weights for {name}; lora_{missing[0]} is missing"
            )
        down, up = halves["A"], halves["B"]
        wanted = (module.out_features, module.in_features)
        if down.shape != (self.rank, wanted[1]) or up.shape != (wanted[0], self.rank):
            raise DataError(
                f"adapter {self.folder} must fit {name}, {wanted[1]} numbers to {wanted[0]} by rank {self.rank}; found "
                f"lora_A of shape {tuple(down.shape)} and lora_B of {tuple(up.shape)}. It belongs to another base"
            )


def open_adapter(folder: StrPath) -> Adapter:
    """Read what an adapter is, without its weights.

    Raises
    ------
    MissingWeights
        If there is no such folder.
    DataError
        If it is no LoRA adapter in safetensors, or one whose effect is more than W + s B A.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise MissingWeights(
            f"`adapter` must be a folder with {CONFIG_FILE} and {WEIGHTS_FILE}; {folder} is none"
        )
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (place / name).is_file():
            raise DataError(
                f"adapter {place} must hold {CONFIG_FILE} and {WEIGHTS_FILE}; {name} is missing (a pickle, "
                "adapter_model.bin, is refused: save it anew with safe_serialization)"
            )
    config = read_json(place / CONFIG_FILE)
    if config.get("peft_type") != "LORA":
        raise DataError(f"{place / CONFIG_FILE}: peft_type must be LORA; found {config.get('peft_type')!r}")
    for name, plain in _PLAIN.items():
        if config.get(name) not in plain:
            raise DataError(
                f"{place / CONFIG_FILE}: {name} is {json.dumps(config[name])[:60]}, which is not followed here; merge "
                "the adapter into its base with PEFT (merge_and_unload, save_pretrained) and give the folder as `model`"
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise DataError(
            f"{place / CONFIG_FILE}: r and lora_alpha must be numbers; found {rank!r} and {alpha!r}"
        )
    scale = float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)
    read_shard(place / WEIGHTS_FILE)  # which refuses a file that is not whole
    return Adapter(
        folder=place,
        base=str(config.get("base_model_name_or_path") or ""),
        rank=rank,
        scale=scale,
        sha256=sha256_bytes(
            canonical_json({"scale": scale, "weights": measured_sha256(place / WEIGHTS_FILE)})
        ),
    )


def _module_name(name: str, modules: Mapping[str, nn.Module]) -> str | None:
    """Return the module behind a name, by that of transformers 5 or what transformers 4 called it."""
    without_wrapper = name.replace("vision_tower.vision_model.", "vision_tower.")
    candidates = [name, without_wrapper, f"model.{without_wrapper}"]
    if name.startswith("language_model.model."):
        candidates.append("model.language_model." + name.removeprefix("language_model.model."))
    return next((candidate for candidate in candidates if candidate in modules), None)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise damaged_tensors(path, error) from error
