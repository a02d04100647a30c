"""An experiment with 8-bit floating point: the matrix products alone, and a tower whose linear layers use it.

Only speed and closeness are looked at. The product neither computes nor stores such vectors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from embedstore.encoders.passes import default_pass_rows
from embedstore.encoders.vision_tower import PooledTower, VisionShape, vision_shape
from gpu_checks.ceiling import ceilings
from gpu_checks.plan import Plan, attempted
from gpu_checks.rows import Row
from gpu_checks.towers import (
    Way,
    forward_of,
    geometries,
    noise,
    random_tower,
    seconds_of_pass,
    speeds,
)

FP8 = torch.float8_e4m3fn
CAPABILITY = (8, 9)
_COMPILE_S = 60
_TOWER_S = 8


def measure(plan: Plan) -> None:
    """Write the fp8 products and the towers with fp8 layers; on an older card, why there are none."""
    if plan.device.type == "cuda" and torch.cuda.get_device_capability(plan.device) < CAPABILITY:
        major, minor = torch.cuda.get_device_capability(plan.device)
        plan.write("fp8", note=f"skipped: needs compute capability 8.9, this card has {major}.{minor}")
        return
    one = torch.ones((), device=plan.device)

    def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch._scaled_mm(
            left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
        )

    ceilings(plan, "float8_e4m3fn", product, cast=FP8)
    plans = [(name, "eager") for name in geometries(plan)] + [(name, "compile") for name in geometries(plan)]
    for name, execution in plans:
        reason = _reason_to_skip(plan, execution)
        if reason:
            plan.write("fp8", tower=name, execution=execution, note=reason)
        else:
            plan.write("fp8", **_rate(plan, name, execution))


class Fp8Linear(nn.Module):
    """A linear layer that multiplies in fp8: one scale for the weight, one for each input, taken as it comes.

    Parameters
    ----------
    linear
        The layer to stand in for; both of its sides are multiples of 16.
    """

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = to_fp8(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return (..., outputs) bfloat16 of (..., inputs) bfloat16."""
        flat, scale = to_fp8(tokens.reshape(-1, tokens.shape[-1]))
        found = torch._scaled_mm(
            flat,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return found.reshape(*tokens.shape[:-1], -1)


def to_fp8(numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers in fp8, and the float32 scale that brings them back."""
    scale = (numbers.abs().amax().float() / torch.finfo(FP8).max).clamp_min(1e-12)
    return (numbers / scale).to(FP8), scale


def with_fp8_layers(tower: PooledTower) -> PooledTower:
    """Replace the linear layers of every block in place; embeddings and pooling head stay as they are."""
    blocks = [module for module in tower.modules() if type(module).__name__ == "SiglipEncoderLayer"]
    for block in blocks:
        for parent in list(block.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, Fp8Linear(child))
    return tower


def _reason_to_skip(plan: Plan, execution: str) -> str:
    if execution == "compile" and plan.small:
        return "skipped: compiling takes longer than a small run may"
    needed = _COMPILE_S if execution == "compile" else 0 if plan.small else _TOWER_S
    left = plan.left_s()
    return f"skipped: needs {needed} s, {left:.0f} s are left" if left < needed else ""


def _rate(plan: Plan, name: str, execution: str) -> Row:
    vision = geometries(plan)[name]
    shape = vision_shape(vision, origin=name)
    way = Way(default_pass_rows(plan.device, shape.tokens), execution)
    blank: dict[str, Any] = {
        "tower": name,
        "what": "blocks' linear layers in fp8, the rest in bfloat16",
        "pictures in a pass": way.rows,
        "execution": execution,
        "images/s": None,
        "TFLOP/s": None,
        "of ceiling": None,
        "peak (GB)": None,
        "cosine to bfloat16": None,
        "note": "",
    }

    def timed_passes() -> dict[str, Any]:
        if execution == "compile":
            torch.compiler.reset()
        tower = random_tower(vision, plan.device)
        exact = _vectors(plan, tower, shape, way)
        forward = forward_of(plan, with_fp8_layers(tower), shape, way)
        speed = way.rows / seconds_of_pass(plan, forward, shape, way.rows)
        close = torch.cosine_similarity(_vectors(plan, tower, shape, way), exact, dim=1).min()
        note = "random weights: the cosine says little of real ones"
        return {**blank, **speeds(plan, speed, shape), "cosine to bfloat16": float(close), "note": note}

    return attempted(timed_passes, blank, plan.device)


def _vectors(plan: Plan, tower: PooledTower, shape: VisionShape, way: Way) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.inference_mode():
        found: torch.Tensor = tower(noise(plan, shape, way.rows))
    return found
