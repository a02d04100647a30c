"""Isolated decoding: outcomes in order, hostile files that fail alone, and nothing left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from embedstore.decoding import process
from embedstore.decoding.decode import DecodeJob, DecodeLimits, EncoderInput, SerialDecoder
from embedstore.decoding.pool import DecoderFailed, DecoderPool
from embedstore.errors import ImageRefused, Reason, UsageError
from embedstore.images.preprocess import PreprocessSpec
from embedstore.images.series_range import merge_counts, series_range
from tests.image_files import assert_refused, dataset, decoded, dicom_bytes, picture_bytes, sabotage
from tests.paths import PROJECT

SPEC = PreprocessSpec("pad", 32)
ROOT = PROJECT
linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@pytest.fixture
def pictures(tmp_path):
    """Paths of 12 different small PNGs."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path in paths:
        path.write_bytes(picture_bytes(rng.integers(0, 256, (40, 30), dtype=np.uint8)))
    return paths


@pytest.fixture
def sabotaged(monkeypatch):
    """Start decoding processes that obey `sabotage` files; nothing in the product knows of it."""
    start = process._START.replace(
        "from embedstore.decoding.worker import main", "from tests.image_files import sabotaged_main as main"
    )
    monkeypatch.setattr(process, "_START", start)


def jobs_for(paths):
    return [DecodeJob(str(path)) for path in paths]


def attempts():
    log = Path("attempts")
    return log.read_text().splitlines() if log.exists() else []


def kinds(outcomes):
    return [outcome.reason.value if isinstance(outcome, ImageRefused) else "ok" for outcome in outcomes]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert type(one) is type(other)
        if isinstance(one, ImageRefused):
            assert (one.reason, one.message) == (other.reason, other.message)
        else:
            np.testing.assert_array_equal(one.pixels, other.pixels)
            assert (one.content_sha256, one.aspect) == (other.content_sha256, other.aspect)


def test_pool_gives_what_serial_decoding_gives_in_the_same_order(tmp_path, pictures):
    (tmp_path / "bad.png").write_bytes(pictures[0].read_bytes()[:99])
    (tmp_path / "colour.png").write_bytes(
        picture_bytes(np.random.default_rng(1).integers(0, 256, (12, 9, 3), dtype=np.uint8))
    )
    (tmp_path / "file.dcm").write_bytes(dicom_bytes(dataset(np.arange(64, dtype=np.uint16).reshape(8, 8))))
    paths = [
        *pictures,
        tmp_path / "bad.png",
        tmp_path / "none.png",
        tmp_path / "colour.png",
        tmp_path / "file.dcm",
    ]
    jobs = jobs_for(paths * 3)
    serial = list(SerialDecoder(SPEC).decode(jobs))
    assert [outcome.aspect for outcome in serial[-2:]] == [0.75, 1]
    with DecoderPool(SPEC, workers=2) as pool:
        assert_same(list(pool.decode(jobs, ahead=7)), serial)
        assert_same(list(pool.decode(jobs[:3], ahead=0)), serial[:3])
        assert list(pool.decode([], ahead=3)) == []


@pytest.mark.parametrize(
    ("kind", "reason", "said"),
    [
        ("segfault", Reason.CRASHED_DECODER, "SIGSEGV"),
        ("exit", Reason.CRASHED_DECODER, "exit code 3"),
        ("hang", Reason.TIMEOUT, "longer than 1 s"),
        ("spin", Reason.TIMEOUT, "longer than 1 s"),
        ("allocate", Reason.TOO_LARGE, "memory"),
        ("nonsense", Reason.CRASHED_DECODER, "nonsense"),
    ],
)
def test_hostile_file_fails_alone_and_is_tried_once(tmp_path, pictures, sabotaged, kind, reason, said):
    hostile = tmp_path / "hostile.png"
    hostile.write_bytes(sabotage(kind))
    jobs = jobs_for([*pictures[:5], hostile, *pictures[5:]])
    with DecoderPool(SPEC, workers=2, limits=DecodeLimits(timeout_s=1)) as pool:
        outcomes = list(pool.decode(jobs, ahead=6))
    refusal = outcomes.pop(5)
    assert isinstance(refusal, ImageRefused)
    assert refusal.reason is reason
    assert said in refusal.message
    assert_same(outcomes, list(SerialDecoder(SPEC).decode(jobs_for(pictures))))
    assert attempts() == [kind]


