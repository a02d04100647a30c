"""Blocks whose weights are held in four bits, by bitsandbytes: the only module that imports it.

NF4 with double quantisation, as QLoRA (arXiv 2305.14314): 4 bits a weight, and 8 for the scale of 64 of them, whose own
scales are shared by 256: 4.127 in all.

bitsandbytes 0.50's own ``Linear4bit.forward`` is not used. In evaluation on a CPU with AVX512-BF16 it packs the weights
anew and computes in bfloat16, whatever was asked for (0.4 % away in one trial), which ``.to`` another device does not
undo, and it fails where a row is no multiple of 64 numbers (SigLIP's fc2 has rows of 4,304). With bfloat16 passes it
rounds the bias in place.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from embedstore.errors import MissingDependency

INSTALL_LINE = "pip install 'embedstore[finetune,finetune-4bit]'"
_BLOCKS = "encoder.layers."
_KIND = "nf4"


def quantise_blocks(tower: Any) -> None:
    """Quantise the linear layers of a tower's blocks in place; what stands below and above them stays as it is.

    They are quantised on the CPU, so that the base is the same wherever it is trained.

    Parameters
    ----------
    tower
        transformers' ``SiglipVisionModel``, float32, on the CPU.

    Raises
    ------
    MissingDependency
        If bitsandbytes is not installed.
    """
    bnb, kind = require_bitsandbytes(), _layer_class()
    for name, layer in _linear_layers(tower):
        made = kind(layer.in_features, layer.out_features, quant_type=_KIND, device="meta")
        made.weight = bnb.nn.Params4bit(layer.weight.data, quant_type=_KIND, module=made).to("cpu")
        made.bias = layer.bias
        tower.set_submodule(name, made)
    # By this PEFT knows that layers of bitsandbytes are meant.
    tower.is_loaded_in_4bit = True


def dequantise_blocks(tower: Any) -> list[str]:
    """Put plain layers back, whose float32 weights are what four bits stand for; return the names of these weights."""
    bnb = require_bitsandbytes()
    names = []
    for name, layer in _linear_layers(tower):
        weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain = nn.Linear(layer.in_features, layer.out_features, device="meta")
        plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), layer.bias
        tower.set_submodule(name, plain)
        names.append(f"{name}.weight")
    del tower.is_loaded_in_4bit
    return names


def require_bitsandbytes() -> Any:
    """Return the module bitsandbytes; raises MissingDependency with the line that installs it."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise MissingDependency(f"`base_bits=4` needs bitsandbytes: {INSTALL_LINE}") from error
    return bitsandbytes


def _linear_layers(tower: nn.Module) -> list[tuple[str, Any]]:
    return [
        (name, layer)
        for name, layer in tower.named_modules()
        if name.startswith(_BLOCKS) and isinstance(layer, nn.Linear)
    ]


@cache
def _layer_class() -> Any:
    bnb = require_bitsandbytes()
    theirs: Any = bnb.nn.Linear4bit

    # PEFT's DoRA knows it by this name.
    class Linear4bit(theirs):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Return what ``nn.Linear`` would of the dequantised weight, in the arithmetic that it would have."""
            place = x.device.type
            dtype = torch.get_autocast_dtype(place) if torch.is_autocast_enabled(place) else x.dtype
            state, bias = self.weight.quant_state, self.bias.to(dtype)
            made: torch.Tensor = bnb.matmul_4bit(x.to(dtype), self.weight, quant_state=state, bias=bias)
            return made

    return Linear4bit
