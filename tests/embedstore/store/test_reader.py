from dataclasses import replace

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from embedstore.errors import CorruptStore, DataError, IdentityMismatch, Reason, StoreError, UsageError
from embedstore.exchange.export import export_store
from embedstore.store.commit import ChunkResult
from embedstore.store.documents import write_document
from embedstore.store.reader import FAILED, PENDING, VALID, open_store
from embedstore.store.tasks import read_task, task_names, write_task
from embedstore.store.writer import open_writer
from embedstore.task import Task
from tests.stores import (
    DIM,
    IDENTITY,
    TOKEN_IDENTITY,
    content_of,
    make_store,
    manifest_of,
    store_bytes,
    tokens_of,
    vectors_of,
)


def test_committed_vectors_come_back_in_row_order_with_their_ids(tmp_path):
    make_store(tmp_path / "s", rows=20, chunk_rows=8)
    embeddings = open_store(tmp_path / "s").embeddings()
    assert embeddings.vectors.dtype == np.float16
    np.testing.assert_array_equal(embeddings.vectors, vectors_of(0, 20))
    assert list(embeddings.image_ids) == [f"image{row}" for row in range(20)]
    np.testing.assert_array_equal(embeddings.rows, np.arange(20))


@pytest.mark.parametrize(
    ("stored", "asked"), [("float16", np.float32), ("float32", np.float16), ("float32", None)]
)
def test_vectors_are_converted_to_the_asked_dtype(tmp_path, stored, asked):
    make_store(tmp_path / "s", dtype=stored)
    vectors = open_store(tmp_path / "s").embeddings(dtype=asked).vectors
    assert vectors.dtype == (asked or np.float32)
    np.testing.assert_array_equal(vectors, vectors_of(0, 20))


def test_single_rows_and_id_lists_come_in_the_order_asked_for(tmp_path):
    make_store(tmp_path / "s", rows=20, chunk_rows=8)
    store = open_store(tmp_path / "s")
    np.testing.assert_array_equal(store.vector("image9"), vectors_of(9, 10)[0])
    chosen = store.select(["image17", "image0", "image17", "image8"])
    np.testing.assert_array_equal(chosen.rows, [17, 0, 17, 8])
    np.testing.assert_array_equal(chosen.vectors, vectors_of(0, 20)[[17, 0, 17, 8]])
    assert store.select([]).vectors.shape == (0, DIM)


def test_a_row_exists_only_if_a_receipt_says_so(tmp_path):
    make_store(tmp_path / "s", rows=20, chunk_rows=8, chunks=(1,))
    store = open_store(tmp_path / "s")
    np.testing.assert_array_equal(store.embeddings().rows, np.arange(8, 16))
    assert set(store.status[:8]) == {PENDING}
    with pytest.raises(DataError, match="'image3' is planned but not extracted yet"):
        store.vector("image3")
    with pytest.raises(DataError, match="no image 'image99'"):
        store.vector("image99")


def test_a_failed_row_is_named_with_its_reason_and_never_returned(tmp_path):
    failures = {9: (Reason.UNREADABLE, "ends after 12 bytes")}
    make_store(tmp_path / "s", rows=20, chunk_rows=8, failures=failures)
    store = open_store(tmp_path / "s")
    assert store.status[9] == FAILED
    assert [(failure.row, failure.reason) for failure in store.failures] == [(9, "unreadable")]
    assert "image9" not in store.embeddings().image_ids
    np.testing.assert_array_equal(store.embeddings().vectors, np.delete(vectors_of(0, 20), 9, axis=0))
    with pytest.raises(DataError, match="'image9' has no vector: unreadable: ends after 12 bytes"):
        store.vector("image9")


def test_content_digests_come_back_and_failed_rows_have_none(tmp_path):
    make_store(tmp_path / "s", failures={3: (Reason.MISSING, "gone")})
    expected = content_of(0, 20).copy()
    expected[3] = 0
    np.testing.assert_array_equal(open_store(tmp_path / "s").content_sha256(), expected)


def test_plain_zarr_reads_the_vectors_and_sees_nan_for_what_is_not_there(tmp_path):
    make_store(tmp_path / "s", rows=20, chunk_rows=8, chunks=(0, 2), failures={17: (Reason.TIMEOUT, "slow")})
    array = zarr.open_array(tmp_path / "s" / "parts" / "0000" / "vectors", mode="r")
    assert (array.shape, array.chunks, array.dtype) == ((20, DIM), (8, DIM), np.float16)
    expected = vectors_of(0, 20)
    expected[8:16] = np.nan
    expected[17] = np.nan
    np.testing.assert_array_equal(array[:], expected)


