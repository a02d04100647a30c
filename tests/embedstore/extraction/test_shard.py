"""Many processes, one store: shards end in the bytes of a single process, and locks let nobody collide."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from dataclasses import replace

import pytest

from embedstore.errors import StoreBusy, UsageError
from embedstore.extraction.extract import Choose, ExtractOptions, Observer, extract
from embedstore.extraction.plan import ensure_planned
from embedstore.extraction.shard import Shard, parse_shard
from embedstore.store import commit, documents
from embedstore.store.commit import ChunkWriter
from embedstore.store.reader import open_store
from embedstore.store.repair import repair_store
from embedstore.store.store_lock import PLANNING, writer_lock
from embedstore.store.verify import verify_store
from embedstore.store.writer import clean_up_after_workers, join_writers, open_writer
from tests.crash_driver import PICTURES, SlowEncoder, crash_collection
from tests.pictures import write_pictures
from tests.stores import TOKEN_IDENTITY, TokenEncoder, known_result, make_store, store_bytes

SPAWN = multiprocessing.get_context("spawn")
OPTIONS = ExtractOptions(chunk_rows=2, batch_size=2, workers=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, and the store that one process makes of them."""
    path = tmp_path_factory.mktemp("shard")
    write_pictures(path / "images", range(PICTURES))
    extract(crash_collection(path / "images"), path / "reference", TokenEncoder(), options=OPTIONS)
    return path


def do_shard(pictures, store, number, count, failpoint=""):
    if failpoint:
        os.environ["EMBEDSTORE_FAILPOINT"] = failpoint
    options = replace(OPTIONS, shard=Shard(number, count))
    extract(crash_collection(pictures), store, SlowEncoder(), options=options)


def hold_worker(store, name, taken, release):
    with join_writers(store, TOKEN_IDENTITY, worker=name, say=print):
        taken.set()
        release.wait(30)


def test_shards_hold_every_chunk_once():
    for count in (1, 2, 3, 7):
        held = [
            chunk
            for number in range(1, count + 1)
            for chunk in range(20)
            if Shard(number, count).holds(chunk)
        ]
        assert sorted(held) == list(range(20))


def test_a_split_shard_holds_what_the_whole_one_did():
    parts = Shard(2, 3).split(4)
    held = [chunk for part in parts for chunk in range(100) if part.holds(chunk)]
    assert sorted(held) == [chunk for chunk in range(100) if Shard(2, 3).holds(chunk)]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", ""])
def test_a_wrong_shard_is_refused_with_what_it_must_be(text):
    with pytest.raises(UsageError, match=r"`shard` must be i/n with 1 <= i <= n"):
        parse_shard(text)
    assert parse_shard("2/8") == Shard(2, 8)


