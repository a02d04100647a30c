"""Where heads are fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedstore.compute_device import torch_device
from embedstore.errors import UsageError
from heads.estimators.boosted import BoostedFamily, BoostedHead
from heads.estimators.logistic import LogisticFamily, LogisticHead
from heads.estimators.mlp import MlpFamily
from heads.estimators.neighbors import NeighborsFamily
from heads.registry import head_family
from heads.testing import folds_of, make_training
from heads.torch_threads import one_thread
from tests.views import make_view, probed

NO_GPU = not torch.cuda.is_available()


@pytest.mark.parametrize("head", ["logistic", "mlp", "xgboost"])
def test_a_grid_is_moved_to_a_device(head: str) -> None:
    moved = head_family(head).on_device("cuda")
    assert moved.device == "cuda"
    assert moved.points == head_family(head).points


def test_a_grid_without_a_choice_stays_as_it_is() -> None:
    grid = NeighborsFamily(ks=(3,))
    assert grid.on_device("cuda") is grid


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
@pytest.mark.parametrize(
    "family", [LogisticFamily((1.0,)), MlpFamily(points=({"hidden": (4,)},)), BoostedFamily()]
)
def test_a_gpu_that_is_not_there_is_named_before_anything_is_fitted(family: object) -> None:
    with pytest.raises(
        UsageError, match=r"device 'cuda' is not there: torch sees 0 CUDA devices\. Use 'cpu'"
    ):
        probed(make_view(), draws=2, family=family, device="cuda")


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_a_head_names_the_library_that_finds_none() -> None:
    X, y = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), np.arange(20) % 2
    for head, library in (
        (LogisticHead(device="cuda"), "torch sees"),
        (BoostedHead(device="cuda"), "XGBoost finds"),
    ):
        with pytest.raises(UsageError, match=f"device 'cuda' is not there: {library} no GPU; use cpu"):
            head.fit(X, y)


def test_auto_is_the_cpu_without_a_gpu() -> None:
    assert torch_device("auto").type == ("cpu" if NO_GPU else "cuda")


@pytest.mark.parametrize("name", ["abacus", "meta", "cuda:9"])
def test_another_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"auto, cpu or cuda; found {name!r}"):
        torch_device(name)


def test_threads_come_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        inside = torch.get_num_threads()
    with one_thread(only_if=False):
        left_alone = torch.get_num_threads()
    assert (inside, left_alone, torch.get_num_threads()) == (1, before, before)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("family", "tolerance"),
    [
        (LogisticFamily((0.01, 1.0, 100.0)), 1e-4),
        (MlpFamily(points=({"hidden": (16,), "minimum_steps": 60},)), 1e-2),
        (BoostedFamily(points=({"rounds": 20},)), 0.2),
    ],
)
def test_a_gpu_finds_what_the_cpu_finds(family: object, tolerance: float) -> None:
    training = make_training(n_classes=3)
    here, there = (
        family.on_device(device).out_of_fold(training, folds_of(training), seed=0).scores
        for device in ("cpu", "cuda")
    )
    assert np.abs(here - there).mean() < tolerance