def test_non_finite_and_overflowing_vectors_are_failures_with_their_reason(tmp_path):
    with open_writer(tmp_path / "s", IDENTITY, say=print) as writer:
        plan = writer.plan_part(manifest_of(4), dataset="t", data_root="r", chunk_rows=4, dtype="float16")
        vectors = vectors_of(0, 4)
        vectors[1, 2], vectors[2, 0], vectors[3, 0] = np.inf, 65_504.0, 65_503.0
        receipt = writer.commit(plan, 0, ChunkResult(vectors, content_of(0, 4)))
    assert [(failure.row, failure.reason) for failure in receipt.failures] == [
        (1, "non-finite"),
        (2, "overflow"),
    ]
    assert np.flatnonzero(open_store(tmp_path / "s").status == VALID).tolist() == [0, 3]


def test_the_receipt_holds_the_largest_rounding_error(tmp_path):
    with open_writer(tmp_path / "s", IDENTITY, say=print) as writer:
        plan = writer.plan_part(manifest_of(1), dataset="t", data_root="r", chunk_rows=1, dtype="float16")
        # Between 2048 and 4096 float16 counts in twos: 2049.25 is stored as 2050.
        vectors = np.array([[1.0, 2049.25, 0.0, 3.0]], np.float32)
        receipt = writer.commit(plan, 0, ChunkResult(vectors, content_of(0, 1)))
    assert receipt.arrays["vectors"].rounding_error == 0.75


def test_a_second_part_continues_the_rows_of_the_first(tmp_path):
    make_store(tmp_path / "s", rows=10, chunk_rows=4)
    with open_writer(tmp_path / "s", IDENTITY, say=print) as writer:
        plan = writer.plan_part(
            manifest_of(3, first=10), dataset="t", data_root="r", chunk_rows=2, dtype="float32"
        )
        for chunk in range(plan.chunks):
            start, stop = plan.bounds(chunk)
            writer.commit(
                plan, chunk, ChunkResult(vectors_of(10 + start, 10 + stop), content_of(start, stop))
            )
    store = open_store(tmp_path / "s")
    assert store.embeddings().vectors.dtype == np.float32
    np.testing.assert_array_equal(store.embeddings().vectors, vectors_of(0, 13))
    np.testing.assert_array_equal(store.select(["image11", "image2"]).vectors, vectors_of(0, 13)[[11, 2]])


def test_another_identity_is_refused_by_field(tmp_path):
    make_store(tmp_path / "s")
    other = replace(IDENTITY, pooling="map")
    with (
        pytest.raises(IdentityMismatch, match="pooling: 'none' there, 'map' asked"),
        open_writer(tmp_path / "s", other, say=print),
    ):
        pass


def test_a_chunk_committed_again_with_more_rows_keeps_the_others(tmp_path):
    plan = make_store(tmp_path / "s", failures={2: (Reason.MISSING, "gone")})
    with open_writer(tmp_path / "s", IDENTITY, say=print) as writer:
        writer.commit(plan, 0, ChunkResult(vectors_of(0, 8), content_of(0, 8)))
    make_store(tmp_path / "reference")
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


def test_rows_of_a_further_array_come_whole_or_by_image_in_the_order_asked_for(tmp_path):
    failures = {9: (Reason.UNREADABLE, "ends after 12 bytes")}
    make_store(
        tmp_path / "s", rows=20, chunk_rows=8, chunks=(0, 1), failures=failures, identity=TOKEN_IDENTITY
    )
    store = open_store(tmp_path / "s")
    tokens = store.array("tokens")
    assert (tokens.row_shape, tokens.dtype) == ((2, 3), np.float16)
    rows = [*range(9), *range(10, 16)]
    found = tokens.all()
    assert found.values.dtype == np.float16
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.values, tokens_of(0, 20)["tokens"][rows])
    assert list(found.image_ids) == [f"image{row}" for row in rows]
    chosen = tokens.select(["image15", "image0", "image15", "image8"], dtype=np.float32)
    assert chosen.values.dtype == np.float32
    np.testing.assert_array_equal(chosen.rows, [15, 0, 15, 8])
    np.testing.assert_array_equal(chosen.values, tokens_of(0, 20)["tokens"][[15, 0, 15, 8]])
    assert tokens.select([]).values.shape == (0, 2, 3)
    with pytest.raises(DataError, match="'image9' has no vector: unreadable"):
        tokens.select(["image9"])
    with pytest.raises(DataError, match="'image17' is planned but not extracted yet"):
        tokens.select(["image17"])


