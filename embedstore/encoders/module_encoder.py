"""Any ``torch.nn.Module`` as an encoder whose rows do not depend on their batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import nn

from embedstore.compute_device import DTYPES, check_dtype_name, resolve_device, resolve_dtype
from embedstore.encoders.execution import exact_float32
from embedstore.encoders.passes import FixedPasses, Forward, PassEncoder, default_pass_rows
from embedstore.encoders.vision_tower import CHANNELS, GREY_LEVELS
from embedstore.errors import UsageError
from embedstore.files import canonical_json, sha256_bytes
from embedstore.identity import Identity
from embedstore.images.preprocess import PreprocessSpec

POOLING = "module"
# Counts up when the same module would give other vectors; part of the digest.
_RULES = "1: RGB from 0 to 1, passes of one shape"
_PATCH_PX = 16  # a module's tokens are not known; its passes are sized as those of a tower with such patches


class ModuleEncoder(PassEncoder):
    """A ``torch.nn.Module`` behind a preprocess specification; made by `torch_module`.

    Parameters
    ----------
    net, spec, dim, name, revision, device, dtype, pass_rows, options
        As `torch_module`.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: PreprocessSpec,
        dim: int,
        *,
        name: str,
        revision: str,
        device: str,
        dtype: str,
        pass_rows: int | None,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(name, device=device, pass_rows=pass_rows)
        if dim < 1:
            raise UsageError(f"dim must be at least 1; found {dim}")
        self.net = net
        self.spec = spec
        self.dim = dim
        self.revision = revision
        self.dtype = check_dtype_name(dtype)
        self.options = dict(options)

    @property
    def preprocess(self) -> PreprocessSpec:
        """The specification that was given."""
        return self.spec

    @cached_property
    def identity(self) -> Identity:
        """The identity of the vectors that `encode` returns.

        Raises
        ------
        UsageError
            If the module is in training mode or its weights cannot be digested, or the device is not there.
        """
        _require_evaluation_mode(self.net)
        # Only the author knows whether a module bears fewer bits, so that they must be asked for.
        dtype = "float32" if self.dtype == "auto" else resolve_dtype(self.dtype, resolve_device(self.device))
        return Identity(
            encoder=self.name,
            revision=self.revision,
            weights_sha256=module_sha256(self.net),
            preprocess=self.spec.to_json(),
            pooling=POOLING,
            compute_dtype=dtype,
            dim=self.dim,
            options=self.options,
        )

    def make_passes(self) -> FixedPasses:
        """Copy the module to the device and try it on one pass of black pictures.

        Raises
        ------
        UsageError
            As `identity`; if the module has changed since, does not take the pictures, or returns something
            else than (n, dim) floating-point numbers.
        """
        identity, device = self.identity, resolve_device(self.device)
        _require_evaluation_mode(self.net)
        # Copied first, so that what is digested is what computes, whatever happens to the module afterwards.
        net = copy.deepcopy(self.net)
        if module_sha256(net) != identity.weights_sha256:
            raise UsageError(
                f"the module of encoder {self.name!r} has changed since its identity was first asked for; "
                "make a new encoder of it"
            )
        dtype, size = DTYPES[identity.compute_dtype], self.spec.size_px
        net = net.requires_grad_(False).to(device, dtype)
        rows = self.pass_rows or default_pass_rows(device, max(1, size // _PATCH_PX) ** 2)
        forward = self._forward(net, dtype)
        self._try(forward, torch.zeros((rows, CHANNELS, size, size), dtype=dtype, device=device))
        levels = (torch.arange(GREY_LEVELS, dtype=torch.float32) / (GREY_LEVELS - 1)).to(device, dtype)
        return FixedPasses(forward, levels, dim=self.dim, rows=rows, say=self._tell)

    def _forward(self, net: nn.Module, dtype: torch.dtype) -> Forward:
        def forward(pictures: torch.Tensor) -> torch.Tensor:
            with exact_float32(dtype):
                vectors: Any = net(pictures)
            wanted = (len(pictures), self.dim)
            if not isinstance(vectors, torch.Tensor):
                raise UsageError(
                    f"the module of encoder {self.name!r} must return a tensor; found {type(vectors).__name__}. "
                    "Wrap it in a module that picks the vectors"
                )
            if tuple(vectors.shape) != wanted or not vectors.is_floating_point():
                raise UsageError(
                    f"the module of encoder {self.name!r} must return floating-point vectors of shape {wanted} "
                    f"for {len(pictures)} pictures; found {vectors.dtype} of shape {tuple(vectors.shape)}. "
                    "Pool or flatten in the module, and give the length as dim"
                )
            return vectors.float()

        return forward

    def _try(self, forward: Forward, pictures: torch.Tensor) -> None:
        try:
            with torch.inference_mode():
                forward(pictures)
        except torch.OutOfMemoryError:
            return  # passes are halved until they fit
        except UsageError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            first_line = str(error).partition("\n")[0]
            raise UsageError(
                f"the module of encoder {self.name!r} must take {pictures.dtype} pictures of shape "
                f"{tuple(pictures.shape)} with values from 0 to 1; it raised {type(error).__name__}: {first_line}"
            ) from error


def torch_module(
    net: nn.Module,
    spec: PreprocessSpec,
    dim: int,
    *,
    name: str | None = None,
    revision: str = "1",
    device: str = "auto",
    dtype: str = "auto",
    pass_rows: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> ModuleEncoder:
    """Make an encoder of a module.

    The pictures go through the module in passes of one fixed size, one picture on a CPU, because matrix
    products round differently for another shape: a plain call with 8 pictures gives other last bits than 8
    calls with one.

    Parameters
    ----------
    net
        (n, 3, size, size) RGB from 0 to 1, in the arithmetic of `dtype` -> (n, `dim`), in evaluation mode. A
        grey image has three equal channels. Further normalisation belongs into the module, with its numbers
        as buffers. It is copied when the encoder is loaded.
    spec
        How a decoded image becomes the picture; its `size_px` is the size.
    dim
        Length of a vector.
    name
        Name in the identity, which must be that of the entry point if there is one; None for the name of the
        module's class in lower case.
    revision
        Of the module's code: give another one when ``forward`` changes, which no digest sees. Weights, buffers
        and structure (``repr(net)``) are in the identity by their digest.
    device
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:<index>``.
    dtype
        ``auto`` (float32), ``float32``, ``bfloat16`` or ``float16``.
    pass_rows
        Pictures in every pass; None for 1 on a CPU and up to 32 on CUDA. Another number may change the last
        bits of a vector.
    options
        The encoder's own options, which its identity states.

    Raises
    ------
    UsageError
        For an option with another value. What is wrong with the module is said by `identity` and `load`.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from embedstore.images.preprocess import PreprocessSpec
    >>> net = nn.Sequential(nn.AdaptiveMaxPool2d(2), nn.Flatten()).eval()
    >>> encoder = torch_module(net, PreprocessSpec("pad", size_px=32), 12, name="brightness", device="cpu")
    >>> encoder.encode(np.full((5, 32, 32), 51, np.uint8))[4, :3]
    array([0.2, 0.2, 0.2], dtype=float32)
    """
    return ModuleEncoder(
        net,
        spec,
        dim,
        name=name or type(net).__name__.lower(),
        revision=revision,
        device=device,
        dtype=dtype,
        pass_rows=pass_rows,
        options=options or {},
    )


def module_sha256(net: nn.Module) -> str:
    """Return the digest of a module: its structure, and name, type, shape and bytes of every weight and buffer.

    Raises
    ------
    UsageError
        If its state holds something else than plain tensors.
    """
    state = {
        name: [str(tensor.dtype), list(tensor.shape), _bytes_sha256(tensor)] for name, tensor in _state(net)
    }
    return sha256_bytes(canonical_json({"rules": _RULES, "structure": repr(net), "state": state}))


def _state(net: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    # `state_dict` leaves out buffers that are not persistent, and they compute all the same.
    state = {**dict(net.named_buffers(remove_duplicate=False)), **net.state_dict()}
    for name, entry in sorted(state.items()):
        if not isinstance(entry, torch.Tensor) or entry.layout != torch.strided or entry.is_meta:
            raise UsageError(
                f"the state of {type(net).__name__} must hold dense tensors with values; {name!r} is none. "
                "Load the weights first, and keep the rest out of the state"
            )
        yield name, entry


def _bytes_sha256(tensor: torch.Tensor) -> str:
    # As bytes, since NumPy has no bfloat16.
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return sha256_bytes(flat.numpy().tobytes())


def _require_evaluation_mode(net: nn.Module) -> None:
    training = [name or type(net).__name__ for name, module in net.named_modules() if module.training]
    if training:
        raise UsageError(
            f"the module must be in evaluation mode, or dropout and batch statistics make vectors depend on their "
            f"batch; {training[0]!r} is in training mode. Call net.eval()"
        )
