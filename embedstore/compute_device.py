"""Where an encoder computes, and in which arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from embedstore.errors import EmbedError, UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86 with tiles, Arm


class DeviceLost(EmbedError):
    """The device stopped answering; nothing that was committed is affected."""


def check_device_name(name: str) -> str:
    """Return `name` if it has the form of a device that an encoder offers.

    Raises
    ------
    UsageError
        For anything but ``auto``, ``cpu``, ``cuda`` and ``cuda:<index>``.
    """
    kind, _, index = name.partition(":")
    if name in ("auto", "cpu", "cuda") or (kind == "cuda" and index.isdecimal()):
        return name
    raise UsageError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:<index>'; found {name!r}")


def check_dtype_name(name: str) -> str:
    """Return `name` if it is ``auto`` or an arithmetic that an encoder offers; else raise `UsageError`."""
    if name == "auto" or name in DTYPES:
        return name
    raise UsageError(f"dtype must be 'auto' or one of {', '.join(DTYPES)}; found {name!r}")


def resolve_device(name: str) -> torch.device:
    """Return the device behind a name; ``auto`` is the first CUDA device, or the CPU.

    Raises
    ------
    UsageError
        If it is no name of a device, or torch sees none of that name.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda:0" if count else "cpu"
    device = torch.device(check_device_name(name))
    if device.type == "cpu":
        return device
    index = device.index or 0
    if index >= count:
        raise UsageError(f"device {name!r} is not there: torch sees {count} CUDA devices. Use 'cpu'.")
    return torch.device("cuda", index)


def resolve_dtype(name: str, device: torch.device) -> str:
    """Return the name of the arithmetic; ``auto`` is bfloat16 where the device has the instruction.

    float16 is never chosen: activations of a SigLIP tower may exceed its largest number, 65,504.

    Raises
    ------
    UsageError
        For float16 on a CPU, which has no kernels for it that are worth using.
    """
    if name == "auto":
        return "bfloat16" if has_bfloat16(device) else "float32"
    if name == "float16" and device.type == "cpu":
        raise UsageError("dtype 'float16' needs a CUDA device; on a CPU use 'float32' or 'bfloat16'")
    return name


def has_bfloat16(device: torch.device) -> bool:
    """Say whether the device multiplies bfloat16 in hardware; emulation is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # A release of torch that does not tell computes in float32, which is right and, at worst, slower.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(instruction)) for instruction in _BFLOAT16_INSTRUCTIONS)


def device_lost(device: torch.device, error: Exception) -> DeviceLost:
    """Return the error to raise when the device failed in the middle of a computation."""
    first_line = str(error).partition("\n")[0]
    return DeviceLost(
        f"device {device} stopped answering ({first_line}). The current chunk is abandoned, finished ones "
        "stay; run the same command again to continue, with another `device` if this one stays away"
    )


def is_out_of_memory(error: Exception) -> bool:
    """Say whether torch raised it for want of memory; of a CPU it says so in words only."""
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(said in str(error) for said in words)
    )


def torch_device(name: str) -> torch.device:
    """Return the device behind ``auto`` (a CUDA device if there is one), ``cpu`` or ``cuda``.

    Raises
    ------
    UsageError
        For another name, or if torch sees no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device must be auto, cpu or cuda; found {name!r}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UsageError(f"device {name!r} is not there: torch sees no GPU; use cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")