def test_the_array_of_the_vectors_is_the_embeddings(tmp_path):
    make_store(tmp_path / "s", identity=TOKEN_IDENTITY)
    store = open_store(tmp_path / "s")
    np.testing.assert_array_equal(store.array("vectors").all().values, store.embeddings().vectors)
    with pytest.raises(UsageError, match=r"has no array 'token'; its arrays: vectors, tokens. Did you mean"):
        store.array("token")


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "swap"])
def test_a_damaged_chunk_of_a_further_array_raises_instead_of_answering(tmp_path, damage):
    make_store(tmp_path / "s", rows=20, chunk_rows=8, identity=TOKEN_IDENTITY)
    folder = tmp_path / "s" / "parts" / "0000" / "tokens" / "c"
    chunk, payload = folder / "0" / "0" / "0", bytearray((folder / "0" / "0" / "0").read_bytes())
    if damage == "flip":
        payload[17] ^= 1
        chunk.write_bytes(payload)
    elif damage == "truncate":
        chunk.write_bytes(payload[:-1])
    elif damage == "delete":
        chunk.unlink()
    else:
        chunk.write_bytes((folder / "1" / "0" / "0").read_bytes())
    with pytest.raises(CorruptStore, match=r"tokens/c/0/0/0.*embedstore.repair_store"):
        open_store(tmp_path / "s").array("tokens").all()


def test_an_image_without_a_sound_row_in_one_array_has_none_in_any(tmp_path):
    with open_writer(tmp_path / "s", TOKEN_IDENTITY, say=print) as writer:
        plan = writer.plan_part(manifest_of(4), dataset="t", data_root="r", chunk_rows=4, dtype="float16")
        tokens = tokens_of(0, 4)["tokens"]
        tokens[1, 0, 2], tokens[2, 1, 0], tokens[3, 1, 2] = -np.inf, -65_504.0, -65_503.0
        result = ChunkResult(vectors_of(0, 4), content_of(0, 4), further={"tokens": tokens})
        receipt = writer.commit(plan, 0, result)
    assert [(failure.row, failure.reason, failure.message) for failure in receipt.failures] == [
        (1, "non-finite", "the encoder returned NaN or infinity in tokens for this image"),
        (
            2,
            "overflow",
            "largest value 65504 in tokens does not fit float16 (below 65504); a store of float32 holds it",
        ),
    ]
    # Between 32,768 and 65,536 float16 counts in 32s: 65,503 is stored as 65,504.
    assert receipt.arrays["tokens"].rounding_error == 1.0
    assert receipt.arrays["vectors"].rounding_error == 0.0
    store = open_store(tmp_path / "s")
    np.testing.assert_array_equal(store.embeddings().rows, [0, 3])
    np.testing.assert_array_equal(store.array("tokens").all().rows, [0, 3])


def test_a_result_without_the_planned_arrays_is_refused(tmp_path):
    plan = make_store(tmp_path / "s", chunks=(), identity=TOKEN_IDENTITY)
    with (
        open_writer(tmp_path / "s", TOKEN_IDENTITY, say=print) as writer,
        pytest.raises(StoreError, match=r"chunk 0 of part 0 needs arrays of shape .*'tokens': \(8, 2, 3\)"),
    ):
        writer.commit(plan, 0, ChunkResult(vectors_of(0, 8), content_of(0, 8)))


def test_an_export_holds_vectors_only(tmp_path):
    make_store(tmp_path / "s", identity=TOKEN_IDENTITY)
    export_store(open_store(tmp_path / "s"), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as file:
        assert "tokens" not in file
        np.testing.assert_array_equal(file["vectors"], vectors_of(0, 20))


def test_further_tables_come_back_over_all_parts_and_a_changed_file_is_noticed(tmp_path):
    with open_writer(tmp_path / "a.store", IDENTITY, say=lambda line: None) as writer:
        for first, points in ((0, [1.5, None]), (20, [2.5])):
            writer.plan_part(
                manifest_of(4, first=first),
                dataset="test",
                data_root="images",
                dtype="float16",
                tables={"coordinates": pa.table({"x": pa.array(points, pa.float64())})},
            )
    store = open_store(tmp_path / "a.store")
    assert store.further_table("coordinates").to_pydict() == {"x": [1.5, None, 2.5]}
    with pytest.raises(UsageError, match="no table 'coordinate'; its tables: coordinates"):
        store.further_table("coordinate")
    path = store.parts[1].layout.table("coordinates")
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(CorruptStore, match="was changed after the part was planned"):
        store.further_table("coordinates")
    path.unlink()
    with pytest.raises(CorruptStore, match="is missing"):
        store.further_table("coordinates")


def test_tasks_are_kept_with_their_labels_and_unchanged_ones_are_not_written_again(tmp_path):
    make_store(tmp_path / "s")
    labels = pa.table({"unit_id": ["study0", "study1"], "abnormal": ["yes", None]})
    task = Task("t", "study", ("abnormal",), ("no", "yes"), labels)
    write_task(tmp_path / "s", task)
    file = tmp_path / "s" / "tasks" / "t" / "task.json"
    before = file.stat().st_ino
    write_task(tmp_path / "s", task)
    assert file.stat().st_ino == before
    assert task_names(tmp_path / "s") == ["t"]
    assert read_task(tmp_path / "s", "t") == task
    assert read_task(tmp_path / "s", "t").labels.equals(labels)
    with pytest.raises(UsageError, match="has no task 'fracture'; its tasks: t"):
        read_task(tmp_path / "s", "fracture")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: path.mkdir(), "store.json must lie in it, found nothing"),
        (
            lambda path: (path / "sub").mkdir(parents=True),
            "is not a store: store.json must lie in it, found sub",
        ),
        (lambda path: (path / "parts" / "0000").mkdir(parents=True), "half deleted"),
    ],
)
def test_a_folder_that_is_no_store_is_refused_with_what_it_is(tmp_path, prepare, message):
    path = tmp_path / "s"
    prepare(path)
    with pytest.raises(StoreError, match=message):
        open_store(path)


