"""One process per device: the shares add up to the store of one process, and a lost device costs one chunk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from cli.main import run
from embedstore.compute_device import DeviceLost
from embedstore.errors import StoreBusy, UsageError
from embedstore.extraction.extract import Choose, Extraction, ExtractOptions, Observer, Progress, extract
from embedstore.extraction.on_devices import (
    OnDevices,
    WorkerFailed,
    _ignore_stop_signals,
    device_names,
)
from embedstore.extraction.shard import Shard
from embedstore.phantoms.mura import write_phantom_mura
from embedstore.store.reader import open_store
from embedstore.store.verify import verify_store
from embedstore.store.writer import join_writers
from tests.paths import PROJECT
from tests.pictures import collection_of, expected_vectors, write_pictures
from tests.stores import TOKEN_IDENTITY, TokenEncoder, store_bytes

OPTIONS = ExtractOptions(chunk_rows=2, batch_size=2, workers=2)
TWO = OnDevices(("cpu", "cpu"))
COMMAND = "import sys; from cli.main import run; sys.exit(run(sys.argv[1:]))"


class LosingEncoder(TokenEncoder):
    """Loses its device at the picture whose first pixel is `fatal`."""

    def __init__(self, *, fatal, device="auto", how="lost"):
        super().__init__(device=device)
        self.fatal = fatal
        self.how = how

    def encode(self, pixels):
        if (pixels[:, 0, 0] == self.fatal).any():
            if self.how == "killed":
                os._exit(9)
            raise DeviceLost("device cuda:1 stopped answering (unspecified launch failure). Run it again")
        return super().encode(pixels)


class SlowEncoder(TokenEncoder):
    def encode(self, pixels):
        time.sleep(0.2)
        return super().encode(pixels)


def extract_on_two(collection, store, build, *, options, observer=None, choose=Choose.NEW):
    extraction = Extraction(collection, store, build, options, observer or Observer())
    return extraction.run(choose=choose, executor=TWO)


def ignoring():
    """Begin as a device's process does, and end with a code of its own."""
    _ignore_stop_signals()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    sys.exit(7)


@pytest.fixture
def pictures(tmp_path):
    write_pictures(tmp_path / "images", range(18))
    extract(collection_of(tmp_path / "images", 18), tmp_path / "reference", TokenEncoder(), options=OPTIONS)
    return tmp_path / "images"


def test_two_devices_make_the_store_of_one_and_their_progress_adds_up(pictures, tmp_path):
    states: list[Progress] = []
    summary = extract_on_two(
        collection_of(pictures, 18),
        tmp_path / "s",
        TokenEncoder,
        options=OPTIONS,
        observer=Observer(progress=states.append),
    )
    assert (summary.valid, summary.computed, summary.pending, summary.interrupted) == (18, 18, 0, False)
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")
    assert len(states) == 9
    assert {state.total for state in states} == {18}
    assert (states[-1].done, states[-1].total, states[-1].chunks_done) == (18, 18, 9)


def test_a_finished_store_starts_no_process(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("multiprocessing.get_context", None)
    summary = extract_on_two(
        collection_of(pictures, 18), tmp_path / "reference", TokenEncoder, options=OPTIONS
    )
    assert (summary.valid, summary.computed) == (18, 0)


def test_devices_divide_a_shard_among_them(pictures, tmp_path):
    options = replace(OPTIONS, shard=Shard(2, 2))
    summary = extract_on_two(collection_of(pictures, 18), tmp_path / "s", TokenEncoder, options=options)
    assert sorted(open_store(tmp_path / "s").parts[0].receipts) == [1, 3, 5, 7]
    assert (summary.images, summary.computed) == (8, 8)
    extract(
        collection_of(pictures, 18),
        tmp_path / "s",
        TokenEncoder(),
        options=replace(OPTIONS, shard=Shard(1, 2)),
    )
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


def test_retrying_on_two_devices_leads_to_the_reference(pictures, tmp_path):
    payload = (pictures / "image3.png").read_bytes()
    (pictures / "image3.png").unlink()
    extract_on_two(collection_of(pictures, 18), tmp_path / "s", TokenEncoder, options=OPTIONS)
    (pictures / "image3.png").write_bytes(payload)
    summary = extract_on_two(
        collection_of(pictures, 18),
        tmp_path / "s",
        TokenEncoder,
        options=OPTIONS,
        choose=Choose.NEW_OR_FAILED,
    )
    assert summary.computed == 1
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("lost", DeviceLost, "device cuda:1 stopped answering"),
        (
            "killed",
            WorkerFailed,
            "the process of device cpu ended with exit code 9. Its current chunk is abandoned",
        ),
    ],
)
def test_a_lost_device_costs_its_chunk_and_the_same_command_continues(
    pictures, tmp_path, how, error, message
):
    # Picture 6 opens chunk 3, the second one of the second device.
    fatal = int(expected_vectors(18)[6, 1])
    others = np.delete(expected_vectors(18)[:, 1], 6)
    assert fatal not in others
    said: list[str] = []
    with pytest.raises(error, match=message):
        extract_on_two(
            collection_of(pictures, 18),
            tmp_path / "s",
            partial(LosingEncoder, fatal=fatal, how=how),
            options=OPTIONS,
            observer=Observer(say=said.append),
        )
    assert len([line for line in said if message in line]) == 1
    store = open_store(tmp_path / "s")
    # The first device has finished its share all the same.
    assert {0, 2, 4, 6, 8} <= set(store.parts[0].receipts)
    assert 3 not in store.parts[0].receipts
    assert verify_store(tmp_path / "s").findings == ()
    extract_on_two(collection_of(pictures, 18), tmp_path / "s", TokenEncoder, options=OPTIONS)
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


