"""Probing protocols of published work, by name, so that a number can be compared with theirs.

A preset fixes what its authors fixed: the head and its settings. Folds, calibration, thresholds and intervals
stay those of `heads.protocol.probe`, for which none of them has a published rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from embedstore.errors import UsageError, did_you_mean
from heads.base import HeadFamily


@dataclass(frozen=True)
class Preset:
    """A published protocol.

    Parameters
    ----------
    name
        Name of the preset.
    head
        Name of the head that it uses.
    source
        Where its settings were published.
    differs
        Settings that differ here, or were not published.
    make
        Makes the grid; the head's libraries are imported only then.
    shots
        Units that are learned from, where it fixes their number (`heads.protocol.options.ProbeOptions.shots`).
    """

    name: str
    head: str
    source: str
    differs: str
    make: Callable[[], HeadFamily]
    shots: int | None = None


def preset_names() -> list[str]:
    """Return the names of the presets.

    Examples
    --------
    >>> heads.preset_names()[:2]
    ['google-lr', 'google-mlp']
    """
    return list(PRESETS)


def preset(name: str) -> Preset:
    """Return a preset by name; raises UsageError for an unknown one."""
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS)
        raise UsageError(f"`preset`: no preset named {name!r}; there are {', '.join(PRESETS)}{hint}")
    return PRESETS[name]


def preset_family(name: str) -> tuple[str, HeadFamily]:
    """Return the head's name and the grid of a preset; raises as `preset`.

    Examples
    --------
    >>> head, family = heads.preset_family("dinov2-knn")
    >>> head, len(family.points)
    ('knn', 4)
    """
    found = preset(name)
    return found.head, found.make()


def _logistic(*strengths: float) -> HeadFamily:
    from heads.estimators.logistic import LogisticFamily

    return LogisticFamily(strengths=strengths, normalisations=("none",))


def _google_lr() -> HeadFamily:
    return _logistic(1.0)


def _clip_openai() -> HeadFamily:
    return _logistic(0.316)


def _dinov2_logreg() -> HeadFamily:
    return _logistic(*(10 ** np.linspace(-6, 5, 45)).tolist())


def _dinov2_knn() -> HeadFamily:
    from heads.estimators.neighbors import NeighborsFamily

    return NeighborsFamily(ks=(10, 20, 100, 200), temperatures=(0.07,))


def _weighted_neighbors() -> HeadFamily:
    from heads.estimators.neighbors import NeighborsFamily

    return NeighborsFamily(ks=(1, 5, 20), temperatures=(1.0,))


def _google_mlp() -> HeadFamily:
    from heads.estimators.mlp import MlpFamily

    return MlpFamily(
        (
            {
                "hidden": [512, 256],
                "normalisation": "none",
                "dropout": [0.05, 0.1],
                "learning_rate": 1e-4,
                "weight_decay": 0.0,
                "l2": 1e-5,
                "batch_size": 32,
                "epochs": 25,
                "minimum_steps": 0,
                "validation_share": 0.0,
                "schedule": "constant",
            },
        )
    )


def _mura_mlp() -> HeadFamily:
    from heads.estimators.mlp import MlpFamily

    return MlpFamily(({"hidden": [512, 128], "normalisation": "none", "schedule": "cosine"},))


_MAKERS: tuple[Preset, ...] = (
    Preset(
        "google-lr",
        "logistic",
        "Google's notebooks on medical embeddings: LogisticRegression(C=1, max_iter=250) on raw pooled vectors",
        "solved to the end, where 250 iterations may stop before",
        _google_lr,
    ),
    Preset(
        "google-mlp",
        "mlp",
        "Google's notebooks on medical embeddings: 512-256, ReLU, dropout 0.05 and 0.10, L2 1e-5, Adam 1e-4, "
        "batch 32, 25 epochs",
        "weights start He-normal, the last layer at zero; the L2 penalty is on weights, not on biases",
        _google_mlp,
    ),
    Preset(
        "mura-mlp",
        "mlp",
        "arXiv 2511.05600: 1152-512-128-1, sigmoid, BCE, AdamW, cosine decay",
        "learning rate, batch size, epochs and dropout are not published: those of `MlpHead`, with "
        "its early stopping; there the encoder's top blocks were trained too, here it is frozen",
        _mura_mlp,
    ),
    Preset(
        "dinov2-logreg",
        "logistic",
        "dinov2/eval/log_regression.py (arXiv 2304.07193): C = 10^linspace(-6, 5, 45), refitted on all rows",
        "C is chosen by log loss over patient folds, where theirs is by accuracy on a random tenth of training",
        _dinov2_logreg,
    ),
    Preset(
        "dinov2-knn",
        "knn",
        "dinov2/eval/knn.py (arXiv 2304.07193): k in 10, 20, 100, 200, temperature 0.07, cosine",
        "votes are smoothed by one neighbour's worth of class frequencies, so that the log loss is finite",
        _dinov2_knn,
    ),
    Preset(
        "clip-openai",
        "logistic",
        "README of openai/CLIP (arXiv 2103.00020): LogisticRegression(C=0.316, max_iter=1000), L-BFGS",
        "solved to the end, where 1,000 iterations may stop before",
        _clip_openai,
    ),
    # 48: unicorn.grand-challenge.org/submission, "Few-Shot Supervision"; design: arXiv 2603.02790. Adaptors and their
    # settings: DIAGNijmegen/unicorn_eval, adaptors/README.md and adapt_features in utils.py.
    Preset(
        "fewshot-48",
        "knn",
        "UNICORN challenge (arXiv 2603.02790; unicorn_eval): 48 labelled cases, frozen vectors, adaptors 1-, 5- and "
        "20-nn-weighted: cosine neighbours, votes weighted by their cosine",
        "k is chosen by log loss over patient folds, where each team names its own; votes weigh exp(cosine) and are "
        "smoothed; cases are drawn from the data at hand, one of each patient, of each class as many as is its share",
        _weighted_neighbors,
        shots=48,
    ),
    Preset(
        "fewshot-48-lr",
        "logistic",
        "UNICORN challenge (arXiv 2603.02790; unicorn_eval): 48 labelled cases, frozen vectors, adaptor "
        "logistic-regression: LogisticRegression(C=1, max_iter=1000) on raw vectors",
        "solved to the end, where 1,000 iterations may stop before; cases are drawn as for fewshot-48",
        _google_lr,
        shots=48,
    ),
)
PRESETS: Mapping[str, Preset] = {entry.name: entry for entry in _MAKERS}
