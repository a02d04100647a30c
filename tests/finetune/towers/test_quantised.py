"""Blocks in four bits answer as plain layers of the dequantised weights, and so does the encoder that comes out."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from embedstore.encoders.registry import image_encoder
from embedstore.errors import MissingDependency, UsageError
from embedstore.finetuned.encoder_folder import open_encoder_folder
from finetune.fine_tuning import fine_tune
from finetune.pictures.augment import Augmentation
from finetune.prefix import CacheOptions
from finetune.recipe import LoraRecipe
from finetune.towers.lora import add_adapters
from finetune.towers.trainable_blocks import require_gradients, trained_names
from finetune.towers.tunable import ClassificationHead, TunableTower
from finetune.training.lesson import Stopped
from tests.checkpoints import by_hand, pictures, relative_error
from tests.finetune.lessons import job_of, recipe_of, write_lesson
from tests.finetune.test_fine_tuning import stopped_at, trained_vectors

QUANTISED = LoraRecipe(r=2, dropout=0.0, base_bits=4)


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    write_lesson(folder)
    return folder


@pytest.fixture(scope="module")
def bnb():
    return pytest.importorskip("bitsandbytes")


def tower_of(lesson):
    return transformers.SiglipVisionModel.from_pretrained(lesson / "base", dtype=torch.float32).eval()


def model_of(lesson):
    torch.manual_seed(1)
    return TunableTower(tower_of(lesson), "map", ClassificationHead(32, (8,), 1), frozen_blocks=1)


def rounded(lesson, bnb):
    """Return the base, the weights of its blocks there and back through four bits by bitsandbytes' functions alone."""
    tower = tower_of(lesson)
    for name, weight in tower.named_parameters():
        if name.startswith("encoder.layers.") and weight.ndim == 2:
            four = bnb.functional.quantize_4bit(weight.data, quant_type="nf4", compress_statistics=True)
            weight.data = bnb.functional.dequantize_4bit(*four)
    return tower


def vectors(tower):
    with torch.no_grad():
        return tower(pixel_values=by_hand(pictures(3))).pooler_output.numpy()


@pytest.mark.parametrize("dora", [False, True])
def test_a_quantised_base_answers_as_its_dequantised_weights_and_the_adapters_alone_learn(lesson, bnb, dora):
    model = model_of(lesson)
    adapters = add_adapters(model, LoraRecipe(r=2, dora=dora, base_bits=4))
    expected = vectors(rounded(lesson, bnb))
    with torch.no_grad():
        said = model.eval().vectors(by_hand(pictures(3))).numpy()
    assert relative_error(said, expected) < 1e-5
    assert relative_error(vectors(tower_of(lesson)), expected) > 1e-3
    kinds = {name: type(layer) for name, layer in model.tower.named_modules() if name.endswith("base_layer")}
    assert len(kinds) == 12
    assert all(issubclass(kind, bnb.nn.Linear4bit) for kind in kinds.values())
    assert all("lora_" in name or name.startswith("head.") for name in trained_names(model))
    frozen = {
        name: weight.detach().clone() for name, weight in model.named_parameters() if not weight.requires_grad
    }
    optimiser = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=0.01)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = (model.train()(by_hand(pictures(3)))[:, 0] - torch.tensor([1.0, -1.0, 1.0])).square().mean()
        loss.backward()
        require_gradients(model)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(
        torch.equal(weight, frozen[name]) for name, weight in model.named_parameters() if name in frozen
    )
    with torch.no_grad():
        said = model.eval().vectors(by_hand(pictures(3))).numpy()
    assert adapters.files() == {}
    plain, names = adapters.merged()
    assert len(names) == 18
    assert relative_error(vectors(plain), said) < 1e-5
    assert relative_error(expected, said) > 1e-3


def test_gradients_are_those_of_plain_layers_with_the_dequantised_weights(lesson, bnb):
    found = []
    for bits in (4, 32):
        model = model_of(lesson)
        if bits == 32:
            model.tower = rounded(lesson, bnb)
        torch.manual_seed(2)
        add_adapters(model, LoraRecipe(r=2, dropout=0.0, base_bits=bits))
        model.train()(by_hand(pictures(3))).square().sum().backward()
        found.append({name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], rtol=1e-4, atol=1e-6), name


