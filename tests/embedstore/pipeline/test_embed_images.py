"""Images outside a store are encoded by the encoder that filled it: same commit, pooling and arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import constants

from embedstore.encoders.hog import HogEncoder
from embedstore.encoders.registry import encoder_of_identity, image_encoder
from embedstore.errors import IdentityMismatch
from embedstore.pipeline.embed_images import EmbedOptions, embed_records
from tests.checkpoints import cache_snapshot, edit_config, write_siglip
from tests.pictures import expected_vectors, write_pictures
from tests.stores import IDENTITY, MeanEncoder, TokenEncoder, manifest_of

REPOSITORY = "google/medsiglip-448"
OLD, NEW = "c" * 40, "d" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache with two commits of one repository: the branch ``main`` has moved on from the first."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for seed, commit in enumerate((OLD, NEW)):
        (tmp_path / commit).mkdir()
        write_siglip(tmp_path / commit, seed=seed)
    snapshot = cache_snapshot(tmp_path / "hub", REPOSITORY, tmp_path / OLD, commit=OLD)
    later = cache_snapshot(tmp_path / "later", REPOSITORY, tmp_path / NEW, commit=NEW)
    later.rename(snapshot.parent / NEW)
    for blob in (later.parents[1] / "blobs").iterdir():
        blob.rename(snapshot.parents[1] / "blobs" / blob.name)
    (snapshot.parents[1] / "refs" / "main").write_text(NEW)
    return tmp_path


@pytest.mark.parametrize("name", [None, REPOSITORY])
def test_the_commit_that_filled_the_store_is_used_though_main_has_moved_on(hub, name):
    assert image_encoder("medsiglip-448").identity.revision == NEW
    identity = image_encoder("medsiglip-448", revision=OLD, dtype="float32").identity
    assert encoder_of_identity(identity, holder="run", name=name).identity == identity


def test_the_pooling_and_arithmetic_are_the_stores(hub):
    identity = image_encoder("medsiglip-448", revision=OLD, dtype="bfloat16", pooling="mean").identity
    found = encoder_of_identity(identity, holder="run").identity
    assert (found.pooling, found.compute_dtype, found.revision) == ("mean", "bfloat16", OLD)


def test_a_folder_serves_a_store_that_a_folder_filled_and_no_other(hub):
    folder = str(hub / OLD)
    identity = image_encoder(folder, dtype="float32").identity
    assert encoder_of_identity(identity, holder="run", name=folder).identity == identity
    of_hub = image_encoder("medsiglip-448", revision=OLD, dtype="float32").identity
    with pytest.raises(IdentityMismatch, match=f"revision: '{OLD}' there, 'local' asked"):
        encoder_of_identity(of_hub, holder="run", name=folder)


def test_an_encoder_without_hub_and_pooling_is_not_asked_for_either():
    identity = HogEncoder(preset="eval").identity
    assert encoder_of_identity(identity, holder="run").identity == identity


def test_an_encoder_of_another_revision_is_refused():
    identity = replace(HogEncoder().identity, revision="2")
    with pytest.raises(IdentityMismatch, match="revision: '2' there, '1' asked"):
        encoder_of_identity(identity, holder="run r")


def test_vectors_outside_a_store_are_those_worked_out_by_hand_and_a_failure_is_named(tmp_path):
    write_pictures(tmp_path, range(3))
    (tmp_path / "image1.png").unlink()
    found = embed_records(
        tuple(manifest_of(3).records()), tmp_path, MeanEncoder(), EmbedOptions(batch_size=2)
    )
    assert IDENTITY.dim == found.vectors.shape[1]
    expected = expected_vectors(3).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found.vectors[[0, 2]], expected[[0, 2]])
    assert np.isnan(found.vectors[1]).all()
    assert {row: reason for row, (reason, _) in found.failures.items()} == {1: "missing"}


def test_an_encoder_of_tokens_gives_the_same_vectors_outside_a_store(tmp_path):
    write_pictures(tmp_path, range(3))
    records = tuple(manifest_of(3).records())
    found = embed_records(records, tmp_path, TokenEncoder(), EmbedOptions(batch_size=2))
    np.testing.assert_array_equal(found.vectors, embed_records(records, tmp_path, MeanEncoder()).vectors)


def test_notices_about_a_checkpoint_are_said_before_anything_is_computed(tmp_path):
    write_siglip(tmp_path / "model")
    identity = image_encoder(str(tmp_path / "model"), dtype="float32").identity
    edit_config(tmp_path / "model", transformers_version="5.999.0")
    said: list[str] = []
    encoder_of_identity(identity, holder="run", name=str(tmp_path / "model"), say=said.append)
    assert len(said) == 1
    assert "was written by transformers 5.999.0" in said[0]
