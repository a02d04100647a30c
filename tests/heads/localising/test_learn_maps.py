"""Learning gives the same weights whatever the number of threads, and the loss falls."""

import numpy as np
import pytest
import torch

from heads.localising.learn_maps import _loss, learn_folds
from heads.localising.recipe import Recipe
from heads.localising.samples import SampleCollector, targets_of
from heads.localising.spine_prior import point_array
from tests.heads.localising.spines import source_of

RECIPE = Recipe(steps=25, batch=4, hidden=8, slices_t2=2)


@pytest.fixture(scope="module")
def samples():
    source = source_of(8, seed=4)
    collector = SampleCollector(point_array(source.oracle, list(source.patients)), kind="T2", recipe=RECIPE)
    for row, study in enumerate(source.read(list(source.patients))):
        collector.add(row, study)
    return collector.samples()


@pytest.fixture(scope="module")
def chosen():
    return [np.arange(0, 6), np.arange(2, 8)]


def test_weights_do_not_depend_on_the_number_of_threads(samples, chosen):
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(learn_folds(samples, chosen, RECIPE, seeds=[5, 6]))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert all(np.array_equal(one.arrays()[name], other.arrays()[name]) for name in one.arrays())
    assert not np.array_equal(found[0][0].arrays()["near.weight"], found[0][1].arrays()["near.weight"])


def test_the_loss_falls(samples, chosen):
    short, long = (
        learn_folds(samples, chosen[:1], Recipe(**(RECIPE.to_json() | {"steps": steps})), seeds=[5])[0]
        for steps in (1, 25)
    )
    batch = np.arange(6)
    losses = [
        float(_loss(network, samples, batch, targets_of(samples, batch, RECIPE)).detach())
        for network in (short, long)
    ]
    assert losses[1] < losses[0] - 1


def test_learning_leaves_torchs_generator_and_threads_as_they_were(samples, chosen):
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    learn_folds(samples, chosen, Recipe(**(RECIPE.to_json() | {"steps": 1})), seeds=[5, 6])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
