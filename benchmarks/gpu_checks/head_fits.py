"""Whole probes of synthetic vectors with every head: fitted on the card, and on this computer's CPU."""

from __future__ import annotations

import os
import time
from typing import Any

from synthetic import synthetic_view
from xgboost.core import XGBoostError

from embedstore.view import View
from gpu_checks.plan import Plan, attempted
from gpu_checks.rows import CPU, Row
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe
from heads.registry import head_family

# In the order in which a short time is best spent; the networks are the longest on a CPU.
HEADS = ("logistic", "mlp", "xgboost", "knn")
_ON_CPU = ("logistic", "xgboost", "knn", "mlp")
_ROWS, _DIM, _PATIENTS, _DRAWS = 16_384, 1152, 5_000, 200
_SMALL_HEADS = ("logistic", "knn")
_SMALL_ROWS, _SMALL_DIM, _SMALL_PATIENTS = 300, 16, 100
_HEAD_S = 5


def measure(plan: Plan) -> None:
    """Write the card's rows first, then the CPU's, each of these with how many times as fast the card is."""
    view = (
        synthetic_view(_SMALL_ROWS, _SMALL_DIM, _SMALL_PATIENTS, 0)
        if plan.small
        else synthetic_view(_ROWS, _DIM, _PATIENTS, 0)
    )
    on_card: dict[str, float | None] = {}
    if plan.device.type == "cuda":
        for head in HEADS:
            if not has_device(head):
                plan.write("heads", head=head, **{"fitted on": "cuda"}, note="fits on the CPU only")
                continue
            row = _row(plan, view, head, "cuda")
            on_card[head] = row["fit (s)"]
            plan.write("heads", **row)
    for head in _SMALL_HEADS if plan.small else _ON_CPU:
        row, there = _row(plan, view, head, CPU), on_card.get(head)
        times = row["fit (s)"] / there if there and row["fit (s)"] else None
        # The CPU computed this row, whatever card the run is for.
        plan.rows.append({"section": "heads", "device": CPU, **row, "card is faster by": times})


def has_device(head: str) -> bool:
    """Say whether a head's grid can be told where to be fitted."""
    family = head_family(head)
    return family.on_device("cuda") is not family


def _row(plan: Plan, view: View, head: str, device: str) -> Row:
    blank: dict[str, Any] = {
        "head": head,
        "fitted on": device if device == "cuda" else f"{os.cpu_count()} CPU cores",
        "vectors": f"{view.X.shape[0]} x {view.X.shape[1]}",
        "fit (s)": None,
        "whole probe (s)": None,
        "log loss": None,
        "note": "",
    }
    if not plan.small and plan.left_s() < _HEAD_S:
        return {**blank, "note": f"skipped: needs {_HEAD_S} s, {plan.left_s():.0f} s are left"}

    def probed() -> dict[str, Any]:
        # Libraries and the card's context are loaded where they are first needed; that is no part of a fit.
        probe(synthetic_view(300, 16, 100, 0), ProbeOptions(head=head, draws=2, device=device))
        started = time.perf_counter()
        draws = 2 if plan.small else _DRAWS
        result = probe(view, ProbeOptions(head=head, draws=draws, device=device))
        return {
            **blank,
            "fit (s)": result.seconds["fit"],
            "whole probe (s)": time.perf_counter() - started,
            "log loss": float(result.evaluation.overall["log_loss"].value),
        }

    return attempted(probed, blank, plan.device, also=(XGBoostError,))
