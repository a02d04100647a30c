"""SigLIP encoders against transformers on random weights, and against themselves."""

import logging

import numpy as np
import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from embedstore.encoders.registry import image_encoder
from embedstore.encoders.siglip import MEDSIGLIP_448, SiglipEncoder
from embedstore.encoders.vision_tower import VisionShape, normalised_levels, vision_shape
from embedstore.errors import DataError, UsageError
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.images.preprocess import pad_to_square
from embedstore.store.reader import open_store
from embedstore.testing import check_encoder
from tests.checkpoints import (
    FULL_VISION,
    SMALL_VISION,
    by_hand,
    cosines,
    edit_config,
    pictures,
    relative_error,
    silent_transformers,
    write_full_size,
    write_image_tower,
    write_siglip,
)
from tests.pictures import collection_of, pixels_of, write_pictures


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-siglip"
    folder.mkdir()
    return folder, write_siglip(folder)


def image_features(model, pixels):
    with torch.inference_mode():
        found = model.get_image_features(pixel_values=pixels)
    return getattr(found, "pooler_output", found).float().numpy()


def test_map_vectors_equal_get_image_features(siglip):
    folder, model = siglip
    vectors = SiglipEncoder(str(folder), device="cpu", dtype="float32").encode(pictures(5))
    assert relative_error(vectors, image_features(model, by_hand(pictures(5)))) <= 1e-6


def test_mean_vectors_equal_the_mean_of_the_last_hidden_state(siglip):
    folder, model = siglip
    vectors = SiglipEncoder(str(folder), device="cpu", dtype="float32", pooling="mean").encode(pictures(3))
    with torch.inference_mode():
        tokens = model.vision_model(pixel_values=by_hand(pictures(3))).last_hidden_state.numpy()
    assert relative_error(vectors, tokens.mean(axis=1)) <= 1e-6


def test_bfloat16_stays_close_to_float32(siglip):
    folder, model = siglip
    vectors = SiglipEncoder(str(folder), device="cpu", dtype="bfloat16").encode(pictures(4))
    assert cosines(vectors, image_features(model, by_hand(pictures(4)))).min() >= 0.999


