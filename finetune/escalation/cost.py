"""What fine-tuning would take: hours, memory and disk, from the tower's shape and rates that were measured.

Counted in forward passes, whose rate is known where a store was made or ``embed doctor`` has run. A trained block costs
three of its forward passes (the gradients of its input and of its weights take one each), a block that a gradient only
passes through two. Training is taken to run at the operations per second of the extraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from embedstore.encoders.vision_tower import CHANNELS, VisionShape
from finetune.recipe import LoraRecipe, Recipe

Method = Literal["unfreeze", "lora"]
# What ``embed finetune`` does where nothing else is asked for.
EPOCHS = Recipe().epochs
LORA_R = LoraRecipe().r
# Weights are float32; a trained one also has a gradient, two moments of AdamW, and a copy of its best.
_BYTES_OF_WEIGHT = 4
_BYTES_OF_TRAINED = 4 * 4
_BYTES_OF_STORED = 2
UNMEASURED = "not measured on this machine"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast images were embedded.

    Parameters
    ----------
    images_per_s
        Images of one device in a second.
    device
        ``cpu``, ``cuda:0``, ...
    source
        Where it was measured.
    """

    images_per_s: float
    device: str
    source: str

    @property
    def is_gpu(self) -> bool:
        """Whether a GPU did it."""
        return not self.device.startswith("cpu")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be trained.

    Parameters
    ----------
    method
        The top blocks, or LoRA in all of them.
    blocks
        How many top blocks; of LoRA all.
    epochs
        Times that every image is seen, at most.
    lora_r
        Rank of the adapters.
    """

    method: Method
    blocks: int
    epochs: int = EPOCHS
    lora_r: int = LORA_R


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a plan takes.

    Parameters
    ----------
    images
        Images to learn from.
    epochs
        Times that each is seen, at most.
    passes, passes_cached
        Forward passes of the whole tower for each image, all epochs together: with every picture computed whole, and
        with the frozen blocks computed once for one copy of each image (``--cache-views 1``).
    hours, hours_cached
        At the measured rate; None where none is known.
    rate
        The rate; None where none is known.
    trained
        Parameters that are trained.
    state_bytes
        Weights, gradients, moments and the best so far.
    picture_bytes
        What is kept of each picture of a micro-batch for its gradient.
    encoder_bytes, cache_bytes, store_bytes
        On disk: what changed (of adapters, the matrices that they are merged into), the frozen blocks' output in
        float16, the new store.
    """

    images: int
    epochs: int
    passes: float
    passes_cached: float
    hours: float | None
    hours_cached: float | None
    rate: Rate | None
    trained: int
    state_bytes: int
    picture_bytes: int
    encoder_bytes: int
    cache_bytes: int
    store_bytes: int

    @property
    def formula(self) -> str:
        """How hours follow from a rate."""
        return f"{self.images:,} images x {self.passes:.1f} forward passes / (images/s x 3600)"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return self.__dict__ | {"rate": self.rate and dict(self.rate.__dict__), "formula": self.formula}


def cost(shape: VisionShape, plan: Plan, *, images: int, rate: Rate | None = None) -> Cost:
    """Return what a plan takes.

    Parameters
    ----------
    shape
        The tower's.
    plan
        What is to be trained.
    images
        Images to learn from.
    rate
        How fast the encoder embeds images.
    """
    trained_blocks = min(plan.blocks, shape.num_hidden_layers)
    whole, block = shape.flops_per_image, block_flops(shape)
    top = trained_blocks * block + _head_flops(shape)
    if plan.method == "lora":
        # Of the adapters' own gradients little is left beside the two passes through frozen matrices.
        times, trained = 1, trained_blocks * _adapter_parameters(shape, plan.lora_r)
        changed = trained_blocks * _linear_parameters(shape)
    else:
        times = 2
        trained = trained_blocks * block_parameters(shape) + 2 * shape.hidden_size + _head_parameters(shape)
        changed = trained
    passes = plan.epochs * (whole + times * top) / whole
    passes_cached = (whole - top + plan.epochs * (1 + times) * top) / whole
    in_hours = None if rate is None else images / rate.images_per_s / 3600
    tokens, width = shape.tokens, shape.hidden_size
    return Cost(
        images=images,
        epochs=plan.epochs,
        passes=passes,
        passes_cached=passes_cached,
        hours=None if in_hours is None else passes * in_hours,
        hours_cached=None if in_hours is None else passes_cached * in_hours,
        rate=rate,
        trained=trained,
        state_bytes=parameters(shape) * _BYTES_OF_WEIGHT + trained * _BYTES_OF_TRAINED,
        picture_bytes=trained_blocks * tokens * (16 * width + 4 * shape.intermediate_size),
        encoder_bytes=changed * _BYTES_OF_WEIGHT,
        cache_bytes=0
        if trained_blocks == shape.num_hidden_layers
        else images * tokens * width * _BYTES_OF_STORED,
        store_bytes=images * width * _BYTES_OF_STORED,
    )


def block_flops(shape: VisionShape) -> float:
    """Return the operations of one block for one picture, counted as `VisionShape.flops_per_image` does."""
    width, inner, tokens = shape.hidden_size, shape.intermediate_size, shape.tokens
    return float(4 * 2 * tokens * width**2 + 2 * 2 * tokens**2 * width + 2 * 2 * tokens * width * inner)


def block_parameters(shape: VisionShape) -> int:
    """Return the parameters of one block: four projections, two layers, two norms."""
    width, inner = shape.hidden_size, shape.intermediate_size
    return 4 * (width * width + width) + (2 * width * inner + inner + width) + 2 * 2 * width


def parameters(shape: VisionShape) -> int:
    """Return the parameters of the whole tower."""
    width = shape.hidden_size
    embeddings = CHANNELS * shape.patch_size**2 * width + width + shape.tokens * width
    return (
        embeddings + shape.num_hidden_layers * block_parameters(shape) + 2 * width + _head_parameters(shape)
    )


def _head_flops(shape: VisionShape) -> float:
    patches = 2.0 * shape.tokens * CHANNELS * shape.patch_size**2 * shape.hidden_size
    return shape.flops_per_image - patches - shape.num_hidden_layers * block_flops(shape)


def _head_parameters(shape: VisionShape) -> int:
    """Return the parameters of the pooling head: a query, attention, a norm and two layers."""
    if not shape.vision_use_head:
        return 0
    width, inner = shape.hidden_size, shape.intermediate_size
    return width + 4 * (width * width + width) + 2 * width + 2 * width * inner + inner + width


def _adapter_parameters(shape: VisionShape, rank: int) -> int:
    """Return the parameters of the adapters of a block: of four projections and two layers."""
    width, inner = shape.hidden_size, shape.intermediate_size
    return rank * (4 * 2 * width + 2 * (width + inner))


def _linear_parameters(shape: VisionShape) -> int:
    """Return the weights of the four projections and two layers of a block, without biases."""
    width, inner = shape.hidden_size, shape.intermediate_size
    return 4 * width * width + 2 * width * inner
