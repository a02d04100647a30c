"""What every encoder with an image tower of SigLIP's kind has in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import torch
from torch import nn

from embedstore.checkpoints.checkpoint import (
    Checkpoint,
    check_blobs,
    check_generation,
    open_checkpoint,
    weights_sha256,
)
from embedstore.checkpoints.image_processor import check_normalisation, squash_resample
from embedstore.checkpoints.safetensors_header import Shard
from embedstore.compute_device import DTYPES, check_dtype_name, resolve_device, resolve_dtype
from embedstore.encoders.execution import EXECUTIONS, check_execution, prepare_forward
from embedstore.encoders.passes import FixedPasses, PassEncoder, default_pass_rows
from embedstore.encoders.vision_tower import (
    TOKEN_POOLINGS,
    PooledTower,
    VisionShape,
    check_pooling,
    normalised_levels,
)
from embedstore.errors import UsageError
from embedstore.identity import Identity
from embedstore.images.preprocess import PRESETS, PreprocessSpec
from embedstore.tokens.grid import TOKENS, TokenGrid, check_wanted


class TowerEncoder(PassEncoder):
    """An image tower behind a fixed preprocessing, pooled to one vector.

    Parameters
    ----------
    origin
        Folder or hub id of the checkpoint, or the checkpoint itself if it was opened before.
    name
        Name in the identity; None for the folder's base name or the hub id's last part.
    revision
        Branch, tag or commit of a hub id.
    preset
        Preprocess preset (``pad``, ``eval``, ``hf``), or None for ``pad``.
    device
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:<index>``.
    dtype
        ``auto`` (bfloat16 where the device has the instruction), ``float32``, ``bfloat16``, ``float16``.
    pooling
        ``map`` (the tower's attention-pooling head) or ``mean`` of the tokens; None for ``map`` where
        there is a head.
    pass_rows
        Pictures in every forward pass; None for 1 on a CPU and about 32,768 tokens on CUDA. Another number
        may change the last bits of a vector.
    execution
        ``auto``, ``eager``, ``compile`` (tens of seconds once) or ``graph`` (CUDA).
    square_pixels
        Pixels that are not square are shown as high and wide as they are (`PreprocessSpec`).
    tokens
        Numbers to keep of each patch token beside the vector (`TokenGrid`); None for no tokens.

    Raises
    ------
    UsageError
        For an option with another value.
    """

    def __init__(
        self,
        origin: str | Checkpoint,
        *,
        name: str | None = None,
        revision: str | None = None,
        preset: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        pooling: str | None = None,
        pass_rows: int | None = None,
        execution: str = "auto",
        square_pixels: bool = True,
        tokens: int | None = None,
    ) -> None:
        _check_choice("preprocess", preset, PRESETS)
        _check_choice("pooling", pooling, TOKEN_POOLINGS)
        _check_choice("execution", execution, EXECUTIONS)
        place = origin.origin if isinstance(origin, Checkpoint) else origin
        super().__init__(name or place.rstrip("/").rpartition("/")[2], device=device, pass_rows=pass_rows)
        self._opened = origin if isinstance(origin, Checkpoint) else None
        self.origin = place
        self.revision = revision
        self.preset = preset or "pad"
        self.dtype = check_dtype_name(dtype)
        self.pooling = pooling
        self.execution = execution
        self.square_pixels = square_pixels
        if tokens is not None:
            check_wanted(tokens)
        self.tokens = tokens

    @abstractmethod
    def read_shape(self, checkpoint: Checkpoint) -> VisionShape:
        """Return the image tower's shape, or raise `DataError` if the checkpoint is of another kind."""

    @abstractmethod
    def find_shards(self, checkpoint: Checkpoint) -> list[Shard]:
        """Return the files that hold the image tower, fetched if need be."""

    @abstractmethod
    def load_tower(self, dtype: torch.dtype) -> nn.Module:
        """Return the image tower with its weights in `dtype`, on the CPU, not trainable."""

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Where the weights lie; found (or, for a hub id, fetched) when first asked for."""
        if self._opened is None:
            return open_checkpoint(self.origin, revision=self.revision, say=self._tell)
        # Whoever opened it could not say anything to the user yet.
        check_generation(self._opened, self._tell)
        return self._opened

    @cached_property
    def shape(self) -> VisionShape:
        """Shape of the image tower."""
        return self.read_shape(self.checkpoint)

    @cached_property
    def shards(self) -> list[Shard]:
        """Files that hold the image tower."""
        return self.find_shards(self.checkpoint)

    @cached_property
    def preprocess(self) -> PreprocessSpec:
        """The preset at the size that the tower takes; ``hf`` as the checkpoint's image processor has it."""
        size_px = self.shape.image_size
        spec = PreprocessSpec(self.preset, size_px=size_px, square_pixels=self.square_pixels)
        if self.preset != "hf":
            return spec
        return replace(spec, hf_resample=squash_resample(self.checkpoint, size_px))

    @cached_property
    def identity(self) -> Identity:
        """The identity of the vectors that `encode` returns.

        Raises
        ------
        MissingWeights
            If the weights are not there and cannot be fetched.
        DataError
            If they are damaged or of another architecture.
        """
        shape = self.shape
        return Identity(
            encoder=self.name,
            revision=self.checkpoint.revision,
            weights_sha256=weights_sha256(self.shards, shape.to_json()),
            preprocess=self.preprocess.to_json(),
            pooling=check_pooling(self.pooling, shape, origin=self.origin),
            compute_dtype=resolve_dtype(self.dtype, resolve_device(self.device)),
            dim=shape.hidden_size,
            arrays={} if self.grid is None else {TOKENS: self.grid.spec},
        )

    @cached_property
    def grid(self) -> TokenGrid | None:
        """The grid of patch tokens beside the vector; None where none was asked for."""
        if self.tokens is None:
            return None
        side = self.shape.tokens_per_side
        return TokenGrid(
            side,
            side,
            width=self.shape.hidden_size,
            wanted=self.tokens,
            what="patch token after the last layer norm",
        )

    @property
    def flops_per_image(self) -> float:
        """Floating-point operations of one picture (`VisionShape.flops_per_image`)."""
        return self.shape.flops_per_image

    def make_passes(self) -> FixedPasses:
        """Load the image tower and move it to the device.

        Raises
        ------
        UsageError
            If the device is not there or does not offer the arithmetic or execution.
        MissingWeights, DataError
            As `identity`, and if bytes of the hub's cache are not what their name says.
        """
        device = resolve_device(self.device)
        execution = check_execution(self.execution, device)
        identity, shape = self.identity, self.shape
        check_normalisation(self.checkpoint)
        self._tell_of_unseen_pixels()
        check_blobs(self.shards)
        dtype = DTYPES[identity.compute_dtype]
        tower = PooledTower(self.load_tower(dtype), identity.pooling, grid=self.grid).to(device).eval()
        rows = self.pass_rows or default_pass_rows(device, shape.tokens)
        forward = prepare_forward(
            tower, shape, rows=rows, dtype=dtype, device=device, execution=execution, say=self._tell
        )
        levels = torch.from_numpy(normalised_levels()).to(device, dtype)
        return FixedPasses(
            forward, levels, dim=shape.hidden_size, rows=rows, say=self._tell, further=identity.arrays
        )

    def _tell_of_unseen_pixels(self) -> None:
        size, patch = self.shape.image_size, self.shape.patch_size
        if size % patch:
            self._tell(
                f"{self.origin}: the image size {size} is no multiple of the patch size {patch}, so the last"
                f" {size % patch} rows and columns of pixels (bottom and right) never reach the tower"
            )


def _check_choice(option: str, setting: str | None, choices: Iterable[str]) -> None:
    if setting is not None and setting not in choices:
        raise UsageError(f"{option} must be one of {', '.join(choices)}; found {setting!r}")
