"""What viewers get beside the rows, against NumPy and scikit-learn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from embedstore.errors import UsageError
from embedstore.exchange.export import ExportOptions, export_store
from embedstore.exchange.viewer_rows import neighbors_of, plane_of
from embedstore.manifest import manifest_from_columns
from embedstore.store.commit import ChunkResult
from embedstore.store.reader import Store, open_store
from embedstore.store.writer import open_writer
from tests.stores import DIM, IDENTITY, content_of

ROWS = 9


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a picture for each row but the last, and columns that are called like ours."""
    columns: dict[str, list[str]] = {
        "image_id": [f"i{row}" for row in range(ROWS)],
        "patient_id": ["p"] * ROWS,
    }
    columns["path"] = [f"{row}.png" for row in range(ROWS)]
    columns |= {"thumbnail": ["own"] * ROWS, "thumbnail_": ["own too"] * ROWS}
    for row in range(ROWS - 1):
        Image.fromarray(np.full((20, 30), 20 * row, np.uint8)).save(tmp_path / f"{row}.png")
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    with open_writer(tmp_path / "s", IDENTITY, say=print) as writer:
        plan = writer.plan_part(
            manifest_from_columns(columns, source="test"),
            dataset="t",
            data_root=str(tmp_path),
            dtype="float32",
        )
        writer.commit(plan, 0, ChunkResult(vectors, content_of(0, ROWS)))
    return open_store(tmp_path / "s")


def test_the_plane_is_that_of_principal_components_of_unit_vectors() -> None:
    vectors = np.random.default_rng(1).normal(size=(40, 7)).astype(np.float32) * [[3.0]] * 40
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = PCA(2, svd_solver="full").fit(units).transform(units)
    found = plane_of(vectors)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)
    assert plane_of(vectors[:1]).tolist() == [[0.0, 0.0]]


def test_neighbours_are_rows_of_the_file_by_cosine_and_never_the_row_itself() -> None:
    vectors = np.random.default_rng(2).normal(size=(12, 5)).astype(np.float32)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = 1 - units.astype(np.float64) @ units.T
    np.fill_diagonal(distances, np.inf)
    for row, cell in enumerate(neighbors_of(vectors, 4).to_pylist()):
        assert cell["ids"] == np.argsort(distances[row])[:4].tolist()
        np.testing.assert_allclose(cell["distances"], np.sort(distances[row])[:4], atol=1e-6)
    assert [len(cell["ids"]) for cell in neighbors_of(vectors[:3], 15).to_pylist()] == [2, 2, 2]


def test_a_file_for_atlas_holds_places_neighbours_and_pictures_and_leaves_the_users_columns(
    store: Store, tmp_path: Path
) -> None:
    export_store(store, tmp_path / "a.parquet", ExportOptions(viewer="atlas", neighbors=3))
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["thumbnail_"].to_pylist() == ["own"] * ROWS
    assert table["thumbnail__"].to_pylist() == ["own too"] * ROWS
    cells = table["thumbnail"].to_pylist()
    assert cells[-1]["bytes"] is None
    for row, cell in enumerate(cells[:-1]):
        picture = np.asarray(Image.open(io.BytesIO(cell["bytes"])))
        assert abs(int(picture[80, 80]) - 20 * row) <= 2
    assert table.schema.field("neighbors").type == pa.struct(
        [("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))]
    )
    places = plane_of(store.embeddings(dtype=np.float32).vectors)
    np.testing.assert_allclose(table["projection_x"].to_numpy(), places[:, 0], atol=1e-6)
    bare = ExportOptions(viewer="atlas", neighbors=0, thumbnails=False, force=True)
    export_store(store, tmp_path / "a.parquet", bare)
    table = pq.read_table(tmp_path / "a.parquet")
    assert "neighbors" not in table.column_names
    assert table["thumbnail"].to_pylist() == ["own"] * ROWS


def test_a_table_for_fiftyone_holds_where_each_file_lies(store: Store, tmp_path: Path) -> None:
    summary = export_store(store, tmp_path / "f.csv", ExportOptions(viewer="fiftyone"))
    assert (summary.rows, summary.without_file) == (ROWS - 1, 1)
    paths = pa.csv.read_csv(tmp_path / "f.csv")["filepath"].to_pylist()
    assert paths == [str(tmp_path / f"{row}.png") for row in range(ROWS - 1)]
    with pytest.raises(UsageError, match=r"`viewer` and the suffix must fit: atlas \(.parquet\); fiftyone"):
        export_store(store, tmp_path / "f.h5", ExportOptions(viewer="fiftyone"))
