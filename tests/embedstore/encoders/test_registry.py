"""Encoders by name with options of their own, which are part of what their vectors are."""

from __future__ import annotations

import json

import pytest

from embedstore.encoders.registry import encoder_of_identity, image_encoder
from embedstore.errors import IdentityMismatch, PluginError, UsageError
from embedstore.identity import identity_from_json
from embedstore.plugins import ENCODERS
from tests.plugin_packages import install

SOURCE = """
    from embedstore.identity import Identity
    from tests.stores import MeanEncoder

    class Scaled(MeanEncoder):
        name = "scaled"

        def __init__(self, *, preset=None, device="auto", dtype="auto", factor=1):
            super().__init__(preset=preset)
            self.factor = factor

        @property
        def identity(self):
            spec = self.preprocess.to_json()
            return Identity(self.name, "1", "none", spec, "none", "float32", 4, options={"factor": self.factor})

        def encode(self, pixels):
            return super().encode(pixels) * self.factor

    class Silent(Scaled):
        name = "silent"
        identity = MeanEncoder.identity
    """


@pytest.fixture(autouse=True)
def _installed(tmp_path, monkeypatch):
    names = {"scaled": "scaled_encoder:Scaled", "silent": "scaled_encoder:Silent"}
    install(tmp_path, "scaled-encoder", {ENCODERS: names}, {"scaled_encoder": SOURCE})
    monkeypatch.syspath_prepend(tmp_path)


def test_an_encoder_of_an_identity_is_built_with_the_options_that_made_it():
    encoder = image_encoder("scaled", options={"factor": 3})
    kept = identity_from_json(json.loads(json.dumps(encoder.identity.to_json())), source="test")
    assert kept.options == {"factor": 3}
    again = encoder_of_identity(kept, holder="store s")
    assert again.factor == 3
    assert again.identity == encoder.identity


def test_two_settings_of_an_option_are_two_identities():
    one, other = (image_encoder("scaled", options={"factor": factor}).identity for factor in (1, 2))
    with pytest.raises(IdentityMismatch, match=r"options\.factor: 1 there, 2 asked"):
        one.require_same(other, holder="store s")


def test_an_encoder_that_keeps_an_option_out_of_its_identity_is_refused():
    with pytest.raises(PluginError, match=r"identity of encoder 'silent' must state .* not state factor=2"):
        image_encoder("silent", options={"factor": 2})


def test_an_option_that_the_encoder_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(
        UsageError, match=r"encoder 'scaled' has no option 'faktor'; it takes factor. Did you"
    ):
        image_encoder("scaled", options={"faktor": 2})
    with pytest.raises(UsageError, match="encoder 'hog' has no option 'cells'; it takes none"):
        image_encoder("hog", options={"cells": 2})
    with pytest.raises(UsageError, match="encoder 'scaled' has no option 'device'"):
        image_encoder("scaled", options={"device": "cpu"})
