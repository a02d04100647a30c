import csv
import json
import time

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedstore.errors import DataError, Reason, UsageError
from embedstore.exchange.export import ExportOptions, export_store
from embedstore.manifest import manifest_from_table
from embedstore.store.commit import ChunkResult
from embedstore.store.reader import open_store
from embedstore.store.tasks import write_task
from embedstore.store.writer import open_writer
from embedstore.task import Task
from tests.stores import DIM, IDENTITY, content_of, make_store, vectors_of

ROWS = 6
ODD = [
    "vectors",
    "embedding",
    "file",
    "identity",
    "a/b",
    "a%2Fb",
    "",
    "größe",
    "label",
    "x.npy",
    "x",
    "Vectors",
    " y",
    ".",
]


def store_of(root, columns, vectors):
    """Write a store of one chunk with own columns and vectors."""
    count = len(vectors)
    fixed = {"image_id": [f"i{row}" for row in range(count)], "path": [f"{row}.png" for row in range(count)]}
    with open_writer(root, IDENTITY, say=print) as writer:
        plan = writer.plan_part(
            manifest_from_table(pa.table({**fixed, **columns}), source="test"),
            dataset="test",
            data_root="images",
            dtype="float32",
        )
        writer.commit(plan, 0, ChunkResult(vectors, content_of(0, count)))
    return open_store(root)


def test_columns_of_any_name_survive_every_format(tmp_path):
    columns = {name: [f"{at}-{row}" for row in range(ROWS)] for at, name in enumerate(ODD)}
    vectors = vectors_of(1, 1 + ROWS)
    store = store_of(tmp_path / "s", columns, vectors)
    for suffix in ("h5", "npz", "parquet", "csv"):
        export_store(store, tmp_path / f"out.{suffix}")
    found = {}
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["vectors"][:], vectors)
        names = json.loads(file.attrs["export"])["columns"]
        assert json.loads(file.attrs["identity"]) == IDENTITY.to_json()
        found["h5"] = {
            names[name]: list(file["manifest"][name].asstr()[:]) for name in names if names[name] in ODD
        }
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["vectors"], vectors)
        assert json.loads(str(arrays["identity"])) == IDENTITY.to_json()
        names = json.loads(str(arrays["export"]))["columns"]
        found["npz"] = {names[name]: list(arrays[name]) for name in names if names[name] in ODD}
    table = pq.read_table(tmp_path / "out.parquet")
    np.testing.assert_array_equal(np.stack(table.column("embedding").to_numpy()), vectors)
    names = json.loads(table.schema.metadata[b"embedstore.export"])["columns"]
    found["parquet"] = {names[name]: table.column(name).to_pylist() for name in names if names[name] in ODD}
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found["csv"] = {names[name]: [row[name] for row in rows] for name in names if names[name] in ODD}
    for suffix, held in found.items():
        assert held == columns, suffix


