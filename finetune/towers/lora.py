"""Low-rank adapters in the blocks of a tower, by PEFT: the only module that imports it.

A list of names with ``out_proj``, or ``all-linear``, also wraps the output layer of the pooling head's
``nn.MultiheadAttention``, which reads its weight and never calls it: that adapter gets no gradient and changes the
answers when it is merged. So the targets are one pattern within ``encoder.layers``.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from embedstore.errors import MissingDependency, UsageError
from embedstore.finetuned.encoder_folder import ADAPTER_FOLDER
from finetune.recipe import FROM_BASE, LoraRecipe
from finetune.towers.quantised import dequantise_blocks, quantise_blocks
from finetune.towers.tunable import TunableTower
from finetune.training.devices import INSTALL_LINE

_MODULES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
# Largest difference, in relation to the largest number of a vector, between base and base with fresh adapters.
START_TOLERANCE = 1e-5
_WEIGHT_FILES = ("adapter_config.json", "adapter_model.safetensors")
_INITIALISATIONS: dict[str, Any] = {"default": True}


@dataclass(frozen=True)
class Adapters:
    """The adapters in a model; `add_adapters` puts them there.

    Parameters
    ----------
    model
        The model, whose tower has them.
    peft
        PEFT's wrapper around the tower.
    changes_base
        Whether they stand on other weights than the base's: their start was taken out of these, or they are quantised.
    is_quantised
        Whether the blocks' weights are held in four bits.
    """

    model: TunableTower
    peft: Any
    changes_base: bool
    is_quantised: bool = False

    def files(self) -> dict[str, bytes]:
        """Return PEFT's two files by their names in an encoder's folder, before anything is merged.

        None for adapters that took their start out of the base's weights (PiSSA, OLoRA), or learned on quantised
        ones: on the base as it is they would mean something else.
        """
        if self.changes_base:
            return {}
        with TemporaryDirectory() as folder, quiet_peft():
            self.peft.save_pretrained(folder, safe_serialization=True)
            return {f"{ADAPTER_FOLDER}/{name}": (Path(folder) / name).read_bytes() for name in _WEIGHT_FILES}

    def merged(self) -> tuple[nn.Module, list[str]]:
        """Merge the adapters into the tower's weights, in float32; quantised ones are made plain before.

        Returns
        -------
        The tower without adapters, and the names of the weights that changed.
        """
        wrapped, names = self._on_plain_layers() if self.is_quantised else (self.peft, [])
        names += [
            name.removeprefix("base_model.model.").removesuffix(".lora_A") + ".weight"
            for name, _ in wrapped.named_modules()
            if name.endswith(".lora_A")
        ]
        self.model.tower = wrapped.merge_and_unload(safe_merge=True)
        return self.model.tower, sorted(set(names))

    def _on_plain_layers(self) -> tuple[Any, list[str]]:
        """Return the same adapters on dequantised layers, and the names of these: merged as they are, PEFT rounds."""
        peft = require_peft()
        learned = peft.get_peft_model_state_dict(self.peft)
        config = self.peft.peft_config["default"]
        tower = self.peft.unload()
        names = dequantise_blocks(tower)
        with quiet_peft():
            wrapped = peft.get_peft_model(tower, config, autocast_adapter_dtype=False)
        peft.set_peft_model_state_dict(wrapped, learned)
        return wrapped, names


def add_adapters(model: TunableTower, recipe: LoraRecipe) -> Adapters:
    """Put adapters into the blocks above `model.frozen_blocks`; only they and the head learn then.

    With `recipe.base_bits` 4 all blocks are quantised first, and the base is what they answer then.

    Raises
    ------
    MissingDependency
        If PEFT, or for four bits bitsandbytes, is not installed.
    UsageError
        If the adapters change the base's answers before they have learned anything.
    """
    peft = require_peft()
    if recipe.is_quantised:
        quantise_blocks(model.tower)
    before = _answers(model)
    config = peft.LoraConfig(
        r=recipe.r,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_dora=recipe.dora,
        use_rslora=recipe.rslora,
        init_lora_weights=_INITIALISATIONS.get(recipe.init, recipe.init),
        target_modules=targets_pattern(recipe.targets, first=model.frozen_blocks, blocks=model.blocks),
        bias="none",
    )
    model.requires_grad_(requires_grad=False)
    with quiet_peft():
        wrapped = peft.get_peft_model(model.tower, config, autocast_adapter_dtype=False)
    model.head.requires_grad_(requires_grad=True)
    require_same_start(before, _answers(model), recipe.init)
    changes_base = recipe.is_quantised or recipe.init in FROM_BASE
    return Adapters(model, wrapped, changes_base, recipe.is_quantised)


def targets_pattern(targets: tuple[str, ...], *, first: int, blocks: int) -> str:
    r"""Return the pattern of the layers that get an adapter: within the blocks from `first` on, and nowhere else.

    Examples
    --------
    >>> targets_pattern(("q", "fc1"), first=25, blocks=27)
    'encoder\\.layers\\.(25|26)\\.(self_attn\\.q_proj|mlp\\.fc1)'
    """
    numbers = "|".join(map(str, range(first, blocks)))
    names = "|".join(re.escape(_MODULES[target]) for target in targets)
    return rf"encoder\.layers\.({numbers})\.({names})"


def require_same_start(before: torch.Tensor, after: torch.Tensor, init: str) -> None:
    """Refuse adapters that change answers before the first step; raises UsageError.

    PiSSA and OLoRA take their part out of the base's weights, which must be put back exactly.
    """
    apart = float((after - before).abs().max() / before.abs().max())
    if not apart <= START_TOLERANCE:
        raise UsageError(
            f"`lora_init` {init!r} must start at the base's own answers, within {START_TOLERANCE:g} of them; it starts "
            f"{apart:.2g} away. Use 'default'"
        )


def require_peft() -> Any:
    """Return the module peft; raises MissingDependency with the line that installs it."""
    # With bitsandbytes installed, PEFT imports it, and 0.50 says on some CPUs that it lacks a package for them.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        import peft
    except ImportError as error:
        raise MissingDependency(f"method 'lora' needs peft: {INSTALL_LINE}") from error
    return peft


@torch.no_grad()
def _answers(model: TunableTower) -> torch.Tensor:
    """Return vectors of two fixed pictures of noise."""
    was_training, config = model.training, model.tower.config
    size = int(config.image_size)  # type: ignore[union-attr, arg-type]
    pictures = torch.rand((2, 3, size, size), generator=torch.Generator().manual_seed(0)) * 2 - 1
    model.eval()
    found = model.vectors(pictures.to(next(model.parameters()).device))
    model.train(was_training)
    return found


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silence two warnings of PEFT that no user of it can do anything about."""
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 about gradient checkpointing by names that go in version 6.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*")
        # A model that was built from a configuration has no name to note.
        warnings.filterwarnings("ignore", message="Could not find a config file.*")
        yield