@pytest.mark.parametrize("pooling", ["map", "mean"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_encoder_obeys_the_contract(siglip, pooling, dtype):
    check_encoder(SiglipEncoder(str(siglip[0]), device="cpu", dtype=dtype, pooling=pooling), pictures(4))


def test_a_tower_of_another_width_records_its_own(tmp_path):
    write_siglip(tmp_path, hidden_size=48, num_attention_heads=3)
    encoder = SiglipEncoder(str(tmp_path), device="cpu")
    assert encoder.identity.dim == 48
    assert encoder.encode(pictures(1)).shape == (1, 48)


def test_weights_stored_as_bfloat16_compute_in_float32(siglip, tmp_path):
    with silent_transformers():
        model = transformers.SiglipModel.from_pretrained(siglip[0], dtype=torch.bfloat16)
        model.save_pretrained(tmp_path)
    vectors = SiglipEncoder(str(tmp_path), device="cpu", dtype="float32").encode(pictures(2))
    expected = image_features(model.float().eval(), by_hand(pictures(2)))
    assert relative_error(vectors, expected) <= 1e-6


def test_weights_in_several_files_give_the_same_vectors(siglip, tmp_path):
    folder, model = siglip
    with silent_transformers():
        model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    many, one = (SiglipEncoder(str(place), device="cpu", dtype="float32") for place in (tmp_path, folder))
    np.testing.assert_array_equal(many.encode(pictures(2)), one.encode(pictures(2)))


def test_an_image_tower_alone_is_a_checkpoint_too(tmp_path):
    model = write_image_tower(tmp_path)
    encoder = image_encoder(str(tmp_path), device="cpu", dtype="float32")
    with torch.inference_mode():
        expected = model(pixel_values=by_hand(pictures(2))).pooler_output.numpy()
    assert relative_error(encoder.encode(pictures(2)), expected) <= 1e-6
    with pytest.raises(DataError, match=r"image tower alone|no spiece.model"):
        encoder.encode_text(["a fracture"])


def test_a_tower_without_a_head_is_averaged_and_has_no_map(tmp_path):
    write_image_tower(tmp_path, vision_use_head=False)
    assert SiglipEncoder(str(tmp_path)).identity.pooling == "mean"
    with pytest.raises(UsageError, match="pooling 'map' needs the attention head"):
        _ = SiglipEncoder(str(tmp_path), pooling="map").identity


def test_the_identity_is_known_without_loading_and_holds_all_that_matters(siglip):
    folder, _ = siglip
    encoder = SiglipEncoder(str(folder), device="cpu", dtype="float32")
    identity = encoder.identity
    assert encoder._passes is None
    assert (identity.encoder, identity.revision, identity.dim) == ("tiny-siglip", "local", 32)
    assert (identity.pooling, identity.compute_dtype) == ("map", "float32")
    assert (identity.preprocess["preset"], identity.preprocess["size_px"]) == ("pad", 42)
    others = [{"pooling": "mean"}, {"preset": "hf"}, {"dtype": "bfloat16"}]
    options = {"device": "cpu", "dtype": "float32"}
    digests = {SiglipEncoder(str(folder), **options | other).identity.sha256 for other in others}
    assert len(digests | {identity.sha256}) == 4


def test_a_changed_weight_and_a_changed_configuration_change_the_identity(tmp_path):
    digests = set()
    for place, seed in (("a", 0), ("b", 1), ("c", 0)):
        (tmp_path / place).mkdir()
        write_siglip(tmp_path / place, seed=seed)
    vision = SMALL_VISION | {"layer_norm_eps": 1e-5, "model_type": "siglip_vision_model"}
    edit_config(tmp_path / "c", vision_config=vision)
    for place in "abc":
        digests.add(SiglipEncoder(str(tmp_path / place)).identity.weights_sha256)
    assert len(digests) == 3


def test_default_values_left_out_of_the_configuration_change_nothing():
    written = {"hidden_size": 1152, "layer_norm_eps": 1e-6, "num_channels": 3, "vision_use_head": True}
    assert vision_shape(written, origin="x") == vision_shape({"hidden_size": 1152}, origin="x")


def test_the_assumed_defaults_are_those_of_transformers():
    config = transformers.SiglipVisionConfig().to_dict()
    assert VisionShape().to_json() == {name: config[name] for name in VisionShape().to_json()}


def test_the_full_size_towers_cost_what_is_worked_out_by_hand():
    # MedSigLIP: 32 x 32 patches of 14 x 14 x 3 = 588 numbers to 1152, 27 layers of width 1152 and 4304 inside,
    # one query of the pooling head. Two operations for each multiply-add.
    patches = 2 * 1024 * 588 * 1152
    layer = 2 * 1024 * (4 * 1152 * 1152 + 2 * 1152 * 4304) + 2 * 1024 * 1024 * 1152 * 2
    head = 2 * (2 * 1152 * 1152 + 2 * 1024 * 1152 * 1152 + 2 * 1024 * 1152 + 2 * 1152 * 4304)
    assert VisionShape(**FULL_VISION).flops_per_image == patches + 27 * layer + head
    assert round((patches + 27 * layer + head) / 1e12, 3) == 0.979
    # MedGemma: 64 x 64 patches, no head.
    patches = 2 * 4096 * 588 * 1152
    layer = 2 * 4096 * (4 * 1152 * 1152 + 2 * 1152 * 4304) + 2 * 4096 * 4096 * 1152 * 2
    shape = VisionShape(**FULL_VISION | {"image_size": 896, "vision_use_head": False})
    assert shape.flops_per_image == patches + 27 * layer
    assert round((patches + 27 * layer) / 1e12, 2) == 5.46


@pytest.mark.parametrize("head", [True, False])
def test_operations_are_those_that_torch_counts_in_the_model_itself(head):
    vision = SMALL_VISION | {"vision_use_head": head}
    # Attention as plain matrix products, because torch has no count for every fused kernel.
    config = transformers.SiglipVisionConfig(**vision, attn_implementation="eager")
    model = transformers.SiglipVisionModel(config).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(pixel_values=torch.zeros((2, 3, 42, 42)))
    assert counter.get_total_flops() == 2 * VisionShape(**vision).flops_per_image


def test_grey_levels_are_those_of_the_image_processor():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    processor = transformers.models.siglip.image_processing_pil_siglip.SiglipImageProcessorPil(
        do_resize=False
    )
    made = processor(images=ramp[..., None].repeat(3, axis=-1), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(normalised_levels().reshape(16, 16), made[0][0])
    assert (normalised_levels()[0], normalised_levels()[255]) == (-1, 1)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"image_size": [448, 336]}, "image_size must be int; found .448, 336."),
        ({"hidden_size": "wide"}, "hidden_size must be int; found 'wide'"),
        ({"num_attention_heads": 5}, "describes no tower: hidden_size 32, num_attention_heads 5"),
        ({"num_channels": 1}, "num_channels must be 3; found 1"),
    ],
)
def test_a_configuration_that_is_no_tower_is_refused(vision, message):
    with pytest.raises(DataError, match=message):
        vision_shape(SMALL_VISION | vision, origin="folder")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "stretch"}, "preprocess.*found 'stretch'"),
        ({"device": "tpu"}, "device.*found 'tpu'"),
        ({"dtype": "int8"}, "dtype.*found 'int8'"),
        ({"pooling": "max"}, "pooling.*found 'max'"),
        ({"pass_rows": 0}, "pass_rows.*found 0"),
        ({"execution": "fast"}, "execution.*found 'fast'"),
    ],
)
def test_options_it_does_not_offer_are_refused_before_anything_is_read(options, message):
    with pytest.raises(UsageError, match=message):
        MEDSIGLIP_448(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "float16"}, "needs a CUDA device"), ({"execution": "graph"}, "needs a CUDA device")],
)
def test_what_only_cuda_offers_is_refused_on_a_cpu(siglip, options, message):
    with pytest.raises(UsageError, match=message):
        SiglipEncoder(str(siglip[0]), device="cpu", **options).load()


