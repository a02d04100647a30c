"""Text into vectors: SigLIP's own rules, against transformers."""

import numpy as np
import pytest
import torch
import transformers
from transformers.models.siglip import tokenization_siglip

from embedstore.encoders.siglip import SiglipEncoder
from embedstore.encoders.siglip_text import SiglipTokens, canonical
from embedstore.errors import DataError, UsageError
from tests.checkpoints import relative_error, write_siglip

TEXTS = [
    "a photo of a fracture",
    "No ACUTE abnormality!",
    "  severe\tcanal   stenosis, L4/L5.  ",
    "X-ray (frontal): pleural-effusion?",
    "Ünïcode 世界 and digits 42",
]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-siglip"
    folder.mkdir()
    return folder, write_siglip(folder)


@pytest.fixture
def tokenizer(siglip, monkeypatch):
    # It asks for protobuf, which it does not use for this file.
    monkeypatch.setattr(tokenization_siglip, "requires_backends", lambda *_: None)
    return transformers.SiglipTokenizer(str(siglip[0] / "spiece.model"))


def test_text_is_lowered_stripped_of_punctuation_and_of_blanks():
    assert canonical("  X-ray:\tLEFT wrist,\n (2 views)! ") == "xray left wrist 2 views"


@pytest.mark.parametrize("text", TEXTS)
def test_text_and_ids_are_those_of_the_siglip_tokenizer(siglip, tokenizer, text):
    assert canonical(text) == tokenizer.canonicalize_text(text)
    expected = tokenizer(text, padding="max_length", max_length=64)["input_ids"]
    np.testing.assert_array_equal(SiglipTokens(siglip[0] / "spiece.model").ids([text])[0], expected)


def test_short_texts_are_filled_up_with_the_end_mark(siglip):
    row = SiglipTokens(siglip[0] / "spiece.model").ids(["wrist"])[0]
    assert row.shape == (64,)
    assert row[0] != 1
    assert (row[np.flatnonzero(row == 1)[0] :] == 1).all()


def test_vectors_equal_get_text_features(siglip):
    folder, model = siglip
    encoder = SiglipEncoder(str(folder), device="cpu")
    ids = torch.from_numpy(SiglipTokens(folder / "spiece.model").ids(TEXTS))
    with torch.inference_mode():
        found = model.get_text_features(input_ids=ids)
    expected = getattr(found, "pooler_output", found).numpy()
    vectors = encoder.encode_text(TEXTS)
    assert vectors.dtype == np.float32
    assert relative_error(vectors, expected) <= 1e-6


def test_a_prompt_has_the_same_bits_in_any_company(siglip):
    encoder = SiglipEncoder(str(siglip[0]), device="cpu")
    together = encoder.encode_text(TEXTS)
    np.testing.assert_array_equal(encoder.encode_text(TEXTS[::-1])[::-1], together)
    np.testing.assert_array_equal(encoder.encode_text(TEXTS[2:3])[0], together[2])
    assert encoder.encode_text([]).shape == (0, 32)


def test_text_loads_no_image_tower(siglip):
    encoder = SiglipEncoder(str(siglip[0]), device="cpu")
    encoder.encode_text(["a fracture"])
    assert encoder._passes is None


def test_scores_are_those_of_the_model(siglip):
    folder, model = siglip
    text = SiglipEncoder(str(folder), device="cpu").text
    assert text.logit_scale == pytest.approx(model.logit_scale.exp().item())
    assert text.logit_bias == pytest.approx(model.logit_bias.item())


@pytest.mark.parametrize(
    ("text", "found"), [("", "found 0"), ("?!", "found 0"), ("wrist " * 64, "found [0-9]+")]
)
def test_empty_and_long_texts_are_refused_with_their_length(siglip, text, found):
    with pytest.raises(UsageError, match=f"1 to 63 tokens.*{found}"):
        SiglipEncoder(str(siglip[0]), device="cpu").encode_text([text])


def test_a_checkpoint_without_its_tokenizer_says_so(tmp_path):
    write_siglip(tmp_path)
    (tmp_path / "spiece.model").unlink()
    with pytest.raises(DataError, match=r"has no spiece.model"):
        SiglipEncoder(str(tmp_path)).encode_text(["a fracture"])


def test_a_damaged_tokenizer_is_named(tmp_path):
    write_siglip(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"not a model")
    with pytest.raises(DataError, match=r"spiece.model is no sentencepiece model"):
        SiglipEncoder(str(tmp_path)).encode_text(["a fracture"])
