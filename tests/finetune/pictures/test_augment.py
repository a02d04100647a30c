"""What is done to a picture, against what NumPy makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from embedstore.encoders.vision_tower import normalised_levels
from embedstore.errors import UsageError
from finetune.pictures.augment import NONE, Augmentation, Variation, variation, varied
from tests.checkpoints import by_hand, pictures

LEVELS = torch.from_numpy(normalised_levels())
STILL = Variation(0.0, 0.0, 0.0, 1.0, 1.0, 0.0, mirrored=False, noise_seed=0)
PIXELS = pictures(2, size=40)


def shown(*changes):
    return varied(torch.from_numpy(PIXELS), LEVELS, [replace(STILL, **change) for change in changes]).numpy()


def test_pictures_as_they_are_have_the_encoders_own_bits():
    assert torch.equal(varied(torch.from_numpy(PIXELS), LEVELS, None), by_hand(PIXELS))
    assert shown({}, {}) == pytest.approx(by_hand(PIXELS).numpy(), abs=1e-5)


def test_shift_mirror_turn_and_size_are_numpys():
    plain = by_hand(PIXELS).numpy()
    # A tenth of 40 pixels; the grid goes from -1 to 1. What comes in is black.
    moved, mirrored = shown({"shift_x": 0.2}, {"mirrored": True})
    assert moved[:, :, :-4] == pytest.approx(plain[0][:, :, 4:], abs=1e-4)
    assert (moved[:, :, -4:] < -0.999).all()
    assert mirrored == pytest.approx(plain[1][:, :, ::-1], abs=1e-4)
    turned, halved = shown({"turn_deg": 90.0}, {"size": 2.0})
    assert turned == pytest.approx(np.rot90(plain[0], axes=(1, 2)), abs=1e-4)
    # Twice as large: the middle half fills the picture, and every second pair of pixels has one between them.
    middle = plain[1][:, 9:31, 9:31]
    expected = 0.75 * middle[:, 1:-1, 1:-1] + 0.25 * middle[:, :-2, 1:-1]
    expected = 0.75 * expected + 0.25 * (0.75 * middle[:, 1:-1, :-2] + 0.25 * middle[:, :-2, :-2])
    assert halved[:, ::2, ::2] == pytest.approx(expected, abs=1e-4)


def test_contrast_and_noise_are_as_strong_as_they_say():
    plain = by_hand(PIXELS).numpy()
    flat, noisy = shown({"contrast": 0.5}, {"noise": 0.05})
    assert flat == pytest.approx((plain[0] - plain[0].mean()) * 0.5 + plain[0].mean(), abs=1e-4)
    inside = (np.abs(plain[1]) < 0.6) & (np.abs(noisy) < 1)
    # From -1 to 1, a share of the range is twice as much.
    assert (noisy - plain[1])[inside].std() == pytest.approx(0.1, rel=0.1)
    assert (noisy[0] == noisy[1]).all()  # grey stays grey


def test_draws_follow_from_seed_image_and_view_and_stay_within_their_bounds():
    bounds = Augmentation()
    drawn = [variation(bounds, f"image{number}", view=3, seed=1) for number in range(200)]
    assert drawn == [variation(bounds, f"image{number}", view=3, seed=1) for number in range(200)]
    assert drawn[0] != variation(bounds, "image0", view=3, seed=2)
    assert 6 < max(abs(one.turn_deg) for one in drawn) <= 7
    assert 0.05 < max(abs(one.shift_x) for one in drawn) <= 0.06
    assert all(0.95 <= one.size <= 1.05 and 0.9 <= one.contrast <= 1.1 for one in drawn)
    assert not any(one.mirrored for one in drawn)
    flipped = [
        variation(replace(bounds, flip=True), f"image{n}", view=0, seed=0).mirrored for n in range(200)
    ]
    assert 70 < sum(flipped) < 130
    assert NONE.changes_nothing
    assert not bounds.changes_nothing


def test_what_changes_anatomy_is_refused():
    with pytest.raises(UsageError, match="`rotate_deg` must be from 0 to 30, so that anatomy stays"):
        Augmentation(rotate_deg=90)