def test_a_newer_format_version_is_refused(tmp_path):
    write_document(tmp_path / "store.json", {"format": "embedstore", "format_version": 4}, label="store")
    with pytest.raises(StoreError, match="format version 4; this program reads up to 3"):
        open_store(tmp_path)


def test_writing_into_a_folder_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.docx").write_text("x")
    with (
        pytest.raises(StoreError, match=r"is not a store: .* found thesis\.docx"),
        open_writer(tmp_path, IDENTITY, say=print),
    ):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.docx"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "zero", "delete", "swap"])
def test_loading_a_damaged_chunk_raises_instead_of_answering(tmp_path, damage):
    make_store(tmp_path / "s", rows=20, chunk_rows=8)
    chunk = tmp_path / "s" / "parts" / "0000" / "vectors" / "c" / "0" / "0"
    other = tmp_path / "s" / "parts" / "0000" / "vectors" / "c" / "1" / "0"
    payload = bytearray(chunk.read_bytes())
    if damage == "flip":
        payload[17] ^= 1
        chunk.write_bytes(payload)
    elif damage == "swap":
        chunk.write_bytes(other.read_bytes())
        other.write_bytes(payload)
    elif damage == "delete":
        chunk.unlink()
    else:
        chunk.write_bytes({"truncate": payload[:-9], "empty": b"", "zero": bytes(len(payload))}[damage])
    with pytest.raises(CorruptStore, match=r"Run: embedstore\.repair_store"):
        open_store(tmp_path / "s").embeddings()


def test_a_chunk_that_vanishes_after_opening_raises_too(tmp_path):
    make_store(tmp_path / "s")
    store = open_store(tmp_path / "s")
    (tmp_path / "s" / "parts" / "0000" / "vectors" / "c" / "1" / "0").unlink()
    with pytest.raises(CorruptStore, match="cannot be read"):
        store.vector("image9")


def test_hdf5_npz_and_parquet_hold_the_valid_rows_and_need_nothing_of_this_project(tmp_path):
    make_store(tmp_path / "s", failures={3: (Reason.MISSING, "gone")})
    labels = pa.table({"unit_id": ["study0", "study1"], "abnormal": ["yes", None]})
    write_task(tmp_path / "s", Task("t", "study", ("abnormal",), ("no", "yes"), labels))
    store = open_store(tmp_path / "s")
    assert store.tasks == ["t"]
    expected = np.delete(vectors_of(0, 20), 3, axis=0)
    ids = [f"image{row}" for row in range(20) if row != 3]
    for suffix in (".h5", ".npz", ".parquet"):
        assert export_store(store, tmp_path / f"out{suffix}").rows == 19
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["vectors"][:], expected)
        assert list(file["manifest/image_id"].asstr()[:]) == ids
        assert list(file["tasks/t/abnormal"].asstr()[:]) == ["yes", ""]
        assert file.attrs["identity_sha256"] == IDENTITY.sha256
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["vectors"], expected)
        assert list(arrays["image_id"]) == ids
    table = pq.read_table(tmp_path / "out.parquet")
    np.testing.assert_array_equal(np.stack(table.column("embedding").to_numpy()), expected)
    assert table.column("image_id").to_pylist() == ids
    with pytest.raises(UsageError, match=r"suffix must be one of .* found '\.txt'"):
        export_store(store, tmp_path / "out.txt")
