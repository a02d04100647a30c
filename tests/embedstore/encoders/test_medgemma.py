"""The MedGemma tower against transformers, and the language model that is never read."""

import json

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from embedstore.encoders.medgemma import MEDGEMMA_896, MedGemmaEncoder
from embedstore.encoders.registry import image_encoder
from embedstore.errors import DataError, MissingWeights
from embedstore.testing import check_encoder
from tests.checkpoints import (
    SMALL_VISION,
    by_hand,
    cache_snapshot,
    edit_config,
    pictures,
    relative_error,
    split_shards,
    write_gemma,
    write_siglip,
)

PREFIXES = [
    "vision_tower.vision_model.",
    "model.vision_tower.vision_model.",
    "model.vision_tower.",
    "vision_tower.",
]
LANGUAGE_SHARD = "model-00001-of-00002.safetensors"
TOWER_SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture
def gemma(tmp_path):
    folder = tmp_path / "tiny-medgemma"
    return folder, write_gemma(folder)


def encoder_of(folder, **options):
    return MedGemmaEncoder(str(folder), **{"device": "cpu", "dtype": "float32"} | options)


def tower_means(model, pixels):
    with torch.inference_mode():
        tokens = model.model.vision_tower(pixel_values=pixels).last_hidden_state
    return tokens.float().mean(dim=1).numpy()


def test_vectors_equal_the_mean_of_the_tokens_that_gemma_sees(gemma):
    folder, model = gemma
    vectors = encoder_of(folder).encode(pictures(3))
    assert relative_error(vectors, tower_means(model, by_hand(pictures(3)))) <= 1e-6


def test_the_encoder_obeys_the_contract(gemma):
    check_encoder(encoder_of(gemma[0]), pictures(3))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_style_of_tensor_names_gives_the_same_vectors(gemma, prefix):
    folder, model = gemma
    split_shards(folder, prefix)
    vectors = encoder_of(folder).encode(pictures(2))
    assert relative_error(vectors, tower_means(model, by_hand(pictures(2)))) <= 1e-6


def test_the_language_model_may_be_absent(gemma):
    folder, _ = gemma
    split_shards(folder, PREFIXES[0])
    (folder / LANGUAGE_SHARD).unlink()
    assert np.isfinite(encoder_of(folder).encode(pictures(1))).all()


def test_the_language_model_may_be_damaged_and_is_no_part_of_the_identity(gemma):
    folder, _ = gemma
    split_shards(folder, PREFIXES[0])
    before = encoder_of(folder).identity
    path = folder / LANGUAGE_SHARD
    path.write_bytes(path.read_bytes()[:40])
    assert encoder_of(folder).identity == before
    assert np.isfinite(encoder_of(folder).encode(pictures(1))).all()


def test_a_missing_shard_of_the_tower_is_named(gemma):
    folder, _ = gemma
    split_shards(folder, PREFIXES[0])
    (folder / TOWER_SHARD).unlink()
    with pytest.raises(MissingWeights, match=f"{TOWER_SHARD} is missing"):
        encoder_of(folder).load()


def test_a_truncated_shard_of_the_tower_is_named(gemma):
    folder, _ = gemma
    split_shards(folder, PREFIXES[0])
    path = folder / TOWER_SHARD
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{TOWER_SHARD} are damaged: truncated"):
        encoder_of(folder).load()


def test_a_missing_weight_of_the_tower_is_an_error(gemma):
    folder, _ = gemma
    path = folder / "model.safetensors"
    tensors = load_file(path)
    lost = next(name for name in tensors if name.endswith("layers.1.mlp.fc2.bias") and "vision" in name)
    del tensors[lost]
    save_file(tensors, path)
    with pytest.raises(DataError, match=r"lacks 1 weights of the image tower.*layers\.1\.mlp\.fc2\.bias"):
        encoder_of(folder).load()


def test_an_index_that_promises_more_than_its_file_holds_is_an_error(gemma):
    folder, _ = gemma
    split_shards(folder, PREFIXES[0])
    tensors = load_file(folder / TOWER_SHARD)
    tensors.popitem()
    save_file(tensors, folder / TOWER_SHARD)
    with pytest.raises(DataError, match="lacks 1 weights of the image tower"):
        encoder_of(folder).load()


def test_a_deeper_tower_than_its_configuration_says_is_an_error(gemma):
    folder, _ = gemma
    edit_config(folder, vision_config=SMALL_VISION | {"num_hidden_layers": 1})
    with pytest.raises(DataError, match=r"has 16 weights that its config\.json does not describe"):
        encoder_of(folder).load()


def test_a_narrower_tower_than_its_configuration_says_is_an_error(gemma):
    folder, _ = gemma
    edit_config(folder, vision_config=SMALL_VISION | {"intermediate_size": 70})
    with pytest.raises(DataError, match=r"not what its config.json says"):
        encoder_of(folder).load()


def test_two_towers_in_one_checkpoint_are_refused(gemma):
    folder, _ = gemma
    split_shards(folder, PREFIXES[0])
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    names["vision_tower.second.embeddings.patch_embedding.weight"] = TOWER_SHARD
    index.write_text(json.dumps({"weight_map": names}))
    with pytest.raises(DataError, match=r"must hold one image tower.*found 2"):
        encoder_of(folder).load()


def test_a_siglip_folder_is_not_medgemma(tmp_path):
    write_siglip(tmp_path)
    with pytest.raises(DataError, match=r"must be a MedGemma or Gemma 3 checkpoint.*'siglip'"):
        _ = encoder_of(tmp_path).identity


def test_a_folder_is_recognised_by_its_configuration(gemma):
    encoder = image_encoder(str(gemma[0]), device="cpu")
    assert isinstance(encoder, MedGemmaEncoder)
    identity = encoder.identity
    assert (identity.encoder, identity.pooling, identity.dim) == ("tiny-medgemma", "mean", 32)


def test_the_named_default_is_called_by_its_name():
    assert MEDGEMMA_896(device="cpu").name == "medgemma-896"


def test_cached_shards_of_the_tower_serve_offline_without_the_others(gemma, tmp_path, monkeypatch):
    folder, model = gemma
    split_shards(folder, PREFIXES[0])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = cache_snapshot(tmp_path / "hub", "google/medgemma-4b-pt", folder)
    (snapshot / LANGUAGE_SHARD).unlink()
    encoder = MEDGEMMA_896(device="cpu", dtype="float32")
    assert (encoder.identity.encoder, encoder.identity.revision) == ("medgemma-896", "c" * 40)
    assert relative_error(encoder.encode(pictures(1)), tower_means(model, by_hand(pictures(1)))) <= 1e-6
