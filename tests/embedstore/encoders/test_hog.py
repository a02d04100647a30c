"""The hog encoder against scikit-image, PIL and itself."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.feature import hog

from embedstore.encoders.hog import HogEncoder
from embedstore.errors import UsageError
from embedstore.testing import check_encoder


@pytest.fixture
def encoder():
    return HogEncoder(device="cpu")


def reference(grey):
    """Scikit-image's block normalisation; each cell averaged over the blocks that hold it."""
    blocks = hog(
        grey,
        orientations=8,
        pixels_per_cell=(37, 37),
        cells_per_block=(2, 2),
        block_norm="L2-Hys",
        feature_vector=False,
    )
    cells = [[[] for _ in range(12)] for _ in range(12)]
    for row in range(11):
        for column in range(11):
            for i in range(2):
                for j in range(2):
                    cells[row + i][column + j].append(blocks[row, column, i, j])
    return np.array([[np.mean(found, axis=0) for found in line] for line in cells]).ravel()


def photograph(picture):
    return np.asarray(Image.fromarray(picture).convert("L").resize((444, 444)))


def radiograph_like():
    """A bright shaft with soft edges on a dark, padded frame."""
    x = np.linspace(-1, 1, 444)
    shaft = 200 * np.sqrt(np.clip(1 - (x[None, :] * 3 + 0.4 * x[:, None]) ** 2, 0, None))
    shaft[:60] = 0
    return np.rint(shaft).astype(np.uint8)


NOISE = np.random.default_rng(0).integers(0, 256, (444, 444), dtype=np.uint8)
PICTURES = {
    "noise": NOISE,
    "faint noise": (NOISE // 100).astype(np.uint8),
    "camera": photograph(data.camera()),
    "moon": photograph(data.moon()),
    "text": photograph(data.page()),
    "cells": photograph(data.coins()),
    "shaft": radiograph_like(),
    "checks": (np.indices((444, 444)).sum(0) % 2 * 255).astype(np.uint8),
    "ramp": np.tile(np.arange(444) // 2, (444, 1)).astype(np.uint8),
    "black": np.zeros((444, 444), np.uint8),
    "white": np.full((444, 444), 255, np.uint8),
}


@pytest.mark.parametrize("name", PICTURES)
def test_vectors_equal_scikit_image_to_float32_rounding(encoder, name):
    vector = encoder.encode(PICTURES[name][None])[0]
    np.testing.assert_allclose(vector, reference(PICTURES[name]), rtol=2e-6, atol=3e-7)


def test_a_vertical_edge_lies_in_orientation_zero_of_its_own_cells(encoder):
    picture = np.zeros((1, 444, 444), np.uint8)
    picture[:, :, 200:] = 90  # cell column 5 holds pixels 185 to 221
    cells = encoder.encode(picture).reshape(12, 12, 8)
    places = np.argwhere(cells > 0)
    assert set(places[:, 0]) == set(range(12))
    assert {tuple(place[1:]) for place in places} == {(5, 0)}


def test_an_edge_at_45_degrees_belongs_to_the_bin_that_begins_there(encoder):
    rows, columns = np.indices((444, 444))
    cells = encoder.encode((((rows + columns) // 8) % 32 * 8).astype(np.uint8)[None]).reshape(12, 12, 8)
    assert (cells.argmax(-1) == 2).all()


def test_the_encoder_obeys_the_contract(encoder):
    vectors = check_encoder(encoder, np.stack(list(PICTURES.values())))
    assert vectors.min() >= 0
    assert vectors.max() <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_neither_batch_nor_threads_change_a_bit(encoder, count):
    pictures = np.random.default_rng(1).integers(0, 256, (7, 444, 444), dtype=np.uint8)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = np.concatenate([encoder.encode(picture[None]) for picture in pictures])
        torch.set_num_threads(2)
        batched = np.concatenate([encoder.encode(pictures[i : i + count]) for i in range(0, 7, count)])
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(alone, batched)


def test_rgb_becomes_the_luma_of_pil(encoder):
    colours = np.random.default_rng(2).integers(0, 256, (2, 444, 444, 3), dtype=np.uint8)
    luma = np.stack([np.asarray(Image.fromarray(picture).convert("L")) for picture in colours])
    np.testing.assert_array_equal(encoder.encode(colours), encoder.encode(luma))


def test_pixels_may_be_a_strided_or_read_only_view(encoder):
    pictures = np.stack([PICTURES["camera"], PICTURES["moon"], PICTURES["text"]])
    pictures.flags.writeable = False
    np.testing.assert_array_equal(encoder.encode(pictures[::2])[1], encoder.encode(pictures)[2])


def test_the_identity_says_what_a_vector_is():
    identity = HogEncoder().identity
    assert (identity.encoder, identity.revision, identity.weights_sha256) == ("hog", "1", "none")
    assert (identity.pooling, identity.compute_dtype, identity.dim) == ("cells", "float32", 1152)
    assert (identity.preprocess["preset"], identity.preprocess["size_px"]) == ("pad", 444)
    assert HogEncoder(preset="hf").identity.sha256 != identity.sha256
    assert HogEncoder(device="cpu", dtype="float32").identity == identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype.*found 'bfloat16'"),
        ({"device": "tpu"}, "device.*found 'tpu'"),
        ({"preset": "stretch"}, "preprocess.*found 'stretch'"),
    ],
)
def test_options_it_does_not_offer_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        HogEncoder(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a CUDA device that is not there")
def test_a_cuda_device_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="'cuda:1' is not there"):
        HogEncoder(device="cuda:1").load()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_bits_of_the_cpu(encoder):
    pictures = np.stack(list(PICTURES.values()))
    np.testing.assert_array_equal(HogEncoder(device="cuda").encode(pictures), encoder.encode(pictures))