def test_run_survives_many_hostile_files_in_a_row(tmp_path, pictures, sabotaged):
    paths = []
    for number in range(6):
        path = tmp_path / f"hostile{number}.png"
        path.write_bytes(sabotage(f"segfault {number}"))
        paths += [path, pictures[number]]
    with DecoderPool(SPEC, workers=2) as pool:
        outcomes = list(pool.decode(jobs_for(paths), ahead=12))
    assert kinds(outcomes) == ["crashed-decoder", "ok"] * 6
    assert sorted(attempts()) == [f"segfault {number}" for number in range(6)]


def test_time_limit_is_for_each_image_and_not_for_those_that_wait(tmp_path, sabotaged):
    slow = tmp_path / "slow.png"
    slow.write_bytes(sabotage("slow"))
    with DecoderPool(SPEC, workers=1, limits=DecodeLimits(timeout_s=0.6)) as pool:
        outcomes = list(pool.decode(jobs_for([slow] * 5), ahead=5))
    assert kinds(outcomes) == ["unreadable"] * 5  # no PNG after all; 5 x 0.2 s in a row is no timeout


def test_defect_of_the_program_is_raised_and_not_blamed_on_the_image(tmp_path, sabotaged, pictures):
    path = tmp_path / "defect.png"
    path.write_bytes(sabotage("defect"))
    with DecoderPool(SPEC, workers=1) as pool:
        with pytest.raises(DecoderFailed, match="a defect on purpose"):
            list(pool.decode(jobs_for([path]), ahead=1))
        assert kinds(pool.decode(jobs_for(pictures[:2]), ahead=1)) == ["ok", "ok"]


def test_processes_that_cannot_start_are_an_error_and_no_refusal(pictures):
    with (
        DecoderPool(SPEC, workers=2, limits=DecodeLimits(memory_bytes=1 << 20)) as pool,
        pytest.raises(DecoderFailed, match="memory_bytes"),
    ):
        list(pool.decode(jobs_for(pictures), ahead=2))


def test_jobs_are_pulled_no_further_ahead_than_asked(pictures):
    pulled = []

    def pulling():
        for number, path in enumerate(pictures):
            pulled.append(number)
            yield DecodeJob(str(path))

    with DecoderPool(SPEC, workers=2) as pool:
        for number, _ in enumerate(pool.decode(pulling(), ahead=3)):
            assert len(pulled) <= number + 1 + 3
    assert len(pulled) == len(pictures)


def test_error_of_the_job_source_reaches_the_consumer(pictures):
    def failing():
        yield DecodeJob(str(pictures[0]))
        raise OSError("the manifest is gone")

    with DecoderPool(SPEC, workers=1) as pool, pytest.raises(OSError, match="manifest"):
        list(pool.decode(failing(), ahead=5))


def open_files():
    return len(os.listdir("/proc/self/fd"))


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(condition, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def fail():
    raise KeyError("the encoder failed")


@linux
@pytest.mark.parametrize("ending", ["exhausted", "closed early", "consumer raises", "never started"])
def test_nothing_is_left_behind(pictures, ending):
    gc.collect()
    before, threads = open_files(), threading.active_count()
    pids = ()
    try:
        with DecoderPool(SPEC, workers=2) as pool:
            outcomes = pool.decode(jobs_for(pictures), ahead=8)
            if ending != "never started":
                next(outcomes)
                wait_until(lambda: len(pool.process_ids()) == 2, 30)
            pids = pool.process_ids()
            if ending == "exhausted":
                list(outcomes)
            elif ending == "closed early":
                outcomes.close()
            elif ending == "consumer raises":
                fail()
    except KeyError:
        pass
    del outcomes
    gc.collect()
    assert all(is_gone(pid) for pid in pids)
    assert open_files() == before
    assert threading.active_count() == threads
    for pid in pids:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # no zombie


def test_images_nobody_waits_for_are_not_decoded(tmp_path, sabotaged):
    slow = tmp_path / "slow.png"
    slow.write_bytes(sabotage("slow"))
    with DecoderPool(SPEC, workers=1) as pool:
        outcomes = pool.decode(jobs_for([slow] * 50), ahead=40)
        next(outcomes)
        outcomes.close()
        quick = tmp_path / "quick.png"
        quick.write_bytes(picture_bytes(np.zeros((3, 3), np.uint8)))
        assert kinds(pool.decode(jobs_for([quick]), ahead=0)) == ["ok"]
    assert len(attempts()) <= 5


def test_pool_works_only_inside_its_block(pictures):
    pool = DecoderPool(SPEC, workers=1)
    with pytest.raises(RuntimeError, match="with block"):
        pool.decode(jobs_for(pictures), ahead=1)
    with pool:
        outcomes = pool.decode(jobs_for(pictures), ahead=1)
        next(outcomes)
    with pytest.raises(RuntimeError, match="closed"):
        list(outcomes)
    with pool:  # and again
        assert kinds(pool.decode(jobs_for(pictures[:1]), ahead=1)) == ["ok"]


def test_ctrl_c_is_left_to_the_parent(pictures):
    with DecoderPool(SPEC, workers=2) as pool:
        outcomes = pool.decode(jobs_for(pictures), ahead=2)
        next(outcomes)
        wait_until(lambda: len(pool.process_ids()) == 2, 30)
        before = pool.process_ids()
        for pid in before:
            os.kill(pid, signal.SIGINT)
        assert kinds(outcomes) == ["ok"] * 11
        assert pool.process_ids() == before


def test_process_killed_while_idle_is_replaced(pictures):
    with DecoderPool(SPEC, workers=1) as pool:
        assert kinds(pool.decode(jobs_for(pictures[:1]), ahead=0)) == ["ok"]
        (pid,) = pool.process_ids()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pool.process_ids() not in {(pid,), ()}, 30)
        assert kinds(pool.decode(jobs_for(pictures), ahead=3)) == ["ok"] * 12


