"""Both image towers in their true shape with random weights: pictures per second and share of the ceiling."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from extract import FULL
from torch import nn

from embedstore.compute_device import DTYPES
from embedstore.encoders.execution import check_execution, prepare_forward
from embedstore.encoders.passes import Forward, default_pass_rows
from embedstore.encoders.vision_tower import PooledTower, VisionShape, check_pooling, vision_shape
from gpu_checks.ceiling import measure as measure_ceiling
from gpu_checks.plan import Plan, attempted, choices, peak_gb, seconds_of
from gpu_checks.rows import Row, ceiling_flops

OF_CEILING = 0.60
DTYPE = "bfloat16"
_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}


@dataclass(frozen=True)
class Way:
    """One way to run a tower.

    Parameters
    ----------
    rows
        Pictures in a pass.
    execution, attention
        As `prepare_forward` takes them.
    """

    rows: int
    execution: str = "auto"
    attention: str = "auto"


def geometries(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return name -> vision configuration: the two true ones, or two tiny ones with their names."""
    if plan.small:
        return {"tiny, with head": dict(_SMALL), "tiny, without head": {**_SMALL, "vision_use_head": False}}
    return {
        "MedSigLIP-448": dict(FULL),
        "MedGemma-896": {**FULL, "image_size": 896, "vision_use_head": False},
    }


def measure(plan: Plan) -> None:
    """Write the ceiling, and one row for each tower run as an extraction runs it by default."""
    measure_ceiling(plan)
    for name, vision in geometries(plan).items():
        shape = vision_shape(vision, origin=name)
        tower = random_tower(vision, plan.device)
        way = Way(
            default_pass_rows(plan.device, shape.tokens), "auto" if plan.device.type == "cuda" else "eager"
        )
        row = rate(plan, tower, shape, name, way)
        plan.write("towers", **row, promise=plan.verdict(row["of ceiling"], OF_CEILING))


def rate(plan: Plan, tower: nn.Module, shape: VisionShape, name: str, way: Way) -> Row:
    """Return the row of one tower run in one way; where it does not run, the row says why."""
    blank: dict[str, Any] = {
        "tower": name,
        "dtype": DTYPE,
        "pictures in a pass": way.rows,
        "execution": way.execution,
        "attention": way.attention,
        "images/s": None,
        "TFLOP/s": None,
        "of ceiling": None,
        "peak (GB)": None,
        "note": "",
    }

    def timed_passes() -> dict[str, Any]:
        with choices() as chosen:
            forward = forward_of(plan, tower, shape, way, say=chosen.append)
        speed = way.rows / seconds_of_pass(plan, forward, shape, way.rows)
        return {**blank, **speeds(plan, speed, shape), "note": "; ".join(chosen)}

    return attempted(timed_passes, blank, plan.device)


def speeds(plan: Plan, images_per_s: float, shape: VisionShape) -> dict[str, float | None]:
    """Return the columns of a speed: pictures, operations, their share of this run's ceiling, and memory."""
    flops, ceiling = images_per_s * shape.flops_per_image, ceiling_flops(plan.rows.read(), DTYPE)
    return {
        "images/s": images_per_s,
        "TFLOP/s": flops / 1e12,
        "of ceiling": flops / ceiling if ceiling else None,
        "peak (GB)": peak_gb(plan.device),
    }


def forward_of(
    plan: Plan, tower: nn.Module, shape: VisionShape, way: Way, *, say: Callable[[str], None] = print
) -> Forward:
    """Return the function that runs a pass in this way; raises as `check_execution`."""
    return prepare_forward(
        tower,
        shape,
        rows=way.rows,
        dtype=DTYPES[DTYPE],
        device=plan.device,
        execution=check_execution(way.execution, plan.device),
        attention=way.attention,
        say=say,
    )


def seconds_of_pass(plan: Plan, forward: Forward, shape: VisionShape, rows: int) -> float:
    """Return the seconds of one pass over noise that lies on the device, normalised.

    Raises
    ------
    RuntimeError
        If it does not run in this way, or what comes out is not finite.
    """
    pictures = noise(plan, shape, rows)
    with torch.inference_mode(), warnings.catch_warnings():
        # torch explains by warnings why a kernel does not apply, before it raises.
        warnings.simplefilter("ignore")
        seconds = seconds_of(lambda: forward(pictures), plan)
        if not bool(torch.isfinite(forward(pictures)).all()):
            raise RuntimeError("its vectors hold NaN or infinity")
        return seconds


def noise(plan: Plan, shape: VisionShape, rows: int) -> torch.Tensor:
    """Return (rows, 3, size, size) noise from -1 to 1, on the device, in the towers' arithmetic."""
    size = (rows, 3, shape.image_size, shape.image_size)
    return torch.rand(size, device=plan.device).mul(2).sub(1).to(DTYPES[DTYPE])


def random_tower(vision: Mapping[str, Any], device: torch.device) -> PooledTower:
    """Build a tower on the device; its numbers are drawn there, so that nothing is read or copied."""
    config = transformers.SiglipVisionConfig(**vision, attn_implementation="sdpa")
    with torch.device("meta"):
        model = transformers.SiglipVisionModel(config)
    model = model.to(DTYPES[DTYPE]).to_empty(device=device)
    fill(model, device)
    pooling = check_pooling(None, vision_shape(vision, origin="a random tower"), origin="a random tower")
    return PooledTower(model.eval().requires_grad_(requires_grad=False), pooling)


def fill(model: nn.Module, device: torch.device) -> None:
    """Draw every number of a model with the spread that keeps activations near one; count its positions."""
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        spread = 0.02 if parameter.ndim == 1 else (3 / parameter[0].numel()) ** 0.5
        parameter.data.uniform_(-spread, spread, generator=generator)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1], device=device).expand(buffer.shape))
