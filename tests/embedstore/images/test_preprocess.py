"""The three presets equal Pillow, TensorFlow's goldens and their torch twin."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from embedstore.encoders.hog import HogEncoder
from embedstore.encoders.registry import encoder_of_identity
from embedstore.errors import UsageError
from embedstore.images.preprocess import PRESETS, PreprocessSpec, preprocess
from finetune.preprocess_torch import preprocess_tensor
from tests.paths import DATA

GOLDENS = DATA / "preprocess.npz"
SHAPES = [
    (512, 400), (400, 512), (97, 300), (448, 448), (30, 900), (900, 30), (450, 447), (447, 450),
    (700, 512, 3), (33, 21, 3), (1, 1), (1, 7), (2000, 3),
]  # fmt: skip


def random_image(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def padded_by_hand(pixels):
    height, width = pixels.shape[:2]
    side = max(height, width)
    above, before = (side - height) // 2, (side - width) // 2
    margins = [(above, side - height - above), (before, side - width - before)] + [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, margins)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("preset", PRESETS)
def test_preset_equals_its_golden(preset, number):
    goldens = np.load(GOLDENS)
    result = preprocess(goldens[f"in{number}"], PreprocessSpec(preset, 448))
    difference = np.abs(result.astype(int) - goldens[f"{preset}{number}"])
    if preset == "eval":  # the tolerance to TensorFlow that the project allows itself
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-4
    else:
        assert difference.max() == 0


@pytest.mark.parametrize("size", [37, 448])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pad_equals_padding_and_then_pillow(shape, size):
    pixels = random_image(shape)
    expected = Image.fromarray(padded_by_hand(pixels)).resize((size, size), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(preprocess(pixels, PreprocessSpec("pad", size)), np.asarray(expected))


@pytest.mark.parametrize("size", [37, 448])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
def test_hf_equals_pillow(resample, shape, size):
    pixels = random_image(shape)
    expected = Image.fromarray(pixels).resize((size, size), Image.Resampling[resample.upper()])
    spec = PreprocessSpec("hf", size, hf_resample=resample)
    np.testing.assert_array_equal(preprocess(pixels, spec), np.asarray(expected))


@pytest.mark.parametrize("size", [37, 448])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_eval_equals_interpolation_without_antialiasing(shape, size):
    pixels = random_image(shape)
    planes = torch.from_numpy(pixels).reshape(*shape[:2], -1).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(planes, (size, size), mode="bilinear", align_corners=False)
    expected = expected[0].permute(1, 2, 0).numpy().reshape(size, size, *shape[2:])
    result = preprocess(pixels, PreprocessSpec("eval", size)).astype(float)
    # Truncation turns the last bit of a float32 into a grey level; a centre near 900 has only 4 decimals, 0.02 levels.
    assert (np.floor(expected - 2e-2) <= result).all()
    assert (result <= np.floor(expected + 2e-2)).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_image_of_the_right_size_is_left_alone(preset):
    pixels = random_image((64, 64, 3))
    np.testing.assert_array_equal(preprocess(pixels, PreprocessSpec(preset, 64)), pixels)


@pytest.mark.parametrize("preset", PRESETS)
def test_constant_image_stays_constant(preset):
    assert (preprocess(np.full((90, 90), 77, np.uint8), PreprocessSpec(preset, 50)) == 77).all()


def test_smaller_half_of_the_padding_comes_first():
    # 3 rows of 4 columns: one row is missing, so none above and one below; of 2 x 4 one above and one below.
    ones = np.full((3, 4), 9, np.uint8)
    assert preprocess(ones, PreprocessSpec("pad", 4))[:, 0].tolist() == [9, 9, 9, 0]
    assert preprocess(ones[:2], PreprocessSpec("pad", 4))[:, 0].tolist() == [0, 9, 9, 0]
    assert preprocess(ones.T, PreprocessSpec("pad", 4))[0].tolist() == [9, 9, 9, 0]


def test_square_of_a_long_thin_image_is_never_held():
    # Padded, this image is 900 million pixels; in stripes it takes a few seconds of nothing but zeros.
    pixels = np.full((1, 30_000), 200, np.uint8)
    result = preprocess(pixels, PreprocessSpec("pad", 32))
    assert result.shape == (32, 32)
    tall = preprocess(np.full((20_000, 1), 200, np.uint8), PreprocessSpec("pad", 32))
    assert tall.shape == (32, 32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("preset", "resample"), [*((preset, "bicubic") for preset in PRESETS), ("hf", "bilinear")]
)
def test_torch_twin_gives_the_same_pixels(preset, resample, shape):
    spec = PreprocessSpec(preset, 448, hf_resample=resample)
    batch = np.stack([random_image(shape, seed) for seed in (1, 2)])
    result = preprocess_tensor(torch.from_numpy(batch), spec)
    assert result.dtype == torch.uint8
    for image, twin in zip(batch, result.numpy(), strict=True):
        np.testing.assert_array_equal(twin, preprocess(image, spec))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_gpu_is_within_one_grey_level(preset, shape):
    spec = PreprocessSpec(preset, 448)
    pixels = random_image(shape)
    result = preprocess_tensor(torch.from_numpy(pixels)[None].cuda(), spec)[0].cpu().numpy()
    assert np.abs(result.astype(int) - preprocess(pixels, spec)).max() <= 1


def test_torch_twin_wants_bytes():
    with pytest.raises(UsageError, match="uint8"):
        preprocess_tensor(torch.zeros(1, 4, 4), PreprocessSpec("pad", 4))


@pytest.mark.parametrize(
    "arguments",
    [{"preset": "crop"}, {"size_px": 0}, {"mri_range": "percentile-2-98"}, {"hf_resample": "lanczos"}],
    ids=str,
)
def test_unknown_settings_are_refused_with_what_is_known(arguments):
    with pytest.raises(UsageError, match="must be"):
        PreprocessSpec(**arguments)


def test_specification_spells_out_what_changes_a_pixel():
    document = json.loads(json.dumps(PreprocessSpec("pad", 448, "min-max").to_json()))
    assert document["preset"] == "pad"
    assert document["size_px"] == 448
    assert document["recipes"]["MR"]["range"] == "min-max"
    assert document["recipes"]["CT"]["windows_hu"] == [[-1024, 1024], [-135, 215], [0, 80]]
    assert document["recipes"][""]["name"] == "radiograph"


def test_every_setting_changes_the_specification():
    variants = [
        PreprocessSpec(), PreprocessSpec("eval"), PreprocessSpec("hf"), PreprocessSpec(size_px=896),
        PreprocessSpec(mri_range="min-max"), PreprocessSpec("hf", hf_resample="bilinear"),
    ]  # fmt: skip
    assert len({json.dumps(spec.to_json(), sort_keys=True) for spec in variants}) == len(variants)


@pytest.mark.parametrize("aspect", [2.0, 0.5, 1.37, 0.31, 1.02])
@pytest.mark.parametrize(
    "shape", [(512, 400), (97, 300), (30, 900), (448, 448), (33, 21, 3), (1, 7), (2000, 3)], ids=str
)
def test_pixels_that_are_not_square_are_padded_to_square_anatomy_and_resampled_once(shape, aspect):
    pixels = random_image(shape)
    height, width = shape[:2]
    rows, columns = max(height, round(width / aspect)), max(width, round(height * aspect))
    above, before = (rows - height) // 2, (columns - width) // 2
    margins = [(above, rows - height - above), (before, columns - width - before)] + [(0, 0)] * (
        len(shape) - 2
    )
    padded = Image.fromarray(np.pad(pixels, margins))
    # One resampling: rows, then columns, as Pillow rounds in between.
    narrow = padded.resize((64, rows), Image.Resampling.BILINEAR)
    expected = np.asarray(narrow.resize((64, 64), Image.Resampling.BILINEAR))
    spec = PreprocessSpec("pad", 64)
    np.testing.assert_array_equal(preprocess(pixels, spec, aspect), expected)
    twin = preprocess_tensor(torch.from_numpy(pixels[None]), spec, aspect)
    np.testing.assert_array_equal(twin[0].numpy(), expected)
    plain = preprocess(pixels, spec)
    np.testing.assert_array_equal(
        preprocess(pixels, PreprocessSpec("pad", 64, square_pixels=False), aspect), plain
    )


def test_half_the_rows_of_a_smooth_picture_show_the_same_anatomy():
    rows, columns = np.mgrid[0:512, 0:400]
    picture = (127 + 80 * np.sin(columns / 40) + 45 * np.cos(rows / 30)).astype(np.uint8)
    whole = preprocess(picture, PreprocessSpec("pad", 128)).astype(int)
    # Each kept row stands for two: a quarter of a percent of the height is lost at the end.
    half = preprocess(picture[::2], PreprocessSpec("pad", 128), 2.0)
    assert np.abs(half - whole).mean() < 1.5


@pytest.mark.parametrize("preset", ["eval", "hf"])
def test_squash_forgets_the_shape_of_pixels(preset):
    pixels = random_image((97, 300))
    spec = PreprocessSpec(preset, 64)
    np.testing.assert_array_equal(preprocess(pixels, spec, 2.0), preprocess(pixels, spec))


def test_identity_of_a_store_from_before_the_choice_is_unchanged():
    # As the README printed it for hog's default until there was `square_pixels`.
    old = "ce23509b026292bfea2edd233bff20afec06e6cb1b7c59cf85396e8317582041"
    assert HogEncoder(square_pixels=False).identity.sha256 == old
    document = PreprocessSpec(square_pixels=False).to_json()
    assert document["rules"] == 2
    assert "square_pixels" not in document
    new = HogEncoder().identity
    assert new.sha256 != old
    assert new.preprocess["square_pixels"] is True
    assert encoder_of_identity(new, holder="x").identity == new
    before = HogEncoder(square_pixels=False).identity
    assert encoder_of_identity(before, holder="x").identity.sha256 == old
