"""The image tower of a SigLIP model: its shape, its input, its pooling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from embedstore.errors import DataError, UsageError
from embedstore.tokens.grid import TokenGrid

TOKEN_POOLINGS = ("map", "mean")
CHANNELS = 3
GREY_LEVELS = 256


@dataclass(frozen=True)
class VisionShape:
    """What the configuration of an image tower says that changes a vector.

    The defaults are those of transformers' ``SiglipVisionConfig``, because a config.json leaves out what
    equals them.

    Parameters
    ----------
    hidden_size
        Length of a token, and of the pooled vector.
    intermediate_size
        Width of the two-layer network in each block.
    num_hidden_layers, num_attention_heads
        Blocks, and heads in each.
    num_channels
        Colours of the input; always 3.
    image_size, patch_size
        Side of the picture and of a token's patch, px.
    hidden_act
        Activation in each block.
    layer_norm_eps
        Epsilon of every layer norm.
    vision_use_head
        Whether the attention-pooling head is there.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = CHANNELS
    image_size: int = 224
    patch_size: int = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    vision_use_head: bool = True

    @property
    def tokens_per_side(self) -> int:
        """Patch tokens in a row or column of the picture."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Number of patch tokens."""
        return self.tokens_per_side**2

    @property
    def head_dim(self) -> int:
        """Length of one head's part of a token."""
        return self.hidden_size // self.num_attention_heads

    @property
    def flops_per_image(self) -> float:
        """Floating-point operations of one picture: two for each multiply-add of a matrix product.

        Norms, activations and additions are left out; they are below one percent. The pooling head counts
        where the tower has one, because the tower then computes it whichever pooling is asked for.
        """
        width, inner, tokens = self.hidden_size, self.intermediate_size, self.tokens
        patches = 2 * tokens * CHANNELS * self.patch_size**2 * width
        projections = 4 * 2 * tokens * width**2  # queries, keys, values, output
        attention = 2 * 2 * tokens**2 * width  # scores, and their sum over the values
        network = 2 * 2 * tokens * width * inner
        total = patches + self.num_hidden_layers * (projections + attention + network)
        return float(total + self._head_flops if self.vision_use_head else total)

    @property
    def _head_flops(self) -> int:
        """Operations of the pooling head: one learned query attends to all tokens."""
        width, inner, tokens = self.hidden_size, self.intermediate_size, self.tokens
        projections = 2 * width**2 * (1 + tokens + tokens + 1)  # query, keys, values, output
        attention = 2 * 2 * tokens * width
        network = 2 * 2 * width * inner
        return projections + attention + network

    def to_json(self) -> dict[str, Any]:
        """Return the shape as plain JSON values."""
        return asdict(self)


def vision_shape(config: Mapping[str, Any], *, origin: str) -> VisionShape:
    """Read the shape of an image tower from its part of config.json.

    Raises
    ------
    DataError
        If a value is missing its type, the picture is not square or the patches do not tile heads and dims.
    """
    known = {name: config[name] for name in VisionShape.__dataclass_fields__ if config.get(name) is not None}
    for name, expected in VisionShape.__annotations__.items():
        kinds = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}[expected]
        if name in known and (type(known[name]) not in kinds):
            raise DataError(
                f"vision_config of {origin}: {name} must be {expected}; found {known[name]!r}. Only square "
                "SigLIP towers are supported"
            )
    shape = VisionShape(**known)
    numbers = (shape.hidden_size, shape.num_attention_heads, shape.image_size, shape.patch_size)
    if (
        min(numbers) < 1
        or shape.hidden_size % shape.num_attention_heads
        or shape.patch_size > shape.image_size
    ):
        raise DataError(
            f"vision_config of {origin} describes no tower: hidden_size {numbers[0]}, num_attention_heads "
            f"{numbers[1]}, image_size {numbers[2]}, patch_size {numbers[3]}"
        )
    if shape.num_channels != CHANNELS:
        raise DataError(f"vision_config of {origin}: num_channels must be 3; found {shape.num_channels}")
    return shape


def check_pooling(pooling: str | None, shape: VisionShape, *, origin: str) -> str:
    """Return the pooling to use: the given one, or ``map`` where the tower has a head, else ``mean``.

    Raises
    ------
    UsageError
        For another name, or ``map`` without a head.
    """
    if pooling is None:
        return "map" if shape.vision_use_head else "mean"
    if pooling not in TOKEN_POOLINGS:
        raise UsageError(f"pooling must be one of {', '.join(TOKEN_POOLINGS)}; found {pooling!r}")
    if pooling == "map" and not shape.vision_use_head:
        raise UsageError(f"pooling 'map' needs the attention head that {origin} is without; use 'mean'")
    return pooling


def normalised_levels() -> npt.NDArray[np.float32]:
    """Return what each of the 256 grey levels becomes: (x / 255 - 0.5) / 0.5, from -1 to 1.

    The steps and roundings are those of transformers' image processor in NumPy: the product in float64,
    the rest in float32. As a table it has the same bits on every device.
    """
    scaled = (np.arange(GREY_LEVELS, dtype=np.float64) * (1 / 255)).astype(np.float32)
    half = np.float32(0.5)
    levels: npt.NDArray[np.float32] = (scaled - half) / half
    return levels


class PooledTower(nn.Module):
    """An image tower with its pooling: (n, 3, size, size) normalised -> (n, dim) float32.

    With a grid of tokens each row goes on with them, row after row of the grid, since a pass has one output that a
    CUDA graph records: (n, dim + rows * columns * kept).

    Parameters
    ----------
    tower
        transformers' ``SiglipVisionModel``.
    pooling
        ``map`` or ``mean``.
    grid
        The tokens to return; None for none.
    """

    projection: torch.Tensor | None

    def __init__(self, tower: nn.Module, pooling: str, *, grid: TokenGrid | None = None) -> None:
        super().__init__()
        self.tower = tower
        self.pooling = pooling
        self.has_grid = grid is not None
        matrix = grid.projection if grid is not None else None
        self.register_buffer("projection", None if matrix is None else torch.from_numpy(matrix.copy()))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return un-normalised vectors; means and projections are float32, whatever the tower computes in."""
        output = self.tower(pixel_values=pictures)
        if self.pooling == "map" and not self.has_grid:
            vectors: torch.Tensor = output.pooler_output
            return vectors.float()
        tokens: torch.Tensor = output.last_hidden_state.float()
        pooled: torch.Tensor = output.pooler_output.float() if self.pooling == "map" else tokens.mean(dim=1)
        if not self.has_grid:
            return pooled
        projected = tokens if self.projection is None else tokens @ self.projection
        return torch.cat([pooled, projected.flatten(1)], dim=1)


def normalise(pixels: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Bring uint8 pictures to the tower's input.

    Parameters
    ----------
    pixels
        (n, size, size) grey or (n, size, size, 3) RGB, uint8.
    levels
        `normalised_levels` on the same device, in the tower's arithmetic.

    Returns
    -------
    (n, 3, size, size) contiguous. A grey picture and its RGB copy give the same bits in the same layout,
    because a convolution may choose another algorithm for another layout.
    """
    looked_up = levels[pixels.int()]
    if pixels.ndim == 3:
        return looked_up.unsqueeze(1).expand(-1, CHANNELS, -1, -1).contiguous()
    return looked_up.permute(0, 3, 1, 2).contiguous()
