"""Both towers in every way that the product offers: attention kernels, executions, pictures in a pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from embedstore.encoders.execution import BACKENDS
from embedstore.encoders.passes import default_pass_rows
from embedstore.encoders.vision_tower import VisionShape, vision_shape
from gpu_checks.plan import Plan
from gpu_checks.towers import Way, geometries, random_tower, rate

_TIMES_THE_USUAL = (0.25, 0.5, 2, 4, 8)
_COMPILE_S = 60
_WAY_S = 5


def measure(plan: Plan) -> None:
    """Write one row for each way; compilation, which takes longest, comes last."""
    shapes = {name: vision_shape(vision, origin=name) for name, vision in geometries(plan).items()}
    plans = [(name, way) for name, shape in shapes.items() for way in ways(plan, shape)]
    rows_of = {name: default_pass_rows(plan.device, shape.tokens) for name, shape in shapes.items()}
    plans += [(name, Way(rows, "compile")) for name, rows in rows_of.items()]
    built, tower = "", None
    for name, way in plans:
        reason = reason_to_skip(plan, way)
        if reason:
            plan.write(
                "sweep",
                tower=name,
                **{"pictures in a pass": way.rows},
                execution=way.execution,
                attention=way.attention,
                note=reason,
            )
            continue
        if name != built or tower is None:
            tower = None  # only one is held
            tower, built = random_tower(geometries(plan)[name], plan.device), name
        plan.write("sweep", **rate(plan, tower, shapes[name], name, way))
        if way.execution == "compile":
            torch.compiler.reset()


def ways(plan: Plan, shape: VisionShape) -> Iterator[Way]:
    """Yield each kernel, other numbers of pictures, and a CUDA graph."""
    usual = default_pass_rows(plan.device, shape.tokens)
    for kernel in BACKENDS:
        yield Way(usual, "eager", kernel)
    for times in _TIMES_THE_USUAL:
        if usual * times >= 1:
            yield Way(int(usual * times), "eager")
    yield Way(usual, "graph")


def reason_to_skip(plan: Plan, way: Way) -> str:
    """Return why a way is not measured, or nothing."""
    if way.execution == "compile" and plan.small:
        return "skipped: compiling takes longer than a small run may"
    needed = _COMPILE_S if way.execution == "compile" else 0 if plan.small else _WAY_S
    left = plan.left_s()
    return f"skipped: needs {needed} s, {left:.0f} s are left" if left < needed else ""
