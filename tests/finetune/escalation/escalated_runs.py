"""Runs with what escalation looks at: a head that falls short of a goal, others beside it, labels of nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.view import View
from heads.estimators.logistic import LogisticFamily
from heads.estimators.neighbors import NeighborsFamily
from heads.runs.run import Run
from heads.runs.run_files import save_run
from tests.views import IDENTITY, make_view, probed

GRID = LogisticFamily(strengths=(0.1,), normalisations=("none",))


def view_of(*, noise: float = 0.0, signal: float = 2.5, encoder: str = "fake", **changes: Any) -> View:
    """Return studies as an encoder sees them, more or less clearly; it sees nothing with a signal of 0."""
    view = make_view(patients=150, signal=signal, **changes)
    blur = noise * np.random.default_rng(3).normal(size=view.X.shape)
    return replace(view, identity=replace(IDENTITY, encoder=encoder), X=(view.X + blur).astype(np.float32))


def run_of(view: View, folder: Path, head: str = "logistic", **options: Any) -> Run:
    """Probe a view with one grid point, and save it."""
    family = GRID if head == "logistic" else NeighborsFamily(ks=(20,), temperatures=(0.07,))
    return save_run(folder, probed(view, head, draws=100, family=family, **options))


def make_runs(folder: Path) -> dict[str, Run]:
    """Run the same studies by two heads, a sharper encoder and one that sees nothing, and other studies."""
    view = view_of(noise=1.0)
    return {
        "own": run_of(view, folder / "own"),
        "nearest": run_of(view, folder / "nearest", "knn"),
        "sharper": run_of(view_of(encoder="sharper"), folder / "sharper"),
        "nothing": run_of(view_of(signal=0), folder / "nothing"),
        "elsewhere": run_of(view_of(seed=5), folder / "elsewhere"),
    }
