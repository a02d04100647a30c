"""The map beside the key: several folders, written whole, and only when it says something new."""

import multiprocessing

import pytest

from embedstore.errors import DataError
from embedstore.keys.key_file import Key
from embedstore.keys.owner_map import map_file, map_rows, read_map, remember


@pytest.fixture
def key(tmp_path):
    (tmp_path / "h.key").write_bytes(b"x" * 32)
    return Key(tmp_path / "h.key", b"x" * 32)


def rows(root, *names, left_out=()):
    paths = [*(f"{name}.dcm" for name in names), *left_out]
    ids = [*names, *(None for _ in left_out)]
    reasons = [*(None for _ in names), *("not DICOM" for _ in left_out)]
    return map_rows(root, {"path": paths, "image_id": ids, "left_out": reasons})


def known(key):
    found = read_map(key).to_pylist()
    return {(row["root"], row["image_id"], row["path"]) for row in found}


def test_folders_are_kept_apart_and_an_image_is_known_by_its_last_path(key, tmp_path):
    remember(key, rows(tmp_path / "a", "one", "two"))
    remember(key, rows(tmp_path / "b", "one"))
    moved = map_rows(tmp_path / "a", {"path": ["elsewhere.dcm"], "image_id": ["two"]})
    remember(key, moved)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert known(key) == {(a, "one", "one.dcm"), (a, "two", "elsewhere.dcm"), (b, "one", "one.dcm")}


def test_files_that_were_left_out_are_those_of_the_last_time(key, tmp_path):
    remember(key, rows(tmp_path, "one", left_out=("a.txt", "b.txt")))
    remember(key, rows(tmp_path, "one", left_out=("b.txt",)))
    assert {path for _, image_id, path in known(key) if image_id is None} == {"b.txt"}


def test_only_its_owner_may_read_it_and_nothing_new_writes_nothing(key, tmp_path):
    remember(key, rows(tmp_path, "one"))
    before = map_file(key).stat()
    assert before.st_mode & 0o777 == 0o600
    remember(key, rows(tmp_path, "one"))
    assert map_file(key).stat().st_ino == before.st_ino


def add(key, root, name):
    remember(key, rows(root, name))


def test_extractions_at_the_same_time_lose_nothing(key, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=add, args=(key, tmp_path, f"image{number}")) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert {image_id for _, image_id, _ in known(key)} == {f"image{number}" for number in range(4)}


def test_a_damaged_map_is_named(key):
    map_file(key).write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="the next extraction makes it again"):
        read_map(key)