def test_kinds_of_cells_are_kept_or_said(tmp_path):
    columns = {
        "whole": pa.array([None, 2**40, -1]),
        "real": pa.array([1.5, None, 2.0]),
        "half": pa.array(np.array([1, 2, 3], np.float16)),
        "yes": pa.array([True, None, False]),
        "text": pa.array(["a", None, ""]).dictionary_encode(),
        "none": pa.nulls(3),
        "list": pa.array([[1], None, [2, 3]]),
        "when": pa.array([0, None, 1], pa.timestamp("ms")),
    }
    store = store_of(tmp_path / "s", columns, vectors_of(1, 4))
    export_store(store, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        held = file["manifest"]
        np.testing.assert_array_equal(held["whole"][:], [np.nan, 2**40, -1])
        np.testing.assert_array_equal(held["real"][:], [1.5, np.nan, 2.0])
        assert held["half"].dtype == np.float32  # netCDF4 dies of half floats, wherever they stand
        assert held["yes"][:].tolist() == [1, -1, 0]
        assert held["text"].asstr()[:].tolist() == ["a", "", ""]
        assert held["none"].asstr()[:].tolist() == ["", "", ""]
        assert held["list"].asstr()[:].tolist() == ["[1]", "", "[2, 3]"]
        assert held["when"].asstr()[:].tolist() == ["1970-01-01 00:00:00.000", "", "1970-01-01 00:00:00.001"]
    export_store(store, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").column("text").to_pylist() == ["a", None, ""]


def test_dtype_and_length_are_chosen(tmp_path):
    vectors = np.array([[3, 4, 0, 0], [0, 0, 5, 12]], np.float32)
    store = store_of(tmp_path / "s", {}, vectors)
    for dtype in ("float32", "float16"):
        options = ExportOptions(dtype=dtype, normalise=True, force=True)
        export_store(store, tmp_path / "out.npz", options)
        with np.load(tmp_path / "out.npz") as arrays:
            assert arrays["vectors"].dtype == dtype
            expected = np.array([[0.6, 0.8, 0, 0], [0, 0, 5 / 13, 12 / 13]])
            np.testing.assert_array_equal(arrays["vectors"], expected.astype(dtype))
    with pytest.raises(UsageError, match="`dtype` must be one of float16, float32; found 'float64'"):
        export_store(store, tmp_path / "out.h5", ExportOptions(dtype="float64"))


def test_a_value_beyond_the_dtype_is_refused(tmp_path):
    store = store_of(tmp_path / "s", {}, np.full((1, DIM), 1e5, np.float32))
    with pytest.raises(DataError, match="holds values that float16 cannot, 100000 for instance"):
        export_store(store, tmp_path / "out.h5", ExportOptions(dtype="float16"))
    assert not list(tmp_path.glob("out*"))


def test_rows_without_a_direction_are_left_out_and_counted(tmp_path):
    vectors = vectors_of(1, 5)
    vectors[2] = 0
    store = store_of(tmp_path / "s", {}, vectors)
    summary = export_store(store, tmp_path / "out.npz")
    assert (summary.rows, summary.zero, summary.failed) == (3, 1, 0)
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["image_id"].tolist() == ["i0", "i1", "i3"]
        assert json.loads(str(arrays["export"]))["left_out"] == {"failed": 0, "pending": 0, "zero": 1}
    kept = export_store(
        store, tmp_path / "out.npz", ExportOptions(keep_zero=True, normalise=True, force=True)
    )
    assert (kept.rows, kept.zero) == (4, 0)
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["vectors"][2], 0)
    assert store.parts[0].receipts[0].notes == {"zero-vector": (2,)}


def test_failed_and_pending_rows_are_counted(tmp_path):
    make_store(tmp_path / "s", chunks=(0, 2), failures={3: (Reason.MISSING, "gone")})
    summary = export_store(tmp_path / "s", tmp_path / "out.parquet")
    assert (summary.rows, summary.failed, summary.pending) == (11, 1, 8)
    held = pq.read_table(tmp_path / "out.parquet")
    expected = [row for row in range(20) if row != 3 and not 8 <= row < 16]
    assert held.column("image_id").to_pylist() == [f"image{row}" for row in expected]
    np.testing.assert_array_equal(np.stack(held.column("embedding").to_numpy()), vectors_of(0, 20)[expected])


def test_labels_become_columns(tmp_path):
    make_store(tmp_path / "s", rows=6)
    labels = pa.table({"unit_id": ["study0", "study1"], "a/b": ["yes", None]})
    write_task(tmp_path / "s", Task("t", "study", ("a/b",), ("no", "yes"), labels))
    export_store(tmp_path / "s", tmp_path / "out.parquet", ExportOptions(with_labels=True))
    held = pq.read_table(tmp_path / "out.parquet")
    assert held.column("label:t:a%2Fb").to_pylist() == ["yes", "yes", None, None, None, None]
    export_store(tmp_path / "s", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file["tasks/t/a%2Fb"].asstr()[:]) == ["yes", ""]
        assert "label:t:a%2Fb" not in file["manifest"]


def test_a_file_that_is_there_stays_unless_it_is_to_be_replaced(tmp_path):
    make_store(tmp_path / "s")
    (tmp_path / "out.h5").write_text("mine")
    with pytest.raises(UsageError, match=r"out\.h5 is there already; `force=True` replaces it"):
        export_store(tmp_path / "s", tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_text() == "mine"
    export_store(tmp_path / "s", tmp_path / "out.h5", ExportOptions(force=True))
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["vectors"].shape == (20, DIM)


def test_a_store_without_vectors_is_refused(tmp_path):
    make_store(tmp_path / "s", chunks=())
    with pytest.raises(DataError, match="holds no vector that could be exported"):
        export_store(tmp_path / "s", tmp_path / "out.h5")


def test_nul_in_a_text_is_refused_where_the_format_has_none(tmp_path):
    store = store_of(tmp_path / "s", {"note": ["a", "b\0c"]}, vectors_of(1, 3))
    for suffix in ("h5", "npz"):
        with pytest.raises(DataError, match="column 'note', row 1: neither HDF5 nor npz can hold"):
            export_store(store, tmp_path / f"out.{suffix}")
    export_store(store, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").column("note").to_pylist() == ["a", "b\0c"]


def test_a_table_of_many_columns_fits(tmp_path):
    """Attributes of HDF5's first format end at 64 KiB."""
    columns = {f"a_feature_with_a_long_name_{number:040d}": [1.0, 2.0] for number in range(800)}
    export_store(store_of(tmp_path / "s", columns, vectors_of(1, 3)), tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert len(json.loads(file.attrs["export"])["columns"]) == 808


def test_random_rows_cost_what_they_do_in_a_contiguous_file(tmp_path):
    """Narrow chunks, h5py's own choice, take 38 times as long."""
    rng = np.random.default_rng(0)
    make_store(tmp_path / "s", rows=2048, chunk_rows=256)
    export_store(tmp_path / "s", tmp_path / "out.h5")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["vectors"] = vectors_of(0, 2048)
    chosen = np.sort(rng.choice(2048, 200, replace=False))

    def seconds(name):
        with h5py.File(tmp_path / name) as file:
            held, times = file["vectors"], []
            for _ in range(7):
                began = time.perf_counter()
                for row in chosen:
                    held[row]
                times.append(time.perf_counter() - began)
            assert held.chunks is None
        return min(times)

    assert seconds("out.h5") < 3 * seconds("plain.h5")