# No guard around the main script, as in a console entry point; torch is imported by the parent alone.
PARENT = """
import sys, time, torch
from embedstore.decoding.decode import DecodeJob
from embedstore.decoding.pool import DecoderPool
from embedstore.images.preprocess import PreprocessSpec
with DecoderPool(PreprocessSpec("pad", 32), workers=2) as pool:
    for outcome in pool.decode([DecodeJob(path) for path in sys.argv[1:] * 6], ahead=2):
        pass
    while len(pool.process_ids()) < 2:
        time.sleep(0.01)
    print(*pool.process_ids(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def parent(tmp_path, pictures):
    """A script that holds a pool, and the ids of its processes."""
    script = tmp_path / "main_script"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script), str(pictures[0])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as running:
        yield running, [int(pid) for pid in running.stdout.readline().split()]
        running.kill()


@linux
def test_script_without_a_guard_can_use_a_pool_and_its_processes_never_import_torch(parent):
    running, pids = parent
    assert len(pids) == 2
    for pid in pids:
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    assert "libtorch" in Path(f"/proc/{running.pid}/maps").read_text()
    running.stdin.close()
    assert running.wait(20) == 0
    assert all(is_gone(pid) for pid in pids)


def test_processes_end_when_their_parent_is_killed(parent):
    running, pids = parent
    running.send_signal(signal.SIGKILL)
    running.wait(10)
    wait_until(lambda: all(is_gone(pid) or is_zombie(pid) for pid in pids), 10)


def is_zombie(pid):
    # Where nothing reaps orphans (a bare container), a dead process keeps its entry.
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.slow
def test_stalled_process_ends_when_its_parent_is_killed(tmp_path, pictures):
    hostile = tmp_path / "hang.png"
    hostile.write_bytes(sabotage("spin"))
    script = tmp_path / "main_script"
    script.write_text(
        PARENT.replace(
            "with DecoderPool(PreprocessSpec",
            "from embedstore.decoding import process\n"
            "from embedstore.decoding.decode import DecodeLimits\n"
            "process._START = process._START.replace('from embedstore.decoding.worker import main',"
            " 'from tests.image_files import sabotaged_main as main')\n"
            "with DecoderPool(PreprocessSpec",
        )
        .replace("workers=2)", "workers=2, limits=DecodeLimits(timeout_s=4))")
        .replace("    for outcome in", "    print(*[0], flush=True)\n    for outcome in")
    )
    with subprocess.Popen(
        [sys.executable, str(script), str(hostile)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as running:  # fmt: skip
        running.stdout.readline()
        wait_until(lambda: len(attempts()) == 2, 30)
        children = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and f"PPid:\t{running.pid}\n" in (entry / "status").read_text()
        ]
        running.kill()
    assert len(children) == 2
    wait_until(lambda: all(is_gone(pid) or is_zombie(pid) for pid in children), 15)


def test_value_counts_are_the_same_from_a_pool(tmp_path):
    rng = np.random.default_rng(2)
    paths = [tmp_path / f"{number}.dcm" for number in range(4)]
    slices = [rng.integers(0, 4096, (16, 16), dtype=np.uint16) for _ in paths]
    for path, pixels in zip(paths, slices, strict=True):
        path.write_bytes(dicom_bytes(dataset(pixels, Modality="MR", RescaleSlope=2, RescaleIntercept=1)))
    with DecoderPool(SPEC, workers=2) as pool:
        counts = list(pool.count_values(jobs_for([*paths, tmp_path / "none"]), ahead=3))
    assert isinstance(counts.pop(), ImageRefused)
    expected = np.percentile(np.stack(slices) * 2.0 + 1, [1, 99])
    assert series_range(merge_counts(counts), "percentile-1-99") == pytest.approx(tuple(expected))
    serial = merge_counts(SerialDecoder(SPEC).count_values(jobs_for(paths)))
    np.testing.assert_array_equal(serial.values, merge_counts(counts).values)


def test_counts_of_all_16_bit_values_fit(tmp_path):
    path = tmp_path / "all.dcm"
    path.write_bytes(dicom_bytes(dataset(np.arange(65536, dtype=np.uint16).reshape(256, 256), Modality="MR")))
    with DecoderPool(SPEC, workers=1) as pool:
        (counts,) = pool.count_values(jobs_for([path]), ahead=0)
    assert len(counts.values) == 65536
    assert (counts.counts == 1).all()


@pytest.mark.parametrize(
    "name",
    ["with space.png", "new\nline.png", "quote'\".png", os.fsdecode(b"latin-\xff\xfe.png"), "漢字.png"],
)
def test_any_name_can_be_read_in_both_ways(tmp_path, pictures, name):
    path = str(tmp_path / name)
    os.rename(pictures[0], path)
    with DecoderPool(SPEC, workers=1) as pool:
        (outcome,) = pool.decode([DecodeJob(path)], ahead=0)
    assert isinstance(outcome, EncoderInput)
    assert_same([outcome], list(SerialDecoder(SPEC).decode([DecodeJob(path)])))


def test_what_is_not_there_is_missing(tmp_path, pictures):
    assert_refused(tmp_path / "none.png", tmp_path, Reason.MISSING, match="does not exist")
    assert_refused(tmp_path / "none" / "none.png", tmp_path, Reason.MISSING)
    assert_refused(pictures[0] / "below-a-file.png", tmp_path, Reason.MISSING)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "none.png")
    assert_refused(tmp_path / "dangling.png", tmp_path, Reason.MISSING)
    with pytest.raises(ImageRefused) as refusal:
        decoded(Path(f"{tmp_path}/nul\0.png"), tmp_path)
    assert refusal.value.reason is Reason.MISSING


def test_symlink_loop_is_unreadable(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert_refused(tmp_path / "a.png", tmp_path, Reason.UNREADABLE, match="cannot be opened")


def test_folder_and_pipe_are_unreadable_and_not_waited_for(tmp_path):
    assert_refused(tmp_path, tmp_path, Reason.UNREADABLE, match="regular file")
    os.mkfifo(tmp_path / "pipe.png")
    assert_refused(tmp_path / "pipe.png", tmp_path, Reason.UNREADABLE, match="regular file")
    assert_refused(Path("/dev/zero"), tmp_path, Reason.UNREADABLE, match="regular file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_unreadable(tmp_path, pictures):
    pictures[0].chmod(0)
    assert_refused(pictures[0], tmp_path, Reason.UNREADABLE, match="Permission denied")


def test_denied_permission_is_unreadable_even_where_root_runs_the_tests(tmp_path, pictures, monkeypatch):
    def denied(path, flags):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", denied)
    assert_refused(pictures[0], tmp_path, Reason.UNREADABLE, match="Permission denied")


def test_file_that_vanishes_during_the_run_is_missing(pictures):
    with DecoderPool(SPEC, workers=1) as pool:
        outcomes = pool.decode(jobs_for(pictures), ahead=0)
        next(outcomes)
        pictures[5].unlink()
        assert kinds(outcomes) == ["ok"] * 4 + ["missing"] + ["ok"] * 6


def test_file_beyond_the_size_limit_is_too_large(tmp_path, pictures):
    limits = DecodeLimits(file_bytes=100)
    assert_refused(pictures[0], tmp_path, Reason.TOO_LARGE, match="at most 100 bytes", limits=limits)


@pytest.mark.parametrize(
    "arguments",
    [
        {"path": "relative.png"}, {"path": "/x", "frame": -1}, {"path": "/x", "value_range": (2.0, 1.0)},
        {"path": "/x", "value_range": (0.0, float("nan"))},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_job_is_a_mistake_of_the_caller(arguments):
    with pytest.raises(UsageError, match="must be"):
        DecodeJob(**arguments)


def test_impossible_settings_are_mistakes_of_the_caller():
    with pytest.raises(UsageError, match="timeout_s"):
        DecodeLimits(timeout_s=0)
    with pytest.raises(UsageError, match="workers"):
        DecoderPool(SPEC, workers=0)
    with DecoderPool(SPEC, workers=1) as pool, pytest.raises(UsageError, match="ahead"):
        list(pool.decode([], ahead=-1))
