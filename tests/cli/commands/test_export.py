import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cli.main import run

IMAGES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table with columns that have names of ours, extracted with hog; the last image is black."""
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    lines = ["path,patient_id,label,vectors,identity,embedding,file"]
    for number in range(IMAGES):
        pixels = rng.integers(0, 200, (48, 48)) * (number < IMAGES - 1)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"i{number}.png")
        lines.append(f"i{number}.png,P{number // 2},c{number % 2},{number},x{number},{number},f{number}")
    lines.append("absent.png,P9,c0,1,x,1,f")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    table = ["--dataset", "table", "--root", str(folder / "table.csv"), "--label", "label"]
    assert run(["extract", *table, "--store", str(folder / "s"), "--max-failed", "0.5"]) == 0
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_extract_and_info_name_vectors_without_a_direction(capsys):
    table = ["--dataset", "table", "--root", "table.csv", "--label", "label"]
    assert run(["extract", *table, "--store", "s", "--max-failed", "0.5"]) == 0
    assert "  note, zero-vector: 1 image: the vector is zero" in capsys.readouterr().out
    assert run(["info", "s"]) == 0
    assert "  note, zero-vector: 1 image, such as i11.png:" in capsys.readouterr().out


def test_a_vector_without_a_direction_is_no_query_and_is_not_found(capsys):
    assert run(["search", "--id", "i11.png", "--store", "s"]) == 1
    assert "Error: the query's vector is zero" in capsys.readouterr().err
    assert run(["search", "i11.png", "--store", "s"]) == 1
    assert run(["search", "--id", "i0.png", "--store", "s", "-k", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["hits"]
    # The query and the other image of its patient are left out, as is the black image.
    assert {entry["image_id"] for entry in found} == {f"i{number}.png" for number in range(2, 11)}


def test_columns_of_the_user_and_of_the_file_stand_side_by_side(capsys):
    for suffix in ("npz", "h5", "parquet"):
        assert run(["export", "s", f"out.{suffix}"]) == 0
    rows = IMAGES - 1
    with np.load("out.npz") as arrays:
        assert arrays["vectors"].shape == (rows, 1152)
        assert json.loads(str(arrays["identity"]))["encoder"] == "hog"
        assert [float(cell) for cell in arrays["vectors_"]] == list(range(rows))
        assert arrays["identity_"].tolist() == [f"x{number}" for number in range(rows)]
        assert arrays["file"].tolist() == [f"f{number}" for number in range(rows)]
    with h5py.File("out.h5") as file:
        assert file["vectors"].shape == (rows, 1152)
        assert json.loads(file.attrs["export"])["columns"]["embedding_"] == "embedding"
    table = pq.read_table("out.parquet")
    assert table.column("embedding").type.list_size == 1152
    assert len(table.column("embedding_")) == rows
    assert capsys.readouterr().out.splitlines()[:3] == [
        "wrote out.npz: 11 rows",
        "  left out: 1 image without a vector (failed; `embed info` names them)",
        "  left out: 1 image whose vector is zero and has no direction; --keep-zero writes them too",
    ]


def test_a_file_is_replaced_only_where_that_is_asked_for(capsys):
    assert run(["export", "s", "again.csv", "--with-labels"]) == 0
    header = Path("again.csv").read_text().splitlines()[0]
    assert '"label:label:label"' in header
    assert '"embedding_"' in header
    assert run(["export", "s", "again.csv"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "Error: again.csv is there already; --force replaces it\n"
    assert run(["export", "s", "again.csv", "--force", "--json", "--keep-zero"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] == IMAGES
    assert document["left_out"] == {"failed": 1, "pending": 0, "zero": 0}


def test_the_dtype_of_the_project_is_that_of_the_encoder(tmp_path, monkeypatch, folder, capsys):
    """`dtype` in embed.toml is the encoder's arithmetic, and no word about files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embed.toml").write_text('dtype = "bfloat16"\n')
    assert run(["export", str(folder / "s"), "out.npz"]) == 0
    with np.load("out.npz") as arrays:
        assert arrays["vectors"].dtype == np.float32
    assert run(["export", str(folder / "s"), "half.h5", "--dtype", "float16"]) == 0
    assert "netCDF4" in capsys.readouterr().err
    assert run(["export", str(folder / "s"), "half.npz", "--dtype", "float16", "--normalise"]) == 0
    assert "netCDF4" not in capsys.readouterr().err
    with np.load("half.npz") as arrays:
        assert arrays["vectors"].dtype == np.float16
        lengths = np.linalg.norm(arrays["vectors"].astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=2e-3)
