"""Words at the command line: zero-shot probing and text search with a small random SigLIP checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli.main import run
from embedstore.encoders.registry import image_encoder
from embedstore.phantoms.mura import write_phantom_mura
from embedstore.store.reader import open_store
from tests.checkpoints import write_siglip


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A store of phantom images encoded by a small random checkpoint."""
    folder = tmp_path_factory.mktemp("words")
    write_phantom_mura(folder, patients=40, seed=0)
    write_siglip(folder / "tiny")
    store = folder / "tiny.store"
    arguments = ["extract", "--dataset", "mura", "--root", str(folder / "MURA-v1.1"), "--store", str(store)]
    assert run([*arguments, "--encoder", str(folder / "tiny")]) == 0
    return store, folder / "tiny"


def test_a_zeroshot_run_scores_by_the_cosines_to_its_prompts(words, capsys):
    store, checkpoint = words
    Path("prompts.toml").write_text(
        '[abnormal."*"]\nnormal = ["healthy"]\nabnormal = ["broken bone", "metal"]\n'
    )
    arguments = ["probe", "--store", str(store), "--head", "zeroshot", "--encoder", str(checkpoint)]
    assert run([*arguments, "--prompts", "prompts.toml", "--draws", "20", "--out", "r"]) == 0
    capsys.readouterr()
    encoder = image_encoder(str(checkpoint), device="cpu")
    texts = encoder.encode_text(["healthy", "broken bone", "metal"]).astype(np.float64)
    units = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    normal, abnormal = units[0], units[1:].mean(axis=0)
    axis = abnormal / np.linalg.norm(abnormal) - normal
    embeddings = open_store(store).embeddings(dtype=np.float32)
    vectors = embeddings.vectors.astype(np.float64)
    logits = (
        float(encoder.text.logit_scale) * (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ axis
    )
    probability = 1 / (1 + np.exp(-logits))
    studies = np.array([image_id.rpartition("/")[0] for image_id in embeddings.image_ids])
    import pyarrow.parquet as pq

    rows = [row for row in pq.read_table("r/predictions.parquet").to_pylist() if row["role"] == "evaluation"]
    assert rows
    for row in rows:
        mean = probability[studies == row["unit_id"]].mean()
        assert row["score"] == pytest.approx(np.log(mean / (1 - mean)), abs=1e-4)


def test_text_search_ranks_by_the_cosine_to_the_words(words, capsys):
    store, checkpoint = words
    capsys.readouterr()
    arguments = [
        "search",
        "--store",
        str(store),
        "--encoder",
        str(checkpoint),
        "--text",
        "hand",
        "--all-images",
        "--json",
        "-k",
        "4",
    ]
    assert run(arguments) == 0
    found = json.loads(capsys.readouterr().out)["hits"]
    vectors = open_store(store).embeddings(dtype=np.float32).vectors.astype(np.float64)
    text = image_encoder(str(checkpoint), device="cpu").encode_text(["hand"])[0].astype(np.float64)
    cosines = vectors @ text / np.linalg.norm(vectors, axis=1) / np.linalg.norm(text)
    expected = np.sort(cosines)[::-1][:4]
    np.testing.assert_allclose([entry["cosine"] for entry in found], expected, atol=1e-6)


def test_words_need_an_encoder_with_a_text_tower(tmp_path, capsys):
    write_phantom_mura(tmp_path, patients=20, seed=0)
    arguments = ["extract", "--dataset", "mura", "--root", "MURA-v1.1", "--store", "h.store", "--limit", "4"]
    assert run(arguments) == 0
    assert run(["search", "--store", "h.store", "--text", "hand"]) == 2
    assert "encoder 'hog' has no text tower" in capsys.readouterr().err


def test_auto_arithmetic_is_the_stores_own_and_pooling_is_part_of_the_identity(words, tmp_path, capsys):
    store, checkpoint = words
    root = str(store.parent / "MURA-v1.1")
    base = ["extract", "--dataset", "mura", "--root", root, "--encoder", str(checkpoint), "--limit", "3"]
    assert run([*base, "--store", "b.store", "--dtype", "bfloat16", "--encoder-pooling", "mean"]) == 0
    identity = open_store("b.store").identity
    assert (identity.compute_dtype, identity.pooling) == ("bfloat16", "mean")
    assert run([*base, "--store", "b.store", "--encoder-pooling", "mean"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run([*base, "--store", "b.store"]) == 1
    assert "pooling: 'mean' there, 'map' asked" in capsys.readouterr().err
    assert run([*base[:-2], "--encoder", "hog", "--store", "h.store", "--revision", "main"]) == 2