def test_loading_leaves_the_reports_of_transformers_as_they_were(siglip, caplog, capfd):
    before = transformers.utils.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()
    with caplog.at_level(logging.WARNING):
        SiglipEncoder(str(siglip[0]), device="cpu").load()
    after = transformers.utils.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()
    assert after == before
    assert caplog.text == ""
    assert capfd.readouterr().err == ""


def test_the_device_is_named_once_the_tower_is_loaded(siglip):
    encoder = SiglipEncoder(str(siglip[0]))
    assert encoder.device == "auto"
    encoder.load()
    assert torch.device(encoder.device).type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_only_the_image_tower_is_loaded(siglip):
    encoder = SiglipEncoder(str(siglip[0]), device="cpu")
    tower = encoder.load_tower(torch.float32)
    assert isinstance(tower, transformers.SiglipVisionModel)
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert tower.config._attn_implementation == "sdpa"


def test_a_folder_fills_a_store_that_is_recognised_without_loading_again(siglip, tmp_path):
    write_pictures(tmp_path / "images", range(5))
    collection = collection_of(tmp_path / "images", 5)
    options = {"device": "cpu", "dtype": "float32"}
    encoder = image_encoder(str(siglip[0]), **options)
    first = extract(collection, tmp_path / "x.store", encoder, options=ExtractOptions(store_dtype="float32"))
    assert (first.valid, first.failed) == (5, {})
    images = [pad_to_square(pixels_of(number), 42) for number in range(5)]
    np.testing.assert_array_equal(
        open_store(tmp_path / "x.store").embeddings().vectors, encoder.encode(np.stack(images))
    )
    again = image_encoder(str(siglip[0]), **options)
    assert extract(collection, tmp_path / "x.store", again).computed == 0
    assert again._passes is None


@pytest.mark.slow
def test_the_full_size_model_equals_get_image_features(tmp_path):
    model = write_full_size(tmp_path)
    pixels = pictures(1, size=448)
    expected = image_features(model, by_hand(pixels))
    del model
    exact = SiglipEncoder(str(tmp_path), device="cpu", dtype="float32")
    assert exact.identity.dim == 1152
    assert relative_error(exact.encode(pixels), expected) <= 1e-5
    del exact
    rounded = SiglipEncoder(str(tmp_path), device="cpu", dtype="bfloat16")
    assert cosines(rounded.encode(pixels), expected).min() >= 0.999
