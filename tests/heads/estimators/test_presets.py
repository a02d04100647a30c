"""Presets have exactly the published settings, and every one of them runs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from embedstore.errors import UsageError
from heads.estimators.logistic import LogisticHead
from heads.estimators.mlp import MlpHead
from heads.estimators.neighbors import NeighborsHead
from heads.estimators.presets import PRESETS, preset, preset_family, preset_names
from heads.testing import folds_of, log_losses, make_training

HEADS = {"logistic": LogisticHead, "mlp": MlpHead, "knn": NeighborsHead}


def test_there_are_eight() -> None:
    assert preset_names() == [
        "google-lr",
        "google-mlp",
        "mura-mlp",
        "dinov2-logreg",
        "dinov2-knn",
        "clip-openai",
        "fewshot-48",
        "fewshot-48-lr",
    ]


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_learns(name: str) -> None:
    head, family = preset_family(name)
    training = make_training(n=300, targets=1, signal=4.0)
    scores = family.out_of_fold(training, folds_of(training), seed=0).scores
    assert min(log_losses(of_point, training.y)[0] for of_point in scores) < 0.69
    fitted = family.refit(training, family.points[:1], seed=0)[0]
    assert type(fitted) is HEADS[head]
    assert preset(name).source
    assert preset(name).differs


@pytest.mark.parametrize(("name", "strength"), [("google-lr", 1.0), ("clip-openai", 0.316)])
def test_a_single_logistic_regression_is_scikit_learns(name: str, strength: float) -> None:
    _, family = preset_family(name)
    assert family.points == ({"C": strength, "normalisation": "none"},)
    training = make_training(targets=1)
    X = training.X.astype(np.float64)
    own = family.refit(training, family.points[:1], seed=0)[0].predict_proba(training.X)
    theirs = LogisticRegression(C=strength, max_iter=1000, tol=1e-10).fit(X, training.y[:, 0])
    assert own == pytest.approx(theirs.predict_proba(X), abs=1e-5)


def test_dinov2_has_forty_five_strengths_and_four_k() -> None:
    strengths = [point["C"] for point in preset_family("dinov2-logreg")[1].points]
    assert (len(strengths), strengths[0], strengths[-1]) == (45, 1e-6, 1e5)
    assert np.diff(np.log10(strengths)) == pytest.approx(0.25)
    points = preset_family("dinov2-knn")[1].points
    assert [(point["k"], point["temperature"]) for point in points] == [
        (10, 0.07),
        (20, 0.07),
        (100, 0.07),
        (200, 0.07),
    ]


def test_googles_network_is_adam_without_early_stopping() -> None:
    head = MlpHead(**preset_family("google-mlp")[1].points[0])
    recipe = head.recipe
    assert (recipe.hidden, recipe.dropout) == ((512, 256), (0.05, 0.1))
    assert (recipe.learning_rate, recipe.weight_decay, recipe.l2) == (1e-4, 0.0, 1e-5)
    assert (recipe.batch_size, recipe.epochs, recipe.minimum_steps) == (32, 25, 0)
    assert (recipe.schedule, recipe.normalisation, head.validation_share) == ("constant", "none", 0.0)


def test_the_network_for_mura_has_the_published_shape() -> None:
    recipe = MlpHead(**preset_family("mura-mlp")[1].points[0]).recipe
    assert (recipe.hidden, recipe.schedule) == ((512, 128), "cosine")
    assert recipe.weight_decay > 0


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(UsageError, match="no preset named 'google'; there are google-lr, google-mlp"):
        preset_family("google")


def test_names_need_no_heavy_library() -> None:
    code = (
        "import sys; from heads.estimators.presets import preset_names; preset_names();"
        "print([name for name in ('torch', 'faiss', 'xgboost', 'sklearn') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_the_few_shot_presets_learn_from_forty_eight_cases_with_unicorns_adaptors() -> None:
    assert {name: entry.shots for name, entry in PRESETS.items() if entry.shots is not None} == {
        "fewshot-48": 48,
        "fewshot-48-lr": 48,
    }
    assert [point["k"] for point in preset_family("fewshot-48")[1].points] == [1, 5, 20]
    assert preset_family("fewshot-48-lr")[1].points == ({"C": 1.0, "normalisation": "none"},)
