"""Adapters of others: applied whole, whatever release of transformers named their weights, or refused."""

from __future__ import annotations

import json

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from cli.main import run
from embedstore.encoders.registry import image_encoder
from embedstore.errors import DataError
from finetune.adopting import Adoption, adopt
from finetune.towers.adapters import merge_adapter
from finetune.towers.lora import quiet_peft
from tests.checkpoints import by_hand, pictures, relative_error, write_image_tower

TARGETS = ["q_proj", "fc1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base, an adapter that PEFT wrote, and what PEFT's own model answers with it."""
    folder = tmp_path_factory.mktemp("adapters")
    base = write_image_tower(folder / "base")
    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=TARGETS, exclude_modules=r".*head\..*")
    torch.manual_seed(0)
    with quiet_peft():
        model = peft.get_peft_model(base, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data += 0.1 * torch.randn_like(weight)
    with quiet_peft():
        model.save_pretrained(folder / "adapter")
    with torch.no_grad():
        said = model.eval()(pixel_values=by_hand(pictures(2))).pooler_output.numpy()
    return folder, said


def renamed(source, folder, change):
    """Write an adapter again, its weights by other names, or others."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text((source / "adapter_config.json").read_text())
    tensors = load_file(source / "adapter_model.safetensors")
    save_file(change(tensors), folder / "adapter_model.safetensors")
    return folder


def of_transformers_4(tensors):
    return {
        name.replace("base_model.model.", "base_model.model.vision_model."): t for name, t in tensors.items()
    }


@pytest.mark.parametrize("names", ["now", "before"])
def test_the_encoder_answers_as_pefts_own_model_by_either_names(made, tmp_path, names, capsys):
    folder, said = made
    adapter = folder / "adapter"
    if names == "before":
        adapter = renamed(adapter, tmp_path / "old", of_transformers_4)
        # The trap: PEFT itself answers as the untuned tower, with a warning only.
        base = transformers.SiglipVisionModel.from_pretrained(folder / "base", dtype=torch.float32)
        with quiet_peft(), pytest.warns(UserWarning, match="missing adapter keys"):
            untuned = peft.PeftModel.from_pretrained(base, adapter)
        with torch.no_grad():
            answer = untuned.eval()(pixel_values=by_hand(pictures(2))).pooler_output.numpy()
        assert relative_error(answer, said) > 1e-2
    out = tmp_path / "adopted"
    command = ["finetune", "--adapter", str(adapter), "--encoder", str(folder / "base"), "--out", str(out)]
    assert run(command) == 0
    assert "nobody knows on whose images it was trained" in capsys.readouterr().out
    encoder = image_encoder(str(out), device="cpu", dtype="float32")
    encoder.load()
    assert relative_error(encoder.encode(pictures(2)), said) < 1e-5
    assert encoder.identity.options["finetuned"]["method"] == "adapter"


def without(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if name not in key}


def zeroed(name):
    return lambda tensors: {key: tensor * 0 if name in key else tensor for key, tensor in tensors.items()}


def cut(tensors):
    return {key: tensor[..., :-1].contiguous() for key, tensor in tensors.items()}


def beside(name):
    def change(tensors):
        more = {f"base_model.model.{name}.lora_A.weight": torch.ones(2, 32)}
        return {**tensors, **more, f"base_model.model.{name}.lora_B.weight": torch.ones(32, 2)}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("layers.1.mlp"),
            r"two weights for each layer .* they lack for encoder\.layers\.1\.mlp\.fc1",
        ),
        (without("layers.1.mlp.fc1.lora_B"), r"they lack for encoder\.layers\.1\.mlp\.fc1"),
        (
            zeroed("layers.0.self_attn.q_proj.lora_B"),
            "1 of its 4 pairs change nothing, the first of encoder.layers.0",
        ),
        (
            beside("encoder.layers.7.mlp.fc1"),
            "2 weights for which the tower has no layer.*It belongs to another base",
        ),
        (
            beside("head.attention.out_proj"),
            r"weights for head\.attention\.out_proj, which the tower never calls",
        ),
        (cut, r"must fit encoder\.layers\.\d\..*It belongs to another base"),
    ],
)
def test_an_adapter_that_is_not_whole_or_of_another_base_is_refused(made, tmp_path, change, message):
    folder, _ = made
    adapter = renamed(folder / "adapter", tmp_path / "other", change)
    with pytest.raises(DataError, match=message):
        adopt(Adoption(adapter=adapter, encoder=str(folder / "base"), out=tmp_path / "never"))
    assert not (tmp_path / "never").exists()


def test_an_adapter_of_the_whole_tower_may_bring_the_layer_that_never_runs_untrained(made, tmp_path):
    folder, _ = made

    def untrained(tensors):
        more = beside("head.attention.out_proj")(tensors)
        return {key: tensor * 0 if "out_proj.lora_B" in key else tensor for key, tensor in more.items()}

    adapter = renamed(folder / "adapter", tmp_path / "listed", untrained)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["r"] == 2
    base = transformers.SiglipVisionModel.from_pretrained(folder / "base", dtype=torch.float32)
    assert len(merge_adapter(base, adapter)) == 4
