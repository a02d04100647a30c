"""Time the lumbar work at the size of the RSNA 2024 Lumbar Spine competition, on synthetic tokens.

The localiser's seconds are those of learning the maps of five folds and of finding the levels of every study; drawing
the tokens, which a store would be read for, stands beside them.

Examples
--------
python benchmarks/lumbar.py
python benchmarks/lumbar.py --studies 40 --steps 50
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

import numpy as np
import torch
from synthetic_spines import SyntheticSpines
from table import parse, show

from heads.localising.cross_fit import cross_fit_localiser
from heads.localising.recipe import Recipe


def main() -> None:
    """Measure and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1975)
    parser.add_argument("--slices", type=int, default=16, help="sagittal slices of each of the two series")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parse(parser)
    torch.set_num_threads(options.threads)
    rows = [localiser_row(options.studies, options.slices, options.folds, options.steps, options.seed)]
    show("the localiser of a lumbar store", rows, json_path=options.json)


def localiser_row(studies: int, slices: int, folds: int, steps: int, seed: int) -> dict[str, Any]:
    """Return what a localiser of so many studies costs, and how well it does on drawn tokens."""
    source = SyntheticSpines(studies, slices=slices, seed=seed)
    points = source.points
    started, cpu = time.perf_counter(), time.process_time()
    fit = cross_fit_localiser(source, points, folds=folds, seed=seed, recipe=Recipe(steps=steps))
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    return {
        "studies": studies,
        "sagittal slices": 2 * slices * studies,
        "folds": folds,
        "steps": steps,
        "seconds": seconds - source.drawn_s,
        "drawing, s": source.drawn_s,
        "processor, s": cpu_s,
        "median mm": float(np.median(fit.compared.errors_mm[:, 0])),
        "level right": float(fit.compared.right[:, 0].mean()),
    }


if __name__ == "__main__":
    main()
