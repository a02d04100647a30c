import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import DataError, UsageError
from embedstore.identity import Identity
from embedstore.manifest import manifest_from_columns
from embedstore.queries.search import Index, build_index
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
    np.testing.assert_allclose([entry.cosine for entry in found], cosine, atol=1e-6)


def test_the_query_and_its_patient_can_be_left_out(store):
    query = store.vector("i9")
    allowed = np.array([row // 3 != 3 for row in range(ROWS)])
    rows, _ = brute_force(store, query.astype(np.float64), 5, allowed)
    found = build_index(store).search(query, k=5, exclude_patient="p3", exclude_id="i9")
    assert [entry.row for entry in found] == rows.tolist()


def test_conditions_leave_only_rows_that_meet_them(store):
    found = build_index(store, where={"anatomy": "hand"}).search(store.vector("i0"), k=1000)
    # One of them is a zero vector.
    assert len(found) == ROWS // 2 - 1
    assert {entry.record["anatomy"] for entry in found} == {"hand"}
    assert build_index(store, where={"anatomy": "foot"}).search(store.vector("i0"), k=3) == []


def test_a_zero_vector_is_refused_as_a_query_and_never_found(store):
    index = build_index(store)
    with pytest.raises(DataError, match="the query's vector is zero"):
        index.search(store.vector("i5"), k=3)
    assert len(index.image_ids) == ROWS - 1
    assert "i5" not in index.image_ids
    assert index.search_many(np.stack([store.vector("i5"), store.vector("i6")]), k=1)[0] == []


def test_wrong_conditions_are_named(store):
    with pytest.raises(UsageError, match="no column 'organ'; it has image_id"):
        build_index(store, where={"organ": "x"})
    with pytest.raises(UsageError, match=r"`where` takes COLUMN=VALUE, .*; found 'anatomy'"):
        build_index(store, where=["anatomy"])
    with pytest.raises(UsageError, match="k must be at least 1; found 0"):
        build_index(store).search(store.vector("i0"), k=0)


def test_many_vectors_have_the_answers_of_each(store):
    index = build_index(store)
    vectors = np.stack([store.vector(f"i{row}") for row in range(40)])
    patients = [f"p{row // 3}" if row % 2 else None for row in range(40)]
    ids = [f"i{row}" for row in range(40)]
    found = index.search_many(vectors, k=4, exclude_patients=patients, exclude_ids=ids)
    for row in set(range(40)) - {5}:
        alone = build_index(store).search(
            vectors[row], k=4, exclude_patient=patients[row], exclude_id=f"i{row}"
        )
        assert [(entry.row, entry.cosine) for entry in found[row]] == [
            (entry.row, entry.cosine) for entry in alone
        ]


def test_k_is_a_whole_number(store):
    with pytest.raises(UsageError, match="k must be a whole number; found '2'"):
        build_index(store).search(np.ones(DIM), k="2")


def index_of(vectors):
    """An index of vectors, each of a patient of its own."""
    ids = [f"i{row}" for row in range(len(vectors))]
    table = pa.table({"image_id": ids, "patient_id": [f"p{row}" for row in range(len(vectors))]})
    return Index(table, np.array(ids, object), np.arange(len(vectors)), vectors)


@pytest.mark.parametrize(("noise", "count"), [(0.01, 500), (0.003, 500), (0.003, 5000)])
def test_among_near_identical_images_the_nearest_are_found_and_the_own_twin_first(noise, count):
    """Frames of a cine, copies, neighbouring slices: cosines differ from 1 by 1e-4 and less."""
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=256) + noise * rng.normal(size=(count, 256))).astype(np.float16)
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    expected = np.argsort(-(wide[:100] @ wide.T), axis=1, kind="stable")[:, :10]
    index = index_of(vectors)
    together = index.search_many(vectors[:100].astype(np.float32), k=10)
    assert [[found.row for found in row] for row in together] == expected.tolist()
    assert [row[0].row for row in together] == list(range(100))
    for row in (0, 57):
        assert index.search(vectors[row], k=10) == together[row]
        own = index.search(vectors[row], k=9, exclude_patient=f"p{row}")
        assert own == together[row][1:]


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_of_copies_the_earlier_rows_are_found_on_any_number_of_cores(cores, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("embedstore.similarity.exact_search.thread_count", lambda: cores)
    vectors = np.tile(np.random.default_rng(0).normal(size=256), (500, 1)).astype(np.float32)
    index = index_of(vectors)
    assert [found.row for found in index.search(vectors[0], k=10)] == list(range(10))
    for row, found in enumerate(index.search_many(vectors[:200], k=10, exclude_ids=index.image_ids[:200])):
        assert [neighbor.row for neighbor in found] == [at for at in range(11) if at != row][:10]
