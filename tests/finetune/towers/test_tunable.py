"""The tower in two halves is the tower, and every weight that should learn does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import transformers

from embedstore.errors import UsageError
from finetune.recipe import LoraRecipe
from finetune.towers import lora
from finetune.towers.lora import add_adapters, require_same_start
from finetune.towers.trainable_blocks import changed_of, require_gradients, trained_names, unfreeze_top
from finetune.towers.tunable import ClassificationHead, TunableTower
from tests.checkpoints import SMALL_VISION, by_hand, pictures, roughen, silent_transformers


@pytest.fixture(scope="module")
def tower():
    with silent_transformers():
        torch.manual_seed(0)
        config = transformers.SiglipVisionConfig(**SMALL_VISION | {"num_hidden_layers": 3})
        built = transformers.SiglipVisionModel(config).eval()
        roughen(built)
        return built


def model_of(tower, *, frozen=1, pooling="map", recompute=False):
    torch.manual_seed(1)
    head = ClassificationHead(32, (8,), 1)
    return TunableTower(copy.deepcopy(tower), pooling, head, frozen_blocks=frozen, recompute=recompute)


def gradients(model, seed=0):
    torch.manual_seed(seed)
    model.zero_grad(set_to_none=True)
    model.train()(by_hand(pictures(3))).square().sum().backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_both_halves_together_are_transformers_own_tower(tower, frozen):
    model = model_of(tower, frozen=frozen).eval()
    with torch.no_grad():
        expected = tower(pixel_values=by_hand(pictures(3)))
        assert torch.equal(model.vectors(by_hand(pictures(3))), expected.pooler_output)
        model.pooling = "mean"
        assert torch.equal(model.vectors(by_hand(pictures(3))), expected.last_hidden_state.mean(1))


def test_gradients_are_those_of_the_whole_tower_whether_activations_are_kept_or_not(tower):
    model = model_of(tower)
    unfreeze_top(model, whole=False)
    found = gradients(model)
    require_gradients(model)
    assert set(found) == set(trained_names(model))
    whole = copy.deepcopy(tower)
    vectors = whole(pixel_values=by_hand(pictures(3))).pooler_output
    copy.deepcopy(model.head)(vectors).square().sum().backward()
    reference = dict(whole.named_parameters())
    for name, gradient in found.items():
        if name.startswith("tower."):
            assert torch.allclose(gradient, reference[name[6:]].grad, atol=1e-5), name
    again = model_of(tower, recompute=True)
    unfreeze_top(again, whole=False)
    for name, gradient in gradients(again).items():
        assert torch.allclose(gradient, found[name], atol=1e-6), name


def test_all_blocks_and_the_embeddings_learn_when_the_whole_tower_does(tower):
    model = model_of(tower, frozen=0)
    unfreeze_top(model, whole=True)
    assert set(gradients(model)) == {name for name, _ in model.named_parameters()}


def test_a_weight_that_takes_no_part_is_refused(tower):
    model = model_of(tower, pooling="mean")
    unfreeze_top(model, whole=False)
    model.tower.head.requires_grad_(requires_grad=True)  # which a mean of tokens never asks
    gradients(model)
    with pytest.raises(
        UsageError, match=r"11 weights are to be trained and take no part.*tower\.head\.probe"
    ):
        require_gradients(model)


def test_a_frozen_weight_that_changed_is_no_export(tower):
    model = model_of(tower)
    model.tower.embeddings.patch_embedding.bias.data[0] += 1e-6
    with pytest.raises(RuntimeError, match=r"embeddings\.patch_embedding\.bias was to stay as it is"):
        changed_of(model.tower, tower, ["post_layernorm.bias"])


@pytest.mark.parametrize("recipe", [LoraRecipe(r=2, init="pissa"), LoraRecipe(r=2, rslora=True, dora=True)])
def test_adapters_start_at_the_base_keep_out_of_the_pooling_head_and_merge(tower, recipe):
    model = model_of(tower)
    adapters = add_adapters(model, recipe)
    assert not [name for name in trained_names(model) if "tower.head" in name or "layers.0.self" in name]
    assert len([name for name in trained_names(model) if name.endswith("lora_A.default.weight")]) == 12
    gradients(model)
    require_gradients(model)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data += 0.05 * torch.randn_like(weight)
    model.eval()
    with torch.no_grad():
        said = model.vectors(by_hand(pictures(3))).numpy()
        files = adapters.files()
        plain, names = adapters.merged()
        alone = plain(pixel_values=by_hand(pictures(3))).pooler_output.numpy()
    assert np.abs(said - tower(pixel_values=by_hand(pictures(3))).pooler_output.detach().numpy()).max() > 0.01
    assert np.abs(alone - said).max() < 1e-5
    assert set(changed_of(plain, tower, names)) == set(names)
    # A start that was taken out of the base's weights means nothing on the base as it is.
    assert bool(files) == (recipe.init == "default")


def test_a_start_that_is_not_the_bases_is_refused(tower, monkeypatch):
    with pytest.raises(UsageError, match=r"`lora_init` 'pissa' must start at the base's own answers"):
        require_same_start(torch.ones(2, 3), torch.full((2, 3), 1.001), "pissa")
    # As PEFT does it where the pooling head is a target, too.
    monkeypatch.setattr(lora, "targets_pattern", lambda *_, **__: r".*\.out_proj")
    with pytest.raises(UsageError, match="must start at the base's own answers"):
        add_adapters(model_of(tower), LoraRecipe(r=2, init="pissa"))
