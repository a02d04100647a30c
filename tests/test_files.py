import hashlib
import os

import pytest

from embedstore.files import (
    FAILPOINT_EXIT_CODE,
    canonical_json,
    failpoint_names,
    make_folder_durable,
    remove_temporaries,
    sha256_bytes,
    sha256_file,
    write_durable,
)


def test_canonical_json_has_one_form_only():
    assert canonical_json({"b": 1, "a": [1.5, None, "ü"]}) == '{"a":[1.5,null,"ü"],"b":1}'.encode()
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"a": float("nan")})


def test_digests_are_those_of_hashlib(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    assert sha256_file(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert sha256_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_durable_write_replaces_the_whole_file_and_leaves_no_temporary(tmp_path):
    path = tmp_path / "file"
    write_durable(path, b"a longer old content", label="test")
    write_durable(path, b"new", label="test")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failing_write_keeps_the_old_content_and_leaves_no_temporary(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_durable(path, b"old", label="test")
    monkeypatch.setenv("EMBEDSTORE_FAILPOINT", "test.written=ENOSPC")
    with pytest.raises(OSError, match="No space left"):
        write_durable(path, b"new", label="test")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", failpoint_names("test"))
def test_every_failpoint_of_a_write_stops_the_process_and_leaves_old_or_new_bytes(
    tmp_path, monkeypatch, name
):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setenv("EMBEDSTORE_FAILPOINT", name)
    child = os.fork()
    if child == 0:
        write_durable(path, b"new", label="test")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == FAILPOINT_EXIT_CODE
    renamed = name in ("test.renamed", "test.durable")
    assert path.read_bytes() == (b"new" if renamed else b"old")
    remove_temporaries(tmp_path)
    assert os.listdir(tmp_path) == ["file"]


def test_folders_are_made_with_all_their_parents(tmp_path):
    make_folder_durable(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    make_folder_durable(tmp_path / "a" / "b" / "c")
