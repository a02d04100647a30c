"""A tower with random weights is an encoder like any other, the same for the same seed, and called what it is."""

from __future__ import annotations

from embedstore.encoders.registry import image_encoder
from embedstore.phantoms.random_siglip import NAME, write_random_siglip
from embedstore.testing import check_encoder


def test_the_tower_is_an_encoder_and_follows_from_its_seed(tmp_path):
    first, again, other = (
        image_encoder(str(write_random_siglip(tmp_path / str(at) / NAME, seed=seed)), device="cpu")
        for at, seed in enumerate((1, 1, 2))
    )
    assert first.identity == again.identity
    assert first.identity.weights_sha256 != other.identity.weights_sha256
    assert first.identity.encoder == "siglip-random"
    assert check_encoder(first).shape[1] == 96
    assert "random weights" in (tmp_path / "0" / NAME / "README.txt").read_text()