def test_shards_at_once_from_nothing_make_the_store_of_one_process(folder, tmp_path):
    processes = [
        SPAWN.Process(target=do_shard, args=(folder / "images", tmp_path / "s", number, 3))
        for number in (1, 2, 3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert store_bytes(tmp_path / "s") == store_bytes(folder / "reference")
    assert len(open_store(tmp_path / "s").parts) == 1


def test_overlapping_shards_at_once_are_harmless(folder, tmp_path):
    processes = [
        SPAWN.Process(target=do_shard, args=(folder / "images", tmp_path / "s", *shard))
        for shard in ((1, 2), (2, 2), (1, 1))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert verify_store(tmp_path / "s").findings == ()
    assert store_bytes(tmp_path / "s") == store_bytes(folder / "reference")


def test_a_shard_counts_its_own_images_only(folder, tmp_path):
    options = replace(OPTIONS, shard=Shard(2, 3))
    summary = extract(crash_collection(folder / "images"), tmp_path / "s", TokenEncoder(), options=options)
    # Of the ten chunks of two rows, chunks 1, 4 and 7 leave 1 when divided by 3.
    assert (summary.images, summary.valid, summary.computed, summary.pending) == (6, 6, 6, 0)
    assert sorted(open_store(tmp_path / "s").parts[0].receipts) == [1, 4, 7]
    again = TokenEncoder()
    summary = extract(crash_collection(folder / "images"), tmp_path / "s", again, options=options)
    assert (summary.computed, again.loads) == (0, 0)


def test_a_shard_retries_only_its_own_failures(folder, tmp_path):
    pictures = tmp_path / "images"
    write_pictures(pictures, range(PICTURES))
    payloads = {name: (pictures / name).read_bytes() for name in ("image0.png", "image2.png")}
    for name in payloads:
        (pictures / name).unlink()
    extract(crash_collection(pictures), tmp_path / "s", TokenEncoder(), options=OPTIONS)
    for name, payload in payloads.items():
        (pictures / name).write_bytes(payload)
    options = replace(OPTIONS, shard=Shard(2, 2))
    summary = extract(
        crash_collection(pictures),
        tmp_path / "s",
        TokenEncoder(),
        options=options,
        choose=Choose.NEW_OR_FAILED,
    )
    assert summary.computed == 1
    assert [failure.row for failure in open_store(tmp_path / "s").failures] == [0]


@pytest.mark.parametrize("failpoint", ["vectors.written:2", "content.fsynced:2", "receipt.renamed:2"])
def test_a_dead_shard_frees_its_lock_and_its_leftovers_go_with_the_last_worker(folder, tmp_path, failpoint):
    store = tmp_path / "s"
    first = SPAWN.Process(target=do_shard, args=(folder / "images", store, 1, 2, failpoint))
    first.start()
    first.join(60)
    assert first.exitcode == 86
    assert [path.name for path in (store / "workers").iterdir()] == ["shard-1-of-2.lock"]
    said = []
    for number in (2, 1):
        options = replace(OPTIONS, shard=Shard(number, 2))
        extract(
            crash_collection(folder / "images"),
            store,
            TokenEncoder(),
            options=options,
            observer=Observer(say=said.append),
        )
    assert f"pid {first.pid}" in said[0]
    assert store_bytes(store) == store_bytes(folder / "reference")


def test_a_second_process_of_the_same_shard_is_refused_and_another_shard_is_not(tmp_path):
    make_store(tmp_path / "s", identity=TOKEN_IDENTITY)
    with join_writers(tmp_path / "s", TOKEN_IDENTITY, worker="shard-1-of-2", say=print):
        with (
            pytest.raises(
                StoreBusy, match=rf"shard-1-of-2 \(host .*, pid {os.getpid()}, since 20.*at work already"
            ),
            join_writers(tmp_path / "s", TOKEN_IDENTITY, worker="shard-1-of-2", say=print),
        ):
            pass
        with join_writers(tmp_path / "s", TOKEN_IDENTITY, worker="shard-2-of-2", say=print):
            pass
    assert list((tmp_path / "s" / "workers").iterdir()) == []


def test_exclusive_commands_are_told_which_workers_hold_the_store(tmp_path):
    make_store(tmp_path / "s", identity=TOKEN_IDENTITY)
    taken, release = SPAWN.Event(), SPAWN.Event()
    worker = SPAWN.Process(target=hold_worker, args=(tmp_path / "s", "shard-1-of-2", taken, release))
    worker.start()
    assert taken.wait(30)
    message = rf"is being written by shard-1-of-2 \(host .*, pid {worker.pid}, since 20"
    with pytest.raises(StoreBusy, match=message):
        repair_store(tmp_path / "s", say=print)
    with pytest.raises(StoreBusy, match=message), open_writer(tmp_path / "s", TOKEN_IDENTITY, say=print):
        pass
    release.set()
    worker.join(30)
    with open_writer(tmp_path / "s", TOKEN_IDENTITY, say=print):
        pass


def test_a_living_workers_temporary_files_are_left_alone(tmp_path):
    make_store(tmp_path / "s", identity=TOKEN_IDENTITY)
    (tmp_path / "s" / "workers").mkdir()
    (tmp_path / "s" / "workers" / "shard-9-of-9.lock").write_text("left by a dead one")
    temporary = tmp_path / "s" / "parts" / "0000" / "vectors" / "c" / "0" / "0.abcd.tmp"
    temporary.write_bytes(b"half")
    with join_writers(tmp_path / "s", TOKEN_IDENTITY, worker="shard-1-of-2", say=print):
        with join_writers(tmp_path / "s", TOKEN_IDENTITY, worker="shard-2-of-2", say=print):
            pass
        clean_up_after_workers(tmp_path / "s", say=print)
        assert temporary.exists()
    assert not temporary.exists()
    assert not (tmp_path / "s" / "workers").exists()


def test_a_worker_waits_for_a_planner_and_says_so(folder, tmp_path):
    store = tmp_path / "s"
    make_store(store, identity=TOKEN_IDENTITY)
    taken, release, said = SPAWN.Event(), SPAWN.Event(), []
    planner = SPAWN.Process(target=plan_slowly, args=(store, taken, release))
    planner.start()
    assert taken.wait(30)

    def say(line):
        said.append(line)
        release.set()

    with join_writers(store, TOKEN_IDENTITY, worker="shard-1-of-2", say=say):
        pass
    planner.join(30)
    assert len(said) == 1
    assert "is being planned by another process (host" in said[0]
    assert f"pid {planner.pid}" in said[0]


def plan_slowly(store, taken, release):
    with open_writer(store, TOKEN_IDENTITY, say=print, purpose=PLANNING):
        taken.set()
        release.wait(30)


def test_waiting_for_a_planner_is_bounded(folder, tmp_path):
    (tmp_path / "s").mkdir()
    collection = crash_collection(folder / "images")
    with writer_lock(tmp_path / "s" / "writer.lock", say=print, purpose=PLANNING):
        started = time.monotonic()
        with pytest.raises(StoreBusy, match="is being planned"):
            ensure_planned(
                tmp_path / "s",
                TOKEN_IDENTITY,
                collection,
                collection.manifest,
                OPTIONS,
                say=print,
                wait_s=0.3,
            )
        assert time.monotonic() - started < 10


def test_a_shard_beside_a_plain_extraction_is_refused_at_once(folder, tmp_path):
    with (
        open_writer(tmp_path / "s", TOKEN_IDENTITY, say=print),
        pytest.raises(StoreBusy, match=f"pid {os.getpid()}"),
    ):
        extract(
            crash_collection(folder / "images"),
            tmp_path / "s",
            TokenEncoder(),
            options=replace(OPTIONS, shard=Shard(1, 2)),
        )


def test_two_commits_of_a_chunk_in_any_interleaving_leave_the_bytes_of_one(tmp_path, monkeypatch):
    """Every order in which two workers can rename their chunks and receipt ends alike."""
    plan = make_store(tmp_path / "reference", rows=4, chunk_rows=4, identity=TOKEN_IDENTITY)
    result = known_result(TOKEN_IDENTITY, 0, 4)
    wanted = store_bytes(tmp_path / "reference")
    for number, order in enumerate(sorted(set(itertools.permutations("AAAABBBB")))):
        root = tmp_path / f"s{number}"
        make_store(root, rows=4, chunk_rows=4, chunks=(), identity=TOKEN_IDENTITY)
        workers = {name: commit_in_steps(root, plan, result, monkeypatch) for name in "AB"}
        for name in order:
            next(workers[name])
            store = open_store(root)
            assert verify_store(root).findings == ()
            assert all(len(part.read_chunk(0)) == 4 for part in store.parts if 0 in part.receipts)
        assert store_bytes(root) == wanted


def commit_in_steps(root, plan, result, monkeypatch):
    """Record the writes of one commit, and do one at each step, each under a temporary name of its own."""
    writes = []

    def record(path, payload, *, label):
        writes.append((path, bytes(payload), label))

    with monkeypatch.context() as patch:
        patch.setattr(commit, "write_durable", record)
        patch.setattr(documents, "write_durable", record)
        ChunkWriter(root, TOKEN_IDENTITY).commit(plan, 0, result)
    assert [label for _, _, label in writes] == ["vectors", "further", "content", "receipt"]
    return (_write(*entry) for entry in writes)


def _write(path, payload, label):
    from embedstore.files import write_durable

    write_durable(path, payload, label=label)
