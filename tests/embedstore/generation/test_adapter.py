"""LoRA adapters: merged as the formula says, found by names of transformers 4 and 5, and never left out in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from embedstore.errors import DataError, MissingWeights
from embedstore.generation.adapter import open_adapter

Q = "model.language_model.layers.0.self_attn.q_proj"
V = "model.vision_tower.encoder.layers.1.self_attn.v_proj"


class Part(nn.Module):
    """Modules at the names that transformers 5 gives them in Gemma 3."""

    def __init__(self) -> None:
        super().__init__()
        for name, shape in ((Q, (6, 4)), (V, (5, 5))):
            at: nn.Module = self
            *path, last = name.split(".")
            for word in path:
                if not hasattr(at, word):
                    at.add_module(word, nn.Module())
                at = getattr(at, word)
            linear = nn.Linear(shape[0], shape[1])
            at.add_module(last, linear)


def weights(*names: str, rank: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in names:
        rows, columns = (4, 6) if "q_proj" in name else (5, 5)
        found[f"base_model.model.{name}.lora_A.weight"] = torch.randn((rank, columns), generator=generator)
        found[f"base_model.model.{name}.lora_B.weight"] = torch.randn((rows, rank), generator=generator)
    return found


def written(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none", "rank_pattern": {}} | config
    (folder / "adapter_config.json").write_text(json.dumps(said))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def after(folder: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    open_adapter(folder).merge_into(model)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("config", "scale"), [({}, 3.0), ({"use_rslora": True}, 6 / 2**0.5)])
def test_a_merged_weight_is_w_plus_s_b_a_and_the_others_stay(
    tmp_path: Path, config: dict[str, Any], scale: float
) -> None:
    model = Part()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = weights(Q)
    found = after(written(tmp_path / "a", tensors, **config), model)
    down, up = tensors.values()
    torch.testing.assert_close(found[f"{Q}.weight"], before[f"{Q}.weight"] + scale * up @ down)
    for name in before.keys() - {f"{Q}.weight"}:
        assert torch.equal(found[name], before[name])


@pytest.mark.parametrize(
    "names",
    [
        (
            "language_model.model.layers.0.self_attn.q_proj",
            "vision_tower.vision_model.encoder.layers.1.self_attn.v_proj",
        ),
        (Q, "model.vision_tower.vision_model.encoder.layers.1.self_attn.v_proj"),
    ],
)
def test_names_of_earlier_releases_of_transformers_find_the_same_modules(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    one, other = Part(), Part()
    other.load_state_dict(one.state_dict())
    of_five = after(written(tmp_path / "five", weights(Q, V)), one)
    of_four = after(written(tmp_path / "four", weights(*names)), other)
    assert all(torch.equal(of_five[name], of_four[name]) for name in of_five)


def test_bfloat16_weights_are_added_in_float32_and_rounded_once(tmp_path: Path) -> None:
    model = Part().to(torch.bfloat16)
    before = model.get_submodule(Q).weight.detach().float()
    tensors = weights(Q)
    found = after(written(tmp_path / "a", tensors), model)[f"{Q}.weight"]
    down, up = tensors.values()
    assert torch.equal(found, (before + 3.0 * up @ down).to(torch.bfloat16))


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_adapter(folder).merge_into(Part())
    return str(caught.value)


def test_an_adapter_that_is_not_wholly_used_is_refused(tmp_path: Path) -> None:
    strange = weights(Q, "model.language_model.layers.7.self_attn.q_proj")
    said = refused(written(tmp_path / "a", strange, base_model_name_or_path="google/medgemma-27b-it"))
    assert (
        "has 2 weights for which the model has no linear layer: base_model.model.model.language_model.layers.7"
        in said
    )
    assert "It belongs to another base; it says 'google/medgemma-27b-it'" in said
    half = {name: tensor for name, tensor in weights(Q).items() if "lora_A" in name}
    assert f"must hold two weights for {Q}; lora_B is missing" in refused(written(tmp_path / "a", half))
    narrow = {name: tensor[:, :3] if "lora_A" in name else tensor for name, tensor in weights(Q).items()}
    narrow = {name: tensor.contiguous() for name, tensor in narrow.items()}
    assert "6 numbers to 4 by rank 2; found lora_A of shape (2, 3)" in refused(
        written(tmp_path / "a", narrow)
    )
    assert "by rank 2; found lora_A of shape (3, 6)" in refused(written(tmp_path / "a", weights(Q, rank=3)))
    twice = weights(Q, "language_model.model.layers.0.self_attn.q_proj")
    assert f"must hold a weight once; found lora_A of {Q} twice" in refused(written(tmp_path / "a", twice))
    odd = weights(Q) | {"base_model.model.lm_head.modules_to_save.weight": torch.ones(2)}
    assert "no linear layer: base_model.model.lm_head.modules_to_save.weight" in refused(
        written(tmp_path / "a", odd)
    )


def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    untrained = {name: tensor * ("lora_A" in name) for name, tensor in weights(Q, V).items()}
    assert "changes nothing: every product of its 2 pairs of weights is 0" in refused(
        written(tmp_path / "a", untrained)
    )
    assert "changes nothing: every product of its 0 pairs" in refused(written(tmp_path / "a", {}))
    broken = {name: tensor * float("nan") for name, tensor in weights(Q).items()}
    assert "must hold finite numbers" in refused(written(tmp_path / "a", broken))


def test_what_is_more_than_a_plain_adapter_is_refused_by_name(tmp_path: Path) -> None:
    for name, setting in (
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("init_lora_weights", "pissa"),
    ):
        with pytest.raises(DataError, match=f"{name} is .* merge the adapter into its base with PEFT"):
            open_adapter(written(tmp_path / "a", weights(Q), **{name: setting}))
    with pytest.raises(DataError, match="peft_type must be LORA; found 'IA3'"):
        open_adapter(written(tmp_path / "a", weights(Q), peft_type="IA3"))
    with pytest.raises(DataError, match="r and lora_alpha must be numbers; found 2 and None"):
        open_adapter(written(tmp_path / "a", weights(Q), lora_alpha=None))


def test_folders_that_hold_no_adapter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="`adapter` must be a folder"):
        open_adapter(tmp_path / "gone")
    folder = written(tmp_path / "a", weights(Q))
    (folder / "adapter_model.safetensors").write_bytes(b"123")
    with pytest.raises(DataError, match="are damaged"):
        open_adapter(folder)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"adapter_model.safetensors is missing \(a pickle"):
        open_adapter(folder)


def test_digests_tell_weights_and_scales_apart(tmp_path: Path) -> None:
    first = open_adapter(written(tmp_path / "a", weights(Q)))
    digests = {
        first.sha256,
        open_adapter(written(tmp_path / "b", weights(Q, seed=1))).sha256,
        open_adapter(written(tmp_path / "c", weights(Q), lora_alpha=7)).sha256,
    }
    assert len(digests) == 3
    assert open_adapter(written(tmp_path / "d", weights(Q))).sha256 == first.sha256
