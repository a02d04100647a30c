import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from embedstore.errors import DataError
from embedstore.exchange.feature_files import open_features
from embedstore.exchange.feature_rows import open_feature_rows

FOUND = np.arange(24, dtype=np.float32).reshape(6, 4) / 8
IDS = [f"i{row}" for row in range(6)]


def read(path, **asked):
    file = open_features(path, **asked)
    return file, np.concatenate(list(file.blocks()))


@pytest.fixture(params=["f.h5", "f.npz", "fortran.npz", "fixed.parquet", "list.parquet", "columns.parquet"])
def with_ids(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["vectors"], file["manifest/id"] = FOUND, IDS
    elif path.suffix == ".npz":
        np.savez(
            path, features=np.asfortranarray(FOUND) if "fortran" in path.name else FOUND, id=np.array(IDS)
        )
    elif "columns" in path.name:
        pq.write_table(pa.table({"id": IDS} | {f"f{at}": FOUND[:, at] for at in range(4)}), path)
    else:
        kind = pa.list_(pa.float32(), 4) if "fixed" in path.name else pa.list_(pa.float32())
        pq.write_table(pa.table({"id": IDS, "embedding": pa.array(FOUND.tolist(), kind)}), path)
    return path


def test_vectors_and_ids_are_read_from_every_format(with_ids):
    file, found = read(with_ids, id_column="id")
    assert (file.rows, file.dim, file.dtype, list(file.ids)) == (6, 4, np.float32, IDS)
    np.testing.assert_array_equal(found, FOUND)
    with pytest.raises(
        DataError, match=r"`id_column` names 'ids', which the file has not; it has .*Did you mean '"
    ):
        open_features(with_ids, id_column="ids")


def test_tensors_are_read_by_id_or_as_a_table(tmp_path):
    save_file(
        {name: torch.from_numpy(row.copy()) for name, row in zip(IDS, FOUND, strict=True)},
        tmp_path / "a.safetensors",
    )
    file, found = read(tmp_path / "a.safetensors")
    assert list(file.ids) == IDS
    np.testing.assert_array_equal(found, FOUND)
    # bfloat16 has 8 significant bits, which hold each of these numbers.
    save_file({"x": torch.from_numpy(FOUND).to(torch.bfloat16)[None]}, tmp_path / "b.safetensors")
    file, found = read(tmp_path / "b.safetensors")
    assert file.ids is None
    np.testing.assert_array_equal(found, FOUND)
    with pytest.raises(DataError, match="safetensors files hold numbers only"):
        open_features(tmp_path / "b.safetensors", id_column="id")


def test_blocks_join_to_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("embedstore.exchange.feature_file._BLOCK_BYTES", 32)
    np.savez(tmp_path / "f.npz", features=FOUND)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features"] = FOUND[None]
    pq.write_table(pa.table({"features": pa.array(FOUND.tolist())}), tmp_path / "f.parquet")
    for name in ("f.npz", "f.h5", "f.parquet"):
        file = open_features(tmp_path / name)
        assert [len(block) for block in file.blocks()] == [2, 2, 2], name
        np.testing.assert_array_equal(read(tmp_path / name)[1], FOUND)


def test_pickles_are_refused_in_words(tmp_path):
    (tmp_path / "slide.pt").write_bytes(b"x")
    with pytest.raises(DataError, match=r"\.pt files are read by pickle, which runs whatever the file says"):
        open_features(tmp_path / "slide.pt")
    np.savez(tmp_path / "f.npz", features=FOUND, id=np.array(IDS, dtype=object))
    with pytest.raises(DataError, match="the array 'id' holds Python objects, which only pickle reads"):
        open_features(tmp_path / "f.npz", id_column="id")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": FOUND, "b": FOUND}, "which array holds the vectors"),
        ({"features": np.zeros((2, 3, 4), np.float32)}, "must have the shape N x D, 1 x N x D or D"),
        ({"features": FOUND[:0]}, "must hold at least one vector; found shape 0 x 4"),
        ({"features": FOUND, "coords": np.zeros((5, 2))}, r"coords must have the shape \(6, 2\)"),
        ({"features": np.zeros((2, 2), np.int64)}, "Arrays of floating-point numbers: none"),
    ],
)
def test_shapes_that_fit_nothing_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(DataError, match=words):
        open_features(tmp_path / "f.npz")


def test_ids_that_do_not_fit_are_refused(tmp_path):
    for ids, words in (
        (IDS[:5], "one for each of 6 vectors"),
        (["a", "", *IDS[:4]], "row 1: the id is empty"),
    ):
        np.savez(tmp_path / "f.npz", features=FOUND, id=np.array(ids))
        with pytest.raises(DataError, match=words):
            open_features(tmp_path / "f.npz", id_column="id")


def test_lists_of_different_lengths_and_unknown_ones(tmp_path):
    pq.write_table(pa.table({"features": [[1.0, 2.0], None, [3.0, None]]}), tmp_path / "f.parquet")
    np.testing.assert_array_equal(read(tmp_path / "f.parquet")[1], [[1, 2], [np.nan] * 2, [3, np.nan]])
    pq.write_table(pa.table({"features": [[1.0, 2.0], [3.0]]}), tmp_path / "f.parquet")
    with pytest.raises(DataError, match="row 1 of 'features' has 1 numbers, where the first has 2"):
        read(tmp_path / "f.parquet")


def test_columns_of_numbers_are_chosen_by_a_pattern_where_there_are_several_groups(tmp_path):
    pq.write_table(pa.table({"f0": [1.0], "f1": [2.0], "g0": [3.0], "g1": [4.0]}), tmp_path / "f.parquet")
    with pytest.raises(DataError, match=r"which columns hold the vectors.*'f\*' for instance"):
        open_features(tmp_path / "f.parquet")
    np.testing.assert_array_equal(read(tmp_path / "f.parquet", array="g*")[1], [[3, 4]])


@pytest.mark.parametrize("suffix", ["h5", "npz", "parquet", "safetensors"])
def test_a_file_that_is_something_else_is_named(tmp_path, suffix):
    path = tmp_path / f"f.{suffix}"
    path.write_bytes(b"no such thing, and long enough to hold a header")
    with pytest.raises(DataError, match=f"cannot be read as {suffix}"):
        open_features(path)


def test_files_of_a_folder_must_fit_each_other(tmp_path):
    np.savez(tmp_path / "a.npz", features=FOUND)
    np.savez(tmp_path / "b.npz", features=FOUND[:, :3])
    with pytest.raises(DataError, match=r"b\.npz: its vectors have 3 numbers, those of a\.npz 4"):
        open_feature_rows(tmp_path, array=None, id_column=None)
    (tmp_path / "b.npz").rename(tmp_path / "b.h5")
    with pytest.raises(DataError, match=r"must be of one format; found \.h5, \.npz"):
        open_feature_rows(tmp_path, array=None, id_column=None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"must hold files that end in .* found none"):
        open_feature_rows(tmp_path / "empty", array=None, id_column=None)
