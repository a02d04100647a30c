"""Which weight learns how fast, worked out by hand."""

from __future__ import annotations

import pytest
import torch
import transformers

from finetune.recipe import Recipe
from finetune.towers.trainable_blocks import unfreeze_top
from finetune.towers.tunable import ClassificationHead, TunableTower
from finetune.training.optimiser import make_optimiser, rate_of, share_of_rate
from tests.checkpoints import SMALL_VISION

RECIPE = Recipe(lr=1e-4, head_lr=1e-2, layer_decay=0.5, weight_decay=0.3)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("head.layers.0.weight", 1e-2),
        ("tower.head.probe", 1e-4),
        ("tower.post_layernorm.bias", 1e-4),
        ("tower.encoder.layers.3.mlp.fc1.weight", 1e-4),
        ("tower.encoder.layers.1.self_attn.q_proj.lora_A.default.weight", 0.25e-4),
        ("tower.embeddings.position_embedding.weight", 1e-4 / 16),
    ],
)
def test_each_block_learns_half_as_fast_as_the_one_above(name, rate):
    assert rate_of(name, 4, RECIPE) == pytest.approx(rate)


def test_norms_and_biases_do_not_decay_and_nothing_frozen_is_there():
    config = transformers.SiglipVisionConfig(**SMALL_VISION | {"num_hidden_layers": 3})
    model = TunableTower(
        transformers.SiglipVisionModel(config), "map", ClassificationHead(32, (4,), 1), frozen_blocks=2
    )
    unfreeze_top(model, whole=False)
    decay = {
        id(weight): group["weight_decay"]
        for group in make_optimiser(model, RECIPE).param_groups
        for weight in group["params"]
    }
    learned = {name: weight for name, weight in model.named_parameters() if id(weight) in decay}
    assert not any("layers.0." in name or "embeddings" in name for name in learned if "head." not in name[:5])
    undecayed = {name for name, weight in learned.items() if decay[id(weight)] == 0}
    assert all(name.endswith(("bias", "probe")) or "norm" in name for name in undecayed)
    assert {name for name in learned if name.endswith("bias") or "norm" in name} <= undecayed
    assert decay[id(learned["tower.head.attention.in_proj_weight"])] == 0.3


def test_the_rate_rises_and_falls_as_half_a_cosine():
    shares = [share_of_rate(step, 100, 0.1) for step in range(101)]
    assert shares[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    # torch's own cosine over the 90 steps behind the rise.
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=90)
    for share in shares[10:]:
        assert share == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-9)
        optimiser.step()
        cosine.step()
