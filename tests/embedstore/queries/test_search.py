import numpy as np
import pytest

from embedstore.errors import UsageError
from embedstore.identity import Identity
from embedstore.manifest import manifest_from_columns
from embedstore.queries.search import build_index, parse_where
from embedstore.store.commit import ChunkResult
from embedstore.store.reader import open_store
from embedstore.store.writer import open_writer

DIM = 48
IDENTITY = Identity("random", "1", "none", {"preset": "pad", "size_px": 8}, "none", "float32", DIM)
ROWS = 600


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Random vectors with near-ties: every image has a twin that differs by a thousandth."""
    root = tmp_path_factory.mktemp("index") / "s"
    generator = np.random.default_rng(0)
    half = generator.standard_normal((ROWS // 2, DIM)).astype(np.float32)
    vectors = np.concatenate([half, half + 1e-3 * generator.standard_normal(half.shape).astype(np.float32)])
    vectors[5] = 0
    manifest = manifest_from_columns(
        {
            "image_id": [f"i{row}" for row in range(ROWS)],
            "path": [f"{row}.png" for row in range(ROWS)],
            "patient_id": [f"p{row // 3}" for row in range(ROWS)],
            "anatomy": ["hand" if row % 2 else "wrist" for row in range(ROWS)],
        },
        source="test",
    )
    with open_writer(root, IDENTITY, say=print) as writer:
        plan = writer.plan_part(manifest, dataset="t", data_root="r", chunk_rows=ROWS, dtype="float32")
        writer.commit(plan, 0, ChunkResult(vectors, np.ones((ROWS, 32), np.uint8)))
    return open_store(root)


def brute_force(store, query, k, allowed):
    """Rank by cosine in float64, earlier row first among equals."""
    vectors = store.embeddings().vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    cosine = vectors @ query / np.where(lengths > 0, lengths, 1) / np.linalg.norm(query)
    order = np.argsort(-np.where(allowed, cosine, -np.inf), kind="stable")[:k]
    return order, cosine[order]


@pytest.mark.parametrize("row", [0, 7, 123, 599])
def test_search_finds_exactly_what_brute_force_finds(store, row):
    query = store.vector(f"i{row}").astype(np.float64)
    rows, cosine = brute_force(store, query, 10, np.ones(ROWS, bool))
    found = build_index(store).search(query, k=10)
    assert [entry.row for entry in found] == rows.tolist()
    np.testing.assert_allclose([entry.similarity for entry in found], cosine, atol=1e-6)


def test_the_query_and_its_patient_can_be_left_out(store):
    query = store.vector("i9")
    allowed = np.array([row // 3 != 3 for row in range(ROWS)])
    rows, _ = brute_force(store, query.astype(np.float64), 5, allowed)
    found = build_index(store).search(query, k=5, exclude_patient="p3", exclude_id="i9")
    assert [entry.row for entry in found] == rows.tolist()


def test_conditions_leave_only_rows_that_meet_them(store):
    found = build_index(store, where={"anatomy": "hand"}).search(store.vector("i0"), k=1000)
    assert len(found) == ROWS // 2
    assert {entry.record["anatomy"] for entry in found} == {"hand"}
    assert build_index(store, where={"anatomy": "foot"}).search(store.vector("i0"), k=3) == []


def test_a_zero_vector_is_similar_to_nothing(store):
    found = build_index(store).search(store.vector("i5"), k=3)
    assert [entry.similarity for entry in found] == [0, 0, 0]


def test_wrong_conditions_are_named(store):
    with pytest.raises(UsageError, match="no column 'organ'; it has image_id"):
        build_index(store, where={"organ": "x"})
    with pytest.raises(UsageError, match="`where` takes COLUMN=VALUE; found 'anatomy'"):
        parse_where(["anatomy"])
    assert parse_where(["a=b=c"]) == {"a": "b=c"}
    with pytest.raises(UsageError, match="k must be at least 1; found 0"):
        build_index(store).search(store.vector("i0"), k=0)


def test_many_vectors_have_the_answers_of_each(store):
    index = build_index(store)
    vectors = np.stack([store.vector(f"i{row}") for row in range(40)])
    patients = [f"p{row // 3}" if row % 2 else None for row in range(40)]
    ids = [f"i{row}" for row in range(40)]
    found = index.search_many(vectors, k=4, exclude_patients=patients, exclude_ids=ids)
    for row in range(40):
        alone = build_index(store).search(
            vectors[row], k=4, exclude_patient=patients[row], exclude_id=f"i{row}"
        )
        assert [(entry.row, entry.similarity) for entry in found[row]] == [
            (entry.row, entry.similarity) for entry in alone
        ]


def test_k_is_a_whole_number(store):
    with pytest.raises(UsageError, match="k must be a whole number; found '2'"):
        build_index(store).search(np.ones(DIM), k="2")
