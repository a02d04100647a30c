"""How hard few patients should pull a blend's weights to equal ones: log loss on fresh cases, by strength of the pull.

Three parts see the truth through more or less noise, or two of them see the same; each states calibrated log odds of
what it sees. Weights are fitted on n cases and judged on 20,000 others, 40 times; printed is the mean log loss above
that of the best weights, in millinats.

Examples
--------
python benchmarks/blend_weights.py
"""

from __future__ import annotations

import numpy as np

from heads.blending.weights import SHRINKAGE, fit_weights, ridge_of
from heads.scores import Floats, blended, probabilities_from_scores
from heads.statistics.metric_functions import log_loss

SIZES = (40, 100, 400, 2000)
FACTORS = (0.01, 0.1, 1 / 3, 1.0, 3.0, 10.0, 100.0)
WORLDS = {
    "alike": (1.5, 1.5, 1.5),
    "one better": (0.7, 2.0, 3.0),
    "one useless": (1.0, 1.0, 20.0),
}
_SETS, _FRESH, _SPREAD = 40, 20_000, 2.0


def draw(noise: tuple[float, ...], n: int, generator: np.random.Generator) -> tuple[Floats, np.ndarray]:
    """Return (n, parts, 1) log odds, half of each part's noise shared by all, and labels."""
    true = generator.normal(0, _SPREAD, n)
    y = (generator.random(n) < 1 / (1 + np.exp(-true))).astype(np.int64)
    shared = generator.normal(size=n)
    seen = [true + scale * (shared + generator.normal(size=n)) / np.sqrt(2) for scale in noise]
    stated = [view * _SPREAD**2 / (_SPREAD**2 + scale**2) for view, scale in zip(seen, noise, strict=True)]
    return np.stack(stated, axis=1)[..., None], y


def loss(weights: Floats, log_odds: Floats, y: np.ndarray) -> float:
    """Return the mean log loss of a blend."""
    scores = blended(log_odds[:, :, None], [weights.tolist()])[:, 0]
    return float(log_loss(y, probabilities_from_scores(scores))[0])


def main() -> None:
    """Print a table for each world."""
    for name, noise in WORLDS.items():
        print(
            f"\n{name}: noise {noise}\n{'patients':<10}" + "".join(f"x {factor:<8.3g}" for factor in FACTORS)
        )
        fresh = draw(noise, _FRESH, np.random.default_rng(0))
        best = loss(fit_weights(*fresh, ridge=1e-9), *fresh)
        for n in SIZES:
            excess = np.zeros(len(FACTORS))
            for seed in range(_SETS):
                log_odds, y = draw(noise, n, np.random.default_rng([1, n, seed]))
                ridge = ridge_of(y, np.arange(n), n_classes=2)
                for column, factor in enumerate(FACTORS):
                    excess[column] += loss(fit_weights(log_odds, y, ridge=factor * ridge), *fresh) - best
            print(f"{n:<10}" + "".join(f"{1000 * value / _SETS:<10.2f}" for value in excess))
    print(f"\nx 1 is SHRINKAGE = {SHRINKAGE:g}")


if __name__ == "__main__":
    main()