def test_passes_in_bfloat16_leave_biases_as_they_are(lesson, bnb):
    model = model_of(lesson)
    add_adapters(model, QUANTISED)
    reference, plain = model_of(lesson), rounded(lesson, bnb)
    reference.tower = plain
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        said, expected = (one.eval().vectors(by_hand(pictures(3))) for one in (model, reference))
    assert torch.equal(said, expected)
    biases = {
        name.replace(".base_layer", ""): w for name, w in model.tower.named_parameters() if "bias" in name
    }
    assert all(torch.equal(biases[name], w) for name, w in plain.named_parameters() if "bias" in name)


def test_the_exported_encoder_gives_the_vectors_of_the_training_model_after_any_stop(
    lesson, bnb, monkeypatch
):
    usual = {"method": "lora", "blocks": 2, "epochs": 1, "augmentation": Augmentation(noise=0.02)}
    recipe = recipe_of(**usual, lora=LoraRecipe(r=2, dropout=0.3, base_bits=4))
    with pytest.raises(Stopped):
        fine_tune(job_of(lesson, "pieces", recipe), stopped_at(1))
    plain = recipe_of(**usual, lora=LoraRecipe(r=2, dropout=0.3))
    with pytest.raises(UsageError, match=r"recipe\.lora\.base_bits: 4 before, None now"):
        fine_tune(job_of(lesson, "pieces", plain, resume=True))
    asked = pictures(3)
    pieces, again = trained_vectors(monkeypatch, job_of(lesson, "pieces", recipe, resume=True), asked)
    whole, said = trained_vectors(monkeypatch, job_of(lesson, "whole", recipe), asked)
    assert np.array_equal(again, said)
    assert relative_error(vectors(rounded(lesson, bnb)), said) > 1e-4
    for name in ("changed.safetensors", "head.safetensors"):
        assert (pieces.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    encoder = image_encoder(str(whole.folder), device="cpu", dtype="float32")
    encoder.load()
    assert relative_error(encoder.encode(asked), said) < 1e-5
    assert (
        len(load_file(whole.folder / "changed.safetensors")) == 18
    )  # the block without adapters has 6 of them
    document = open_encoder_folder(whole.folder).document
    assert document["recipe"]["lora"]["base_bits"] == 4
    assert document["arithmetic"]["weights"].startswith("nf4")
    assert not (whole.folder / "adapter").exists()


@pytest.mark.usefixtures("bnb")
def test_caches_of_quantised_and_plain_blocks_are_two(lesson):
    cache = CacheOptions(asked="float16", folder=lesson / "cache")
    for bits in (32, 4):
        recipe = recipe_of(method="lora", lora=LoraRecipe(r=2, base_bits=bits), epochs=1)
        fine_tune(job_of(lesson, f"cached-{bits}", recipe, cache=cache))
    assert len(list((lesson / "cache").iterdir())) == 2


def test_recipes_of_before_keep_their_digest():
    plain = recipe_of(method="lora", lora=replace(QUANTISED, base_bits=32))
    assert "base_bits" not in plain.to_json()["lora"]
    assert recipe_of(method="lora", lora=QUANTISED).sha256 != plain.sha256


def test_what_cannot_be_quantised_is_refused(lesson, monkeypatch):
    with pytest.raises(UsageError, match="`base_bits` must be 4 or 32; found 8"):
        LoraRecipe(base_bits=8)
    with pytest.raises(
        UsageError, match=r"`lora_init` must be default, gaussian or orthogonal .* found 'pissa'"
    ):
        LoraRecipe(base_bits=4, init="pissa")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    recipe = recipe_of(method="lora", lora=QUANTISED)
    with pytest.raises(MissingDependency, match=r"pip install 'embedstore\[finetune,finetune-4bit\]'"):
        fine_tune(job_of(lesson, "never", recipe))
    assert not (lesson / "never").exists()
