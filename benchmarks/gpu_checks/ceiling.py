"""The fastest matrix product of the device: what every share of a ceiling in this run is taken of."""

from __future__ import annotations

from collections.abc import Callable

import torch

from gpu_checks.plan import Plan, attempted, seconds_of

_SIDES = (4096, 8192, 16384)
_SMALL_SIDES = (64, 128)
# Of a pass of 32 pictures of 448 px: what the largest linear layers of both towers multiply.
_LAYERS = {
    "first layer of a block's network": (32_768, 1152, 4304),
    "attention's projection": (32_768, 1152, 1152),
}
_SMALL_LAYERS = {"first layer of a block's network": (64, 64, 128)}

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def measure(plan: Plan) -> None:
    """Write one row for each shape in bfloat16."""
    ceilings(plan, "bfloat16", lambda left, right: left @ right)


def ceilings(plan: Plan, dtype: str, product: Product, *, cast: torch.dtype = torch.bfloat16) -> None:
    """Write one row for each shape: squares, which set the ceiling, and the towers' own layers.

    Parameters
    ----------
    plan
        Of the section.
    dtype
        Name of the arithmetic, for the rows.
    product
        Multiplies (rows, inner) by (inner, columns).
    cast
        What both are given in.
    """
    shapes = {f"square of {side}": (side,) * 3 for side in (_SMALL_SIDES if plan.small else _SIDES)}
    layers = _SMALL_LAYERS if plan.small else _LAYERS
    for what, shape in (*shapes.items(), *layers.items()):
        section = "ceiling" if what in shapes else "layers"
        blank = {
            "dtype": dtype,
            "what": what,
            "shape": " x ".join(map(str, shape)),
            "TFLOP/s": None,
            "note": "",
        }

        def timed_product(
            shape: tuple[int, int, int] = shape, blank: dict[str, object] = blank
        ) -> dict[str, object]:
            rows, inner, columns = shape
            left = torch.randn((rows, inner), device=plan.device).to(cast)
            # Stored by columns, as the weight of a linear layer is, and as fp8 wants it.
            right = torch.randn((columns, inner), device=plan.device).to(cast).t()
            seconds = seconds_of(lambda: product(left, right), plan)
            return {**blank, "TFLOP/s": 2 * rows * inner * columns / seconds / 1e12}

        plan.write(section, **attempted(timed_product, blank, plan.device))
