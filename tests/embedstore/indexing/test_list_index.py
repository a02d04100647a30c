"""Lists beside a store: what they find against NumPy over all vectors, and that they are never those of another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embedstore.errors import CorruptStore
from embedstore.identity import Identity
from embedstore.indexing.list_index import index_folder, stored_lists
from embedstore.manifest import manifest_from_columns
from embedstore.queries.search import Index, build_index
from embedstore.similarity import list_search
from embedstore.store.commit import ChunkResult
from embedstore.store.reader import Store, open_store
from embedstore.store.writer import open_writer

DIM, CHUNK = 16, 128
IDENTITY = Identity("random", "1", "none", {"preset": "pad", "size_px": 8}, "none", "float32", DIM)


def add_part(root: Path, first: int, count: int, *, zero: int = -1) -> npt.NDArray[np.float32]:
    """Add a part of `count` vectors in clusters, three images to a patient, and return them."""
    rng = np.random.default_rng(first)
    centres = np.random.default_rng(99).normal(size=(12, DIM))
    vectors = (centres[rng.integers(0, 12, count)] + 0.4 * rng.normal(size=(count, DIM))).astype(np.float32)
    vectors = vectors.astype(np.float16).astype(np.float32)
    if zero >= 0:
        vectors[zero] = 0
    names = range(first, first + count)
    columns = {
        "image_id": [f"i{number}" for number in names],
        "path": [f"{number}.png" for number in names],
        "patient_id": [f"p{number // 3}" for number in names],
        "anatomy": ["hand" if number % 4 == 0 else "foot" for number in names],
    }
    with open_writer(root, IDENTITY, say=print) as writer:
        plan = writer.plan_part(
            manifest_from_columns(columns, source="test"),
            dataset="t",
            data_root="r",
            chunk_rows=CHUNK,
            dtype="float16",
        )
        for chunk, start in enumerate(range(0, count, CHUNK)):
            some = vectors[start : start + CHUNK]
            writer.commit(plan, chunk, ChunkResult(some, np.ones((len(some), 32), np.uint8)))
    return vectors


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a thousand rows be very many."""
    monkeypatch.setattr(list_search, "_FEW_ROWS", 0)
    monkeypatch.setattr(list_search, "_LIST_ROWS", 50)
    monkeypatch.setattr(list_search, "_FEWEST_REFINED", 30)


@pytest.fixture
def store(tmp_path: Path, large: None) -> Store:
    add_part(tmp_path / "s", 0, 1000, zero=7)
    return open_store(tmp_path / "s")


def best(
    vectors: npt.NDArray[np.float32],
    query: npt.NDArray[np.float32],
    allowed: npt.NDArray[np.bool_],
    k: int = 10,
) -> list[int]:
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    cosines = wide @ query / np.where(lengths > 0, lengths, 1)
    return np.argsort(-np.where(allowed & (lengths > 0), cosines, -np.inf), kind="stable")[:k].tolist()


def found(index: Index, query: npt.NDArray[np.float32], **kept: str) -> list[int]:
    return [hit.row for hit in index.search(query, k=10, **kept)]


