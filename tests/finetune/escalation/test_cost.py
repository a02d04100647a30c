"""Costs against the published size of MedSigLIP, transformers' own models, and hand calculations."""

from __future__ import annotations

import pytest
import torch
import transformers

from embedstore.encoders.vision_tower import VisionShape, vision_shape
from finetune.escalation.cost import Plan, Rate, block_parameters, cost, parameters
from tests.checkpoints import FULL_VISION, SMALL_VISION

MEDSIGLIP = vision_shape(FULL_VISION, origin="here")


def test_parameters_are_those_of_transformers() -> None:
    with torch.device("meta"):
        small = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SMALL_VISION))
    assert parameters(VisionShape(**SMALL_VISION)) == sum(each.numel() for each in small.parameters())
    assert block_parameters(VisionShape(**SMALL_VISION)) == sum(
        each.numel() for each in small.encoder.layers[0].parameters()
    )
    # Vision and pooling head of MedSigLIP-448, as its model card's checkpoint has them.
    assert parameters(MEDSIGLIP) == 428_565_440


@pytest.mark.parametrize(("blocks", "times"), [(1, 9.7), (2, 5.2), (4, 2.9)])
def test_the_cache_saves_what_theory_says(blocks: int, times: float) -> None:
    # (1 + 2 K / L) / (3 K / L), without a pooling head and with so many epochs that filling the cache is nothing.
    shape = vision_shape(FULL_VISION | {"vision_use_head": False}, origin="here")
    found = cost(shape, Plan(method="unfreeze", blocks=blocks, epochs=10**6), images=1)
    assert found.passes / found.passes_cached == pytest.approx(times, abs=0.05)


def test_full_fine_tuning_is_three_passes_and_lora_two() -> None:
    full = cost(MEDSIGLIP, Plan(method="unfreeze", blocks=27, epochs=1), images=1)
    assert full.passes == pytest.approx(3, abs=0.02)
    lora = cost(MEDSIGLIP, Plan(method="lora", blocks=27, epochs=1), images=1)
    assert lora.passes == pytest.approx(2, abs=0.02)
    # r (in + out) of four projections and two layers, in each of 27 blocks.
    assert lora.trained == 27 * 16 * (4 * (1152 + 1152) + 2 * (1152 + 4304))
    # Merged: the matrices themselves, float32.
    assert lora.encoder_bytes == 27 * 4 * (4 * 1152**2 + 2 * 1152 * 4304)
    assert lora.state_bytes == 4 * 428_565_440 + 16 * lora.trained


def test_hours_follow_from_the_measured_rate() -> None:
    plan = Plan(method="unfreeze", blocks=2, epochs=10)
    rate = Rate(images_per_s=100.0, device="cuda:0", source="by hand")
    found = cost(MEDSIGLIP, plan, images=36_000, rate=rate)
    assert found.hours == pytest.approx(found.passes * 36_000 / 100 / 3600)
    assert 10 < found.passes < 12
    # 1,024 tokens of 1,152 numbers in two bytes each.
    assert found.cache_bytes == 36_000 * 1024 * 1152 * 2
    assert found.store_bytes == 36_000 * 1152 * 2
    assert cost(MEDSIGLIP, plan, images=36_000).hours is None
    assert found.formula.startswith("36,000 images x")
