"""Exports for viewers, opened by the viewers themselves; they are heavy, and skipped by name where one is absent."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import embedstore as es


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom store and its pictures."""
    folder = tmp_path_factory.mktemp("viewers")
    es.write_phantom_mura(folder, patients=20)
    es.extract("mura", folder / "mura.store", root=folder / "MURA-v1.1")
    return folder


@pytest.mark.skipif(
    importlib.util.find_spec("embedding_atlas") is None, reason="embedding-atlas is not installed"
)
def test_embedding_atlas_opens_the_file_by_the_one_command_of_the_page(folder: Path) -> None:
    es.export_store(folder / "mura.store", folder / "atlas.parquet", es.ExportOptions(viewer="atlas"))
    page = (Path(__file__).parents[1] / "docs/interop.md").read_text()
    (command,) = [line for line in page.splitlines() if line.startswith("embedding-atlas atlas.parquet")]
    out = ["--export-application", "site"]
    words = [sys.executable, "-m", "embedding_atlas.cli", *command.split()[1:], *out]
    subprocess.run(words, cwd=folder, check=True, timeout=120, stdout=subprocess.DEVNULL)
    (metadata,) = (folder / "site").rglob("metadata.json")
    shown = json.loads(metadata.read_text())["props"]["data"]
    assert shown["projection"] == {"x": "projection_x", "y": "projection_y"}
    assert (shown["neighbors"], shown["image"]) == ("neighbors", "thumbnail")
    (data,) = (folder / "site").rglob("dataset.parquet")
    table, own = pq.read_table(data), pq.read_table(folder / "atlas.parquet")
    assert table["neighbors"].to_pylist() == own["neighbors"].to_pylist()
    assert table["thumbnail"][0]["bytes"].as_py().startswith(b"\xff\xd8")


@pytest.mark.skipif(importlib.util.find_spec("fiftyone") is None, reason="fiftyone is not installed")
def test_fiftyones_own_importer_reads_the_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its database, which a test cannot ask for."""
    monkeypatch.setenv("FIFTYONE_DATABASE_VALIDATION", "false")
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "true")
    es.export_store(folder / "mura.store", folder / "f.csv", es.ExportOptions(viewer="fiftyone"))
    script = (
        "import fiftyone.utils.csv as fc, json, sys\n"
        "found = fc.CSVDatasetImporter(labels_path=sys.argv[1]); found.setup()\n"
        "print(json.dumps([[s.filepath, s['image_id'], s['label:abnormal:abnormal']] for s in found]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "f.csv")], check=True, capture_output=True, text=True
    )
    rows = json.loads(done.stdout.splitlines()[-1])
    assert len(rows) == es.open_store(folder / "mura.store").rows
    for path, image_id, label in rows:
        assert path.endswith(image_id)
        assert Path(path).is_file()
        assert label == ("abnormal" if "positive" in image_id else "normal")
