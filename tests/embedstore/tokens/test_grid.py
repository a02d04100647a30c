"""Token grids: towers against transformers, stores against the encoder."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from embedstore.encoders.hog import HogEncoder
from embedstore.encoders.medgemma import MedGemmaEncoder
from embedstore.encoders.registry import encoder_of_identity, image_encoder
from embedstore.encoders.siglip import SiglipEncoder
from embedstore.errors import CorruptStore, DataError, IdentityMismatch, UsageError
from embedstore.extraction.extract import ExtractOptions, Observer, extract
from embedstore.extraction.options import Choose
from embedstore.identity import ArraySpec, identity_from_json
from embedstore.store.reader import open_store
from embedstore.store.verify import verify_store
from embedstore.testing import check_encoder
from embedstore.tokens.grid import TokenGrid, tokens_of
from embedstore.tokens.projection import token_projection
from tests.checkpoints import by_hand, pictures, relative_error, write_gemma, write_siglip
from tests.pictures import collection_of, write_pictures
from tests.stores import TokenEncoder, store_bytes

OPTIONS = ExtractOptions(chunk_rows=4, batch_size=3, workers=1)
KEPT = 3


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-siglip"
    folder.mkdir()
    return folder, write_siglip(folder)


@pytest.fixture
def images(tmp_path):
    write_pictures(tmp_path / "images", range(10))
    return collection_of(tmp_path / "images", 10)


def test_the_identity_holds_the__the_matrix():
    digest = hashlib.sha256(token_projection(1152, 64).tobytes()).hexdigest()
    spec = TokenGrid(32, 32, width=1152, wanted=64, what="patch token").spec
    assert spec.row_shape == (32, 32, 64)
    assert spec.projection == {"kind": "orthonormal", "seed": 0, "width": 1152, "sha256": digest}


def test_tokens_that_are_short_enough_are_kept_as_they_are():
    grid = TokenGrid(2, 3, width=8, wanted=64, what="cell")
    assert grid.projection is None
    assert grid.spec == ArraySpec((2, 3, 8), ("token_row", "token_column", "token_feature"), "cell")
    assert "projection" not in grid.spec.to_json()


@pytest.mark.parametrize("wanted", [0, -1, 2.5, True])
def test_a_number_of_tokens_below_one_is_refused(wanted):
    with pytest.raises(UsageError, match=f"`tokens` must be a number of at least 1.*found {wanted}"):
        HogEncoder(tokens=wanted)


@pytest.mark.parametrize("pooling", ["map", "mean"])
def test_tokens_are_the_last_hidden_state_times_the_matrix(siglip, pooling):
    folder, model = siglip
    plain = SiglipEncoder(str(folder), device="cpu", dtype="float32", pooling=pooling)
    encoder = SiglipEncoder(str(folder), device="cpu", dtype="float32", pooling=pooling, tokens=KEPT)
    (encoded,) = encoder.open_stream().put(pictures(4))
    with torch.inference_mode():
        hidden = model.vision_model(pixel_values=by_hand(pictures(4))).last_hidden_state.numpy()
    side = round(hidden.shape[1] ** 0.5)
    expected = (hidden.astype(float) @ token_projection(hidden.shape[2], KEPT)).reshape(4, side, side, KEPT)
    assert side > 1
    assert relative_error(encoded.further["tokens"], expected) <= 1e-5
    np.testing.assert_array_equal(encoded.vectors, plain.encode(pictures(4)))
    np.testing.assert_array_equal(encoder.encode(pictures(4)), encoded.vectors)


def test_all_numbers_of_a_token_are_kept_where_there_are_no_more(siglip):
    folder, model = siglip
    encoder = SiglipEncoder(str(folder), device="cpu", dtype="float32", tokens=10_000)
    (encoded,) = encoder.open_stream().put(pictures(2))
    with torch.inference_mode():
        hidden = model.vision_model(pixel_values=by_hand(pictures(2))).last_hidden_state.numpy()
    assert relative_error(encoded.further["tokens"].reshape(hidden.shape), hidden) <= 1e-6


def test_a_token_stands_where_its_patch_lies(siglip):
    folder, _ = siglip
    encoder = SiglipEncoder(str(folder), device="cpu", dtype="float32", tokens=KEPT)
    # Without attention between tokens a change stays in its patch; the first layer's is largest there.
    patch = encoder.shape.patch_size
    dark = np.zeros((1, encoder.shape.image_size, encoder.shape.image_size), np.uint8)
    lit = dark.copy()
    lit[0, :patch, -patch:] = 255
    (before, after) = (encoder.open_stream().put(picture)[0].further["tokens"][0] for picture in (dark, lit))
    moved = np.abs(after - before).sum(axis=-1)
    assert np.unravel_index(moved.argmax(), moved.shape) == (0, moved.shape[1] - 1)


def test_medgemma_gives_the_tokens_that_it_averages(tmp_path):
    write_gemma(tmp_path)
    encoder = MedGemmaEncoder(str(tmp_path), device="cpu", dtype="float32", tokens=10_000)
    (encoded,) = encoder.open_stream().put(pictures(2))
    tokens = encoded.further["tokens"]
    np.testing.assert_allclose(
        tokens.reshape(2, -1, tokens.shape[-1]).mean(axis=1), encoded.vectors, atol=1e-5
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("execution", ["eager", "graph"])
def test_cuda_gives_the_tokens_of_the_cpu(siglip, execution):
    folder, _ = siglip
    found = {}
    for device, options in (("cpu", {}), ("cuda", {"execution": execution})):
        encoder = SiglipEncoder(str(folder), device=device, dtype="float32", tokens=KEPT, **options)
        stream = encoder.open_stream()
        (encoded,) = [*stream.put(pictures(5)), *stream.drain()]
        found[device] = encoded.further["tokens"]
    assert relative_error(found["cuda"], found["cpu"]) <= 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tower_with_tokens_obeys_the_contract(siglip, dtype):
    folder, _ = siglip
    check_encoder(SiglipEncoder(str(folder), device="cpu", dtype=dtype, tokens=KEPT), pictures(4))


@pytest.mark.parametrize("tokens", [3, 64])
def test_hog_with_tokens_obeys_the_contract(tokens):
    check_encoder(HogEncoder(device="cpu", tokens=tokens))


def test_the_tokens_of_hog_are_its_cells():
    picture = np.random.default_rng(0).integers(0, 256, (2, 444, 444), dtype=np.uint8)
    (whole,) = HogEncoder(device="cpu", tokens=64).open_stream().put(picture)
    (projected,) = HogEncoder(device="cpu", tokens=KEPT).open_stream().put(picture)
    cells = HogEncoder(device="cpu").encode(picture).reshape(2, 12, 12, 8)
    np.testing.assert_array_equal(whole.further["tokens"], cells)
    expected = cells.astype(float) @ token_projection(8, KEPT)
    np.testing.assert_allclose(projected.further["tokens"], expected, atol=1e-6)
    np.testing.assert_array_equal(projected.vectors, cells.reshape(2, -1))


@pytest.mark.parametrize("tokens", [None, 3, 8])
def test_an_encoder_comes_back_from_its_identity_with_its_tokens(tokens):
    identity = image_encoder("hog", device="cpu", tokens=tokens).identity
    again = identity_from_json(identity.to_json(), source="here")
    assert tokens_of(again) == tokens
    assert encoder_of_identity(again, holder="here", device="cpu").identity == identity
    assert again.sha256 == identity.sha256


def test_more_tokens_or_none_are_another_identity():
    digests = {image_encoder("hog", tokens=tokens).identity.sha256 for tokens in (None, 2, 3, 8, 64)}
    assert len(digests) == 4  # 8 and 64 both keep all of a cell


def test_a_store_keeps_tokens_announces_their_size_and_is_verified(images, tmp_path):
    said: list[str] = []
    observer = Observer(say=said.append)
    extract(images, tmp_path / "s", "hog", tokens=KEPT, options=OPTIONS, observer=observer)
    # 12 x 12 x 3 x 2 bytes x 10 images, 1,152 x 2 bytes x 10 images.
    line = (
        "tokens: 12 x 12 x 3 numbers of float16, 864 bytes an image: 8.6 kB for 10 images, "
        "beside 23.0 kB of vectors"
    )
    assert line in said
    store = open_store(tmp_path / "s")
    found = store.tokens()
    assert (found.values.shape, found.values.dtype) == ((10, 12, 12, KEPT), np.float16)
    cells = store.embeddings(dtype=np.float32).vectors.reshape(10, 12, 12, 8)
    np.testing.assert_allclose(found.values, cells @ token_projection(8, KEPT), atol=2e-3)
    chosen = store.tokens([store.image_ids[7], store.image_ids[2]], dtype=np.float32)
    np.testing.assert_array_equal(chosen.values, found.values[[7, 2]].astype(np.float32))
    with pytest.raises(DataError, match="has no image 'nobody'"):
        store.tokens(["nobody"])
    assert verify_store(tmp_path / "s").findings == ()
    chunk = tmp_path / "s" / "parts" / "0000" / "tokens" / "c" / "1" / "0" / "0" / "0"
    payload = bytearray(chunk.read_bytes())
    payload[9] ^= 1
    chunk.write_bytes(payload)
    (finding,) = verify_store(tmp_path / "s").findings
    assert "tokens" in str(finding)
    with pytest.raises(CorruptStore, match="tokens"):
        open_store(tmp_path / "s").tokens()


def test_a_stopped_run_goes_on_with_the_tokens_of_its_store(images, tmp_path):
    states: list[object] = []
    observer = Observer(progress=states.append, stopping=lambda: len(states) >= 2)
    stopped = extract(images, tmp_path / "s", "hog", tokens=KEPT, options=OPTIONS, observer=observer)
    assert 0 < stopped.valid < 10
    assert len(open_store(tmp_path / "s").tokens().rows) == stopped.valid
    rest = extract(images, tmp_path / "s", "hog", options=OPTIONS)
    assert rest.computed == stopped.pending
    extract(images, tmp_path / "reference", "hog", tokens=KEPT, options=OPTIONS)
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


def test_a_failed_image_is_retried_with_its_tokens(images, tmp_path):
    kept = (images.root / "image3.png").read_bytes()
    (images.root / "image3.png").unlink()
    extract(images, tmp_path / "s", "hog", tokens=KEPT, options=OPTIONS)
    np.testing.assert_array_equal(open_store(tmp_path / "s").tokens().rows, np.delete(np.arange(10), 3))
    (images.root / "image3.png").write_bytes(kept)
    extract(images, tmp_path / "s", "hog", options=OPTIONS, choose=Choose.NEW_OR_FAILED)
    np.testing.assert_array_equal(open_store(tmp_path / "s").tokens().rows, np.arange(10))


def test_tokens_are_not_mixed_into_a_store_without(images, tmp_path):
    extract(images, tmp_path / "s", "hog", options=OPTIONS)
    with pytest.raises(UsageError, match=r"has no tokens\. Extract into a new store with `tokens`"):
        open_store(tmp_path / "s").tokens()
    with pytest.raises(IdentityMismatch, match=r"arrays\.tokens\.row_shape: None there, \[12, 12, 3\] asked"):
        extract(images, tmp_path / "s", "hog", tokens=KEPT, options=OPTIONS)


def test_a_built_encoder_brings_its_own_tokens(images, tmp_path):
    with pytest.raises(UsageError, match="`tokens` is for an encoder that is given by name"):
        extract(images, tmp_path / "s", HogEncoder(), tokens=3, options=OPTIONS)


def test_tokens_of_a_plug_in_that_is_shaped_otherwise_are_its_own():
    assert tokens_of(TokenEncoder().identity) is None
