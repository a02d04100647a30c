"""Preset ``hf`` shows a picture as the checkpoint's own image processor does, or is refused."""

import json

import numpy as np
import pytest
import transformers
from huggingface_hub import constants
from PIL import Image

from embedstore.encoders.registry import image_encoder
from embedstore.encoders.siglip import SiglipEncoder
from embedstore.errors import DataError, MissingWeights
from embedstore.files import canonical_json
from embedstore.images.preprocess import PreprocessSpec, preprocess
from tests.checkpoints import SMALL_VISION, cache_snapshot, silent_transformers, write_gemma, write_siglip

SIZE = SMALL_VISION["image_size"]
USUAL = {
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "rescale_factor": 1 / 255,
    "size": {"height": SIZE, "width": SIZE},
}
TYPES = {"siglip": "SiglipImageProcessor", "gemma3": "Gemma3ImageProcessor"}


@pytest.fixture(params=["siglip", "gemma3"])
def checkpoint(request, tmp_path):
    """A checkpoint's folder, and a function that writes its image processor."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (write_siglip if request.param == "siglip" else write_gemma)(folder)

    def write(place="preprocessor_config.json", **settings):
        document = USUAL | {"image_processor_type": TYPES[request.param]} | settings
        joint = {"image_processor": document}
        (folder / place).write_text(json.dumps(joint if place == "processor_config.json" else document))

    return folder, write


@pytest.fixture
def siglip(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_siglip(folder)
    return folder, folder / "preprocessor_config.json"


def shown_by_transformers(folder, pixels):
    """Return what transformers hands to the tower, as bytes."""
    with silent_transformers():
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
    # transformers 5.23 takes classes on Pillow where torchvision is not installed, others where it is.
    assert type(processor).__name__.endswith("Pil")
    (values,) = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"]
    return np.rint((np.asarray(values) * 0.5 + 0.5) * 255).astype(np.uint8).transpose(1, 2, 0)


@pytest.mark.parametrize("settings", [{}, {"resample": 2}, {"resample": 3}], ids=str)
@pytest.mark.parametrize("place", ["preprocessor_config.json", "processor_config.json"])
def test_hf_shows_what_the_checkpoints_own_processor_shows(checkpoint, place, settings):
    folder, write = checkpoint
    write(place, **settings)
    spec = image_encoder(str(folder), preset="hf").preprocess
    for shape in ((130, 61, 3), (40, 90, 3), (SIZE, SIZE, 3)):
        pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
        np.testing.assert_array_equal(preprocess(pixels, spec), shown_by_transformers(folder, pixels))


def test_the_filter_of_hf_is_part_of_the_identity_and_bicubic_stays_what_it_was(siglip):
    folder, file = siglip
    before = SiglipEncoder(str(folder), preset="hf").identity
    file.write_text(json.dumps(USUAL | {"resample": 3}))
    assert SiglipEncoder(str(folder), preset="hf").identity.sha256 == before.sha256
    assert "hf_resample" not in before.preprocess
    file.write_text(json.dumps(USUAL | {"resample": 2}))
    identity = SiglipEncoder(str(folder), preset="hf").identity
    assert identity.preprocess["hf_resample"] == "bilinear"
    assert identity.preprocess["resize"] == "squash; Pillow bilinear"
    # The other presets do not ask the processor.
    file.write_text(json.dumps(USUAL | {"resample": 5, "do_center_crop": True}))
    pad = PreprocessSpec("pad", SIZE).to_json()
    assert canonical_json(SiglipEncoder(str(folder)).identity.preprocess) == canonical_json(pad)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("resample", 0), ("resample", 1), ("resample", 5), ("resample", "bicubic"), ("do_resize", False),
        ("do_center_crop", True), ("do_pad", True), ("do_pan_and_scan", True), ("size", {"shortest_edge": SIZE}),
        ("size", {"height": SIZE, "width": SIZE + 14}), ("size", SIZE),
    ],
)  # fmt: skip
def test_what_hf_cannot_follow_is_refused_with_the_value(siglip, entry, found):
    folder, file = siglip
    file.write_text(json.dumps(USUAL | {entry: found}))
    with pytest.raises(
        DataError, match=rf"preprocessor_config.json: .*'hf'.* {entry} must be .*found.*'pad'"
    ):
        _ = SiglipEncoder(str(folder), preset="hf").identity
    assert SiglipEncoder(str(folder)).preprocess == PreprocessSpec("pad", SIZE)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("image_mean", [0.48, 0.46, 0.41]), ("image_std", [1, 1, 1]), ("rescale_factor", 1),
        ("do_rescale", False), ("do_normalize", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["preprocessor_config.json", "processor_config.json"])
def test_another_normalisation_than_siglips_is_refused(siglip, place, entry, found):
    folder, _ = siglip

    def write(settings):
        joint = place == "processor_config.json"
        (folder / place).write_text(json.dumps({"image_processor": settings} if joint else settings))

    write(USUAL)
    SiglipEncoder(str(folder), device="cpu").load()
    write(USUAL | {entry: found})
    with pytest.raises(DataError, match=f"{place}: {entry} must be .*found"):
        SiglipEncoder(str(folder), device="cpu").load()


def test_hf_of_a_repository_needs_to_see_its_processor(siglip, tmp_path, monkeypatch):
    folder, _ = siglip
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cache_snapshot(tmp_path / "hub", "google/medsiglip-448", folder)
    assert SiglipEncoder("google/medsiglip-448").preprocess.preset == "pad"
    with pytest.raises(MissingWeights, match=r"preprocessor_config\.json of google/medsiglip-448"):
        _ = SiglipEncoder("google/medsiglip-448", preset="hf").identity


@pytest.mark.parametrize(("size", "unseen"), [(42, 0), (45, 3)])
def test_pixels_beyond_the_last_patch_are_said(tmp_path, size, unseen):
    write_siglip(tmp_path, image_size=size)
    encoder = SiglipEncoder(str(tmp_path), device="cpu", dtype="float32")
    said = []
    encoder.report_to(said.append)
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size), dtype=np.uint8)
    vector = encoder.encode(pixels)
    other = pixels.copy()
    other[:, 42:], other[:, :, 42:] = 255 - other[:, 42:], 255 - other[:, :, 42:]
    np.testing.assert_array_equal(encoder.encode(other), vector)
    assert len(said) == (1 if unseen else 0)
    if unseen:
        assert f"image size {size} is no multiple of the patch size 14, so the last {unseen} rows" in said[0]


def test_transformers_clips_16_bits_and_lays_alpha_over_white_as_the_docs_say(siglip):
    folder, file = siglip
    file.write_text(json.dumps(USUAL | {"image_processor_type": TYPES["siglip"], "resample": 3}))
    deep = np.full((SIZE, SIZE), 30_000, np.uint16)
    assert (shown_by_transformers(folder, deep) == 255).all()
    clear = np.zeros((SIZE, SIZE, 4), np.uint8)
    assert (shown_by_transformers(folder, clear) == 255).all()
