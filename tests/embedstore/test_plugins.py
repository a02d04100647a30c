"""Heads and encoders of other packages: what they inherit, and what is said of one that lacks a part."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from embedstore import plugins
from embedstore.encoders import registry as encoders
from embedstore.encoders.base import EncoderDefaults
from embedstore.encoders.hog import HogEncoder
from embedstore.errors import UsageError
from heads import registry as heads
from heads.base import HeadDefaults, HeadNeeds
from heads.estimators.logistic import LogisticHead


def _offer(monkeypatch: pytest.MonkeyPatch, name: str, found: object) -> None:
    entry = SimpleNamespace(name=name, load=lambda: found, dist=None)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])


class BareHead:
    """A scikit-learn classifier with arrays, as heads were before they scored units."""

    def __init__(self):
        raise AssertionError("a class is checked without making one")

    get_params = LogisticHead.get_params
    set_params = LogisticHead.set_params
    fit = LogisticHead.fit
    decision_function = LogisticHead.decision_function
    predict_proba = LogisticHead.predict_proba
    predict = LogisticHead.predict
    to_arrays = LogisticHead.to_arrays
    from_arrays = LogisticHead.from_arrays
    family = LogisticHead.family


class InheritingHead(HeadDefaults, BareHead):
    pass


def test_a_head_without_a_part_of_the_contract_is_refused_by_its_name(monkeypatch):
    _offer(monkeypatch, "bare", BareHead)
    with pytest.raises(
        UsageError,
        match=r"head 'bare' lacks family_of_text, needs, unit_scores, image_weights, hidden_vectors; "
        r"let its class inherit heads\.base\.HeadDefaults",
    ):
        heads.head_class("bare")


def test_a_head_that_inherits_the_defaults_is_whole_and_needs_nothing(monkeypatch):
    _offer(monkeypatch, "inheriting", InheritingHead)
    assert heads.head_class("inheriting") is InheritingHead
    assert heads.head_needs("inheriting") == HeadNeeds(libraries=(), text_tower=False)


def test_a_grid_without_a_part_of_the_contract_is_refused(monkeypatch):
    grid = SimpleNamespace(points=(), out_of_fold=None, refit=None)
    found = type("GridHead", (InheritingHead,), {"family": staticmethod(lambda: grid)})
    _offer(monkeypatch, "odd", found)
    with pytest.raises(
        UsageError,
        match=r"the grid of head 'odd' lacks with_imbalance, on_device, cross_fit, targets_share_work, scores_units, "
        r"final; .*FamilyDefaults",
    ):
        heads.head_family("odd")


def test_our_heads_say_what_they_need():
    needs = {name: heads.head_needs(name) for name in ("knn", "logistic", "mlp", "xgboost", "zeroshot")}
    assert [name for name, own in needs.items() if own.text_tower] == ["zeroshot"]
    assert {name: own.libraries for name, own in needs.items() if own.libraries} == {
        "xgboost": ("xgboost",),
        "zeroshot": ("transformers",),
    }


def test_a_head_without_words_makes_no_grid_of_them():
    with pytest.raises(
        UsageError, match=r"LogisticHead needs no text tower; its grid is LogisticHead.family\(\)"
    ):
        LogisticHead.family_of_text(None, None, prompts=None)


class BareEncoder:
    """An encoder as they were before they said what they offer; its identity may need weights."""

    name = "bare"
    device = "cpu"

    def __init__(self, preset=None, device="auto", dtype="auto"):
        self.preprocess = HogEncoder(device="cpu").preprocess

    @property
    def identity(self):
        raise AssertionError("the check evaluates no property")

    def load(self):
        pass

    def encode(self, pixels):
        return pixels.reshape(len(pixels), -1)[:, :1].astype(np.float32)


class InheritingEncoder(EncoderDefaults, BareEncoder):
    pass


def test_an_encoder_without_a_part_of_the_contract_is_refused_by_its_name(monkeypatch):
    _offer(monkeypatch, "bare", BareEncoder)
    with pytest.raises(
        UsageError,
        match=r"encoder 'bare' lacks flops_per_image, text, open_stream, report_to, origin; let its class inherit "
        r"embedstore\.encoders\.base\.EncoderDefaults",
    ):
        encoders.image_encoder("bare")


def test_an_encoder_that_inherits_the_defaults_offers_nothing_more(monkeypatch):
    _offer(monkeypatch, "inheriting", InheritingEncoder)
    encoder = encoders.image_encoder("inheriting")
    assert (encoder.origin, encoder.flops_per_image, encoder.text) == ("", None, None)
    stream = encoder.open_stream()
    (encoded,) = stream.put(np.full((2, 8, 8), 7, np.uint8))
    assert encoded.vectors.tolist() == [[7.0], [7.0]]
    assert list(stream.drain()) == []
    encoder.report_to(pytest.fail)


def test_our_encoders_are_whole():
    assert encoders.image_encoder("hog", device="cpu").text is None
    assert encoders.image_encoder("medsiglip-448", device="cpu").origin == "google/medsiglip-448"