def test_what_is_found_is_exact_under_filters_too_where_all_lists_are_looked_at(store: Store) -> None:
    said: list[str] = []
    index = build_index(store, lists=True, recall=1.0, say=said.append)
    assert index.lists is not None
    assert said[1].startswith("index: 999 vectors in 19 lists, ")
    assert "recall@10 1.000 (wanted 1), measured on 48 rows against exact search" in said[1]
    every = list_search.ListSearch(
        index.lists.index, index.lists.vectors, index.lists.groups, probes=19, present=index.lists.present
    )
    vectors = store.embeddings(dtype=np.float32).vectors
    numbers = np.arange(1000)
    for row in (0, 100, 501):
        query = vectors[row]
        rows, cosines = every.search(query[None], 10)
        assert rows[0].tolist() == best(vectors, query, numbers >= 0)
        own = query.astype(np.float64)
        expected = (
            vectors[rows[0]]
            @ own
            / np.linalg.norm(vectors[rows[0]].astype(np.float64), axis=1)
            / np.linalg.norm(own)
        )
        np.testing.assert_allclose(cosines[0], expected, atol=1e-6)
        few = np.flatnonzero(numbers % 4 == 0)
        without = np.array([row])
        rows, _ = every.search(query[None], 10, among=few, without=without)
        assert rows[0].tolist() == best(vectors, query, (numbers % 4 == 0) & (numbers != row))
        # Patients are left out by an index, whose codes are its own.
        others = found(index, query, exclude_patient=f"p{row // 3}")
        assert set(others) <= set(best(vectors, query, numbers // 3 != row // 3, 20))
        assert row not in others
    hands = build_index(store, where=["anatomy=hand"], lists=True, recall=1.0)
    assert all(row % 4 == 0 for row in found(hands, vectors[100]))


def test_the_recall_that_is_stated_is_the_one_that_there_is(store: Store) -> None:
    kept = stored_lists(store, recall=0.8)
    assert kept.facts.recall >= 0.8
    assert kept.facts.probes < kept.facts.lists
    vectors = store.embeddings(dtype=np.float32).vectors
    some = np.sort(np.random.default_rng(0).permutation(np.setdiff1d(np.arange(1000), [7]))[:48])
    search = kept.search(np.full(1000, -1))
    rows, _ = search.proposed_and_refined(vectors[some], 10, without=some)
    shares = [
        len({*rows[at].tolist()} & {*best(vectors, vectors[row], np.arange(1000) != row)}) / 10
        for at, row in enumerate(some)
    ]
    assert np.mean(shares) == pytest.approx(kept.facts.recall, abs=1e-9)


def test_where_rows_are_left_out_more_lists_are_looked_at_so_that_recall_stays(store: Store) -> None:
    search = stored_lists(store, recall=0.8).search(np.full(1000, -1))
    vectors = store.embeddings(dtype=np.float32).vectors
    some = np.setdiff1d(np.arange(0, 1000, 9), [7])
    odd = np.arange(1, 1000, 2)

    def recall(among: npt.NDArray[np.int64] | None, allowed: npt.NDArray[np.bool_]) -> float:
        rows, _ = search.proposed_and_refined(vectors[some], 10, among=among, without=some)
        shares = [
            len({*rows[at].tolist()} & {*best(vectors, vectors[row], allowed & (np.arange(1000) != row))})
            for at, row in enumerate(some)
        ]
        return float(np.mean(shares)) / 10

    every = np.ones(1000, bool)
    assert recall(odd, np.arange(1000) % 2 == 1) > recall(None, every) - 0.005


def test_lists_are_kept_and_new_parts_put_in_and_what_is_gone_taken_out(store: Store, tmp_path: Path) -> None:
    said: list[str] = []
    stored_lists(store, say=said.append)
    (first,) = index_folder(store).glob("lists-*.faiss")
    stored_lists(open_store(tmp_path / "s"), say=said.append)
    assert len(said) == 2
    more = add_part(tmp_path / "s", 1000, 200)
    grown = open_store(tmp_path / "s")
    index = build_index(grown, lists=True, recall=1.0, say=said.append)
    assert said[2] == "index: 200 vectors are put in, 0 taken out"
    assert found(index, more[50])[0] == 1050
    assert len(list(index_folder(store).iterdir())) == 3
    assert not first.exists()
    # The same folder without its second part: as after it was made anew.
    shutil.rmtree(tmp_path / "s")
    add_part(tmp_path / "s", 0, 1000, zero=7)
    index = build_index(open_store(tmp_path / "s"), lists=True, recall=1.0, say=said.append)
    assert said[4] == "index: 0 vectors are put in, 200 taken out"
    assert max(found(index, more[50])) < 1000
    # Half of it are other vectors: fitted anew.
    shutil.rmtree(tmp_path / "s")
    add_part(tmp_path / "s", 5, 1000)
    stored_lists(open_store(tmp_path / "s"), say=said.append)
    assert said[6].startswith("indexing 1,000 vectors, once; they are kept in s.index")


@pytest.mark.parametrize("harm", ["file", "sidecar", "link", "identity"])
def test_what_was_changed_or_is_of_another_is_made_anew(store: Store, tmp_path: Path, harm: str) -> None:
    stored_lists(store)
    folder = index_folder(store)
    (file,) = folder.glob("lists-*.faiss")
    if harm == "file":
        payload = bytearray(file.read_bytes())
        payload[-100] ^= 1
        file.write_bytes(payload)
    elif harm == "link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        document = json.loads((folder / "lists.json").read_text())
        document["identity_sha256" if harm == "identity" else "zero_rows"] = (
            "0" * 64 if harm == "identity" else []
        )
        (folder / "lists.json").write_text(json.dumps(document))
    said: list[str] = []
    stored_lists(store, say=said.append)
    assert said[0].startswith("indexing 999 vectors")


def test_a_vector_that_is_not_the_one_that_was_coded_is_refused(store: Store) -> None:
    kept = stored_lists(store, recall=1.0)
    chunk = next((store.path / "parts").glob("0000/vectors/c/0/0"))
    values = np.fromfile(chunk, np.float16, CHUNK * DIM).reshape(CHUNK, DIM)
    query = values[3].astype(np.float32)
    changed = chunk.read_bytes()
    values[3] *= -1
    chunk.write_bytes(values.tobytes() + changed[values.nbytes :])
    with pytest.raises(CorruptStore, match="row 3 is not the vector that was put into the index"):
        kept.search(np.full(1000, -1)).search(query[None], 5)


def test_where_nothing_can_be_kept_the_lists_are_searched_all_the_same(store: Store) -> None:
    index_folder(store).write_text("in the way")
    said: list[str] = []
    kept = stored_lists(store, say=said.append)
    assert "the index cannot be kept in" in said[-1]
    assert kept.facts.rows == 999