def test_a_lost_device_of_one_ends_in_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    write_phantom_mura(tmp_path, patients=4, seed=3)
    arguments = [
        "extract",
        "--dataset",
        "mura",
        "--root",
        "MURA-v1.1",
        "--store",
        "s.store",
        "--chunk-rows",
        "2",
    ]

    def lose(self, pixels):
        raise DeviceLost("device cuda:0 stopped answering (ECC error). The current chunk is abandoned")

    with monkeypatch.context() as patch:
        patch.setattr("embedstore.encoders.hog.HogEncoder.encode", lose)
        assert run(arguments) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if line.startswith("Error")] == [
        "Error: device cuda:0 stopped answering (ECC error). The current chunk is abandoned"
    ]
    assert run(arguments) == 0


def test_the_command_runs_two_processes_and_says_what_it_did(tmp_path, capsys):
    write_phantom_mura(tmp_path, patients=4, seed=3)
    arguments = ["extract", "--dataset", "mura", "--root", "MURA-v1.1", "--chunk-rows", "2"]
    assert run([*arguments, "--store", "reference.store"]) == 0
    assert run([*arguments, "--store", "s.store", "--device", "cpu,cpu"]) == 0
    assert store_bytes(tmp_path / "s.store") == store_bytes(tmp_path / "reference.store")
    for number in (1, 2):
        assert run([*arguments, "--store", "t.store", "--shard", f"{number}/2"]) == 0
    assert store_bytes(tmp_path / "t.store") == store_bytes(tmp_path / "reference.store")
    capsys.readouterr()
    assert run([*arguments, "--store", "t.store", "--shard", "3/2"]) == 2
    assert "--shard must be i/n with 1 <= i <= n; found 3/2" in capsys.readouterr().err


def test_asking_to_stop_reaches_every_process(pictures, tmp_path):
    states: list[Progress] = []
    summary = extract_on_two(
        collection_of(pictures, 18),
        tmp_path / "s",
        SlowEncoder,
        options=OPTIONS,
        observer=Observer(progress=states.append, stopping=lambda: bool(states)),
    )
    assert summary.interrupted
    assert 0 < summary.valid < 18
    assert list((tmp_path / "s" / "workers").iterdir()) == []
    extract_on_two(collection_of(pictures, 18), tmp_path / "s", TokenEncoder, options=OPTIONS)
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [False, True], ids=["the parent", "the whole group"])
def test_sigterm_ends_the_command_in_good_order_and_it_can_be_continued(tmp_path, to_all):
    write_phantom_mura(tmp_path, patients=30, seed=3)
    arguments = ["extract", "--dataset", "mura", "--root", "MURA-v1.1", "--chunk-rows", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments, "--store", "s.store", "--device", "cpu,cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        process_group=0,
    )
    receipts = tmp_path / "s.store" / "parts" / "0000" / "receipts"
    while process.poll() is None and not list(receipts.glob("*.json")):
        time.sleep(0.01)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command to continue" in output
    assert "stopping: the current chunk is abandoned" in errors
    assert not any(word in errors for word in ("Error", "exit code", "Traceback", "terminate"))
    assert list((tmp_path / "s.store" / "workers").iterdir()) == []
    assert run([*arguments, "--store", "reference.store"]) == 0
    assert run([*arguments, "--store", "s.store"]) == 0
    assert store_bytes(tmp_path / "s.store") == store_bytes(tmp_path / "reference.store")


@pytest.mark.parametrize("after_s", [0.2, 1.0])
def test_a_process_that_has_just_begun_does_not_die_of_the_groups_sigterm(tmp_path, after_s):
    # It imports for a second before it can say that it ignores the signal.
    script = (
        "import multiprocessing, os, signal, sys, time\n"
        "from embedstore.extraction.on_devices import _stop_signals_blocked\n"
        "from tests.embedstore.extraction.test_on_devices import ignoring\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    context.Event()  # starts the tracker, as in a run\n"
        "    process = context.Process(target=ignoring)\n"
        "    with _stop_signals_blocked():\n"
        "        process.start()\n"
        "    time.sleep(float(sys.argv[1]))\n"
        "    os.killpg(0, signal.SIGTERM)\n"
        "    process.join()\n"
        "    print(process.exitcode, signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
    )
    (tmp_path / "run.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "run.py", str(after_s)],
        capture_output=True,
        text=True,
        check=True,
        process_group=0,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    assert done.stdout == "7 set()\n"


def test_a_second_run_on_devices_is_refused(pictures, tmp_path):
    options = replace(OPTIONS, limit=10)
    extract(collection_of(pictures, 18), tmp_path / "s", TokenEncoder(), options=options)
    store = tmp_path / "s"
    (store / "parts" / "0000" / "receipts" / "000001.json").unlink()
    with (
        join_writers(store, TOKEN_IDENTITY, worker="shard-1-of-1", say=print),
        pytest.raises(StoreBusy, match="shard-1-of-1"),
    ):
        extract_on_two(collection_of(pictures, 18), store, TokenEncoder, options=options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuda:0,", "with commas between"),
        ("cuda:0,cuda:0", "names cuda:0 twice"),
        ("auto,cpu", "'auto' is one device"),
    ],
)
def test_wrong_device_lists_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        device_names(text)


def test_device_lists_are_split_and_all_means_every_cuda_device(monkeypatch):
    assert device_names("cuda:0, cuda:1") == ("cuda:0", "cuda:1")
    assert device_names("auto") == ("auto",)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert device_names("all") == ("cuda:0", "cuda:1", "cuda:2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="torch sees none"):
        device_names("all")
