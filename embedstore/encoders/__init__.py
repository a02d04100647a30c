"""An image's square -> its vector: the contract, the registry of names, and the encoders."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedstore.encoders.module_encoder import torch_module

__all__ = ["torch_module"]


def __getattr__(name: str) -> Any:
    # Reached only by whoever asks for it, so that encoders without a network cost no import of torch.
    if name == "torch_module":
        return import_module("embedstore.encoders.module_encoder").torch_module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
