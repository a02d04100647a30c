"""Devices and arithmetic through Accelerate: the only module that imports it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from embedstore.compute_device import resolve_device, resolve_dtype
from embedstore.errors import MissingDependency, UsageError

INSTALL_LINE = "pip install 'embedstore[finetune]'"
_PRECISION = {"float32": "no", "bfloat16": "bf16"}
_DEVICE_VARIABLE = "ACCELERATE_TORCH_DEVICE"


def require_accelerate() -> None:
    """Raise MissingDependency with the line that installs Accelerate, unless it is there."""
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise MissingDependency(f"fine-tuning needs accelerate: {INSTALL_LINE}") from error


def arithmetic_of(dtype: str, device: str) -> str:
    """Return the arithmetic of the passes; ``auto`` is bfloat16 where the device has it.

    Raises
    ------
    UsageError
        For float16, whose gradients vanish without a scale that a resumed training would have to keep as well.
    """
    if dtype == "float16":
        raise UsageError("`dtype` must be auto, float32 or bfloat16 for training; found 'float16'")
    return resolve_dtype(dtype, resolve_device(device))


@contextmanager
def accelerated(device: str, arithmetic: str) -> Iterator[Any]:
    """Yield an ``accelerate.Accelerator`` on one device, or on this process's share of those of ``accelerate launch``.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:<index>``; where several processes were launched, each has its own.
    arithmetic
        ``float32`` or ``bfloat16``; weights are float32 either way.
    """
    require_accelerate()
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    chosen, before = resolve_device(device), os.environ.get(_DEVICE_VARIABLE)
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not launched:
        os.environ[_DEVICE_VARIABLE] = str(chosen)
    try:
        # What an earlier training in this process left would be taken over in silence.
        AcceleratorState._reset_state(reset_partial_state=not launched)
        yield Accelerator(cpu=chosen.type == "cpu", mixed_precision=_PRECISION[arithmetic])
    finally:
        AcceleratorState._reset_state(reset_partial_state=not launched)
        if not launched:
            os.environ.pop(_DEVICE_VARIABLE)
            if before is not None:
                os.environ[_DEVICE_VARIABLE] = before
