import hashlib
import os
import subprocess
import sys

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
from tests.paths import PROJECT


def test_canonical_json_has_one_form_only():
    assert canonical_json({"b": 1, "a": [1.5, None, "ü"]}) == '{"a":[1.5,null,"ü"],"b":1}'.encode()
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"a": float("nan")})


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_parquet_bytes_are_read_without_a_thread_that_could_outlive_python():
    # In a process of its own, because Arrow starts its threads once and keeps them. What `pq.read_table` starts
    # even when told to use none is counted beside, to show that the count would notice.
    script = (
        "import os, pyarrow as pa, pyarrow.parquet as pq\n"
        "from embedstore.files import parquet_bytes, table_of_parquet\n"
        "threads = lambda: len(os.listdir('/proc/self/task'))\n"
        "table = pa.table({'a': [1, 2, 3], 'b': ['x', None, 'z']})\n"
        "payload, before = parquet_bytes(table), threads()\n"
        "assert table_of_parquet(payload).equals(table)\n"
        "ours = threads() - before\n"
        "pq.read_table(pa.BufferReader(payload), use_threads=False, pre_buffer=False)\n"
        "print(ours, threads() - before, flush=True)\n"
        # Theirs may end the process with an abort, which is why ours starts none.
        "os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
    )
    ours, theirs = map(int, done.stdout.split())
    assert ours == 0
    assert theirs > 0


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
