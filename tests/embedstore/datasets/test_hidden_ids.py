"""A table whose paths are hidden: its ids are pseudonyms everywhere, and only what was named stays."""

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.datasets.table import Table
from embedstore.errors import UsageError
from embedstore.keys.key_file import Key
from embedstore.queries.image_files import ImageFiles
from embedstore.store.reader import open_store
from tests.hospital import leaks

SECRET = b"0123456789abcdef"


@pytest.fixture
def table(tmp_path):
    folder = tmp_path / "Tabellen_Habermann"
    lines = ["path,patient_id,study_id,name,age,fracture"]
    for number in range(4):
        path = folder / f"Habermann_{number}" / "hand.png"
        path.parent.mkdir(parents=True)
        grey = np.random.default_rng(number).integers(0, 255, (20, 20)).astype(np.uint8)
        Image.fromarray(grey).save(path)
        lines.append(
            f"Habermann_{number}/hand.png,PAT-{number},STUDY-{number},Ida Drossel,{50 + number},{number % 2}"
        )
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "h.key").write_bytes(SECRET)
    return folder / "list.csv"


def test_ids_are_pseudonyms_and_tasks_go_with_them(table, tmp_path):
    key = Key(tmp_path / "h.key", SECRET)
    collection = Table(label="fracture", hide_paths=True, key_file=tmp_path / "h.key", keep=["age"]).read(
        table
    )
    rows = {row["image_id"]: row for row in collection.manifest.table.to_pylist()}
    row = rows[key.id_of("image", "Habermann_1/hand.png")]
    assert row["patient_id"] == key.id_of("patient", "PAT-1")
    assert row["study_id"] == key.id_of("study", "STUDY-1")
    assert (row["path"], row["age"]) == (None, 51)
    assert "name" not in row
    assert collection.summary["columns left out"].startswith("name")
    task = collection.tasks[0]
    labels = dict(zip(task.unit_ids, task.labels.column("fracture").to_pylist(), strict=True))
    assert labels[key.id_of("study", "STUDY-1")] == "1"
    assert "name" not in task.subgroups


def test_a_store_of_such_a_table_names_nobody_and_its_owner_finds_the_files(table, tmp_path):
    collection = Table(label="fracture", hide_paths=True, key_file=tmp_path / "h.key").read(table)
    es.extract(collection, tmp_path / "out" / "s.store")
    secrets = {"Habermann", "PAT-1", "STUDY-1", "Drossel", "hand.png", "Tabellen", "list.csv"}
    assert leaks(secrets, tmp_path / "out") == []
    store = open_store(tmp_path / "out" / "s.store")
    found = ImageFiles(collection.key).paths(store)
    assert set(found.values()) == set(table.parent.glob("*/hand.png"))


def test_hiding_needs_a_key_and_known_columns(table, tmp_path):
    with pytest.raises(UsageError, match="table needs a key file"):
        Table(hide_paths=True).read(table)
    with pytest.raises(UsageError, match=r"no further column 'aeg'; it has name, age"):
        Table(hide_paths=True, key_file=tmp_path / "h.key", keep=["aeg"]).read(table)
