import multiprocessing
import os
import socket

import pytest

from embedstore.errors import StoreBusy, StoreError
from embedstore.store.store_lock import writer_lock
from embedstore.store.writer import open_writer
from tests.stores import IDENTITY, make_store

SPAWN = multiprocessing.get_context("spawn")


def hold(path, taken, release):
    with writer_lock(path, say=print):
        taken.set()
        release.wait(30)


def hold_and_die(path):
    with writer_lock(path, say=print):
        os._exit(9)


def test_a_second_writer_is_told_who_holds_the_store_and_since_when(tmp_path):
    taken, release = SPAWN.Event(), SPAWN.Event()
    owner = SPAWN.Process(target=hold, args=(tmp_path / "writer.lock", taken, release))
    owner.start()
    assert taken.wait(30)
    message = f"host {socket.gethostname()}, pid {owner.pid}, since 20"
    with pytest.raises(StoreBusy, match=message), writer_lock(tmp_path / "writer.lock", say=print):
        pass
    release.set()
    owner.join(30)
    said = []
    with writer_lock(tmp_path / "writer.lock", say=said.append) as lock:
        assert not lock.taken_over
    assert said == []


def test_the_lock_of_a_dead_owner_is_taken_over_with_a_message(tmp_path):
    owner = SPAWN.Process(target=hold_and_die, args=(tmp_path / "writer.lock",))
    owner.start()
    owner.join(30)
    said = []
    with writer_lock(tmp_path / "writer.lock", say=said.append) as lock:
        assert lock.taken_over
    assert f"pid {owner.pid}" in said[0]
    assert "taking over" in said[0]


def test_a_lock_file_with_nonsense_in_it_is_taken_over(tmp_path):
    (tmp_path / "writer.lock").write_text("not json")
    said = []
    with writer_lock(tmp_path / "writer.lock", say=said.append):
        pass
    assert "unreadable" in said[0]


def test_leftovers_of_a_dead_writer_are_removed(tmp_path):
    make_store(tmp_path / "s")
    leftover = tmp_path / "s" / "parts" / "0000" / "vectors" / "c" / "0" / "0.tmp"
    leftover.write_bytes(b"half")
    with open_writer(tmp_path / "s", IDENTITY, say=print):
        assert leftover.exists()
    (tmp_path / "s" / "writer.lock").write_text('{"host": "h", "pid": 1, "since": "then"}')
    with open_writer(tmp_path / "s", IDENTITY, say=lambda line: None):
        assert not leftover.exists()


def write_as_nobody(path, outcome):
    os.setuid(65_534)
    try:
        with open_writer(path, IDENTITY, say=print):
            outcome.put("written")
    except StoreError as error:
        outcome.put(str(error))


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user without rights")
def test_a_read_only_store_is_refused_in_one_line(tmp_path, monkeypatch):
    root = tmp_path / "s"
    make_store(root)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder.as_posix().startswith("/tmp/"):
            folder.chmod(0o755)
    fork = multiprocessing.get_context("fork")
    outcome = fork.Queue()
    process = fork.Process(target=write_as_nobody, args=(root, outcome))
    process.start()
    process.join(30)
    assert "is read-only for this user (Permission denied)" in outcome.get(timeout=5)
