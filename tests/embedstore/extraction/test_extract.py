import hashlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import IdentityMismatch, StoreBusy
from embedstore.extraction.extract import Choose, ExtractOptions, Observer, Progress, extract
from embedstore.extraction.shard import Shard
from embedstore.store.commit import ChunkResult
from embedstore.store.reader import FAILED, VALID, open_store
from embedstore.store.verify import verify_store
from embedstore.store.writer import open_writer
from embedstore.view import Source
from tests.paths import PROJECT
from tests.pictures import collection_of, expected_tokens, expected_vectors, pixels_of, write_pictures
from tests.stores import IDENTITY, TOKEN_IDENTITY, MeanEncoder, TokenEncoder, manifest_of, store_bytes

OPTIONS = ExtractOptions(chunk_rows=4, batch_size=3, workers=2)


@pytest.fixture
def pictures(tmp_path):
    write_pictures(tmp_path / "images", range(18))
    return tmp_path / "images"


def test_every_image_gets_the_vector_worked_out_by_hand(pictures, tmp_path):
    summary = extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    store = open_store(tmp_path / "s")
    assert (summary.images, summary.valid, summary.pending, summary.failed) == (18, 18, 0, {})
    np.testing.assert_array_equal(store.embeddings().vectors, expected_vectors(18).astype(np.float16))
    assert verify_store(tmp_path / "s").findings == ()


def test_the_content_digest_is_that_of_dtype_shape_and_pixels(pictures, tmp_path):
    extract(collection_of(pictures, 2), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    digest = hashlib.sha256(b"|u1" + b"(8, 8)" + pixels_of(1).tobytes()).digest()
    assert open_store(tmp_path / "s").content_sha256()[1].tobytes() == digest


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 64}, {"workers": 1}, {"workers": 5}])
def test_batch_size_and_worker_count_change_no_byte(pictures, tmp_path, options):
    extract(collection_of(pictures, 18), tmp_path / "reference", MeanEncoder(), options=OPTIONS)
    extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=replace(OPTIONS, **options))
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


def test_a_store_knows_the_folder_of_its_images_and_whether_it_is_a_phantom(pictures, tmp_path):
    extract(collection_of(pictures, 2), tmp_path / "a", MeanEncoder(), options=OPTIONS)
    (pictures / "PHANTOM.txt").write_text("drawn")
    extract(collection_of(pictures, 2), tmp_path / "b", MeanEncoder(), options=OPTIONS)
    assert open_store(tmp_path / "a").sources == (Source("a", "test", "images", phantom=False),)
    assert open_store(tmp_path / "b").sources == (Source("b", "test", "images", phantom=True),)


def test_the_same_command_twice_changes_no_byte_and_loads_no_encoder(pictures, tmp_path):
    extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in (tmp_path / "s").rglob("*")
        if path.is_file()
    }
    encoder = MeanEncoder()
    summary = extract(collection_of(pictures, 18), tmp_path / "s", encoder, options=OPTIONS)
    after = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in (tmp_path / "s").rglob("*")
        if path.is_file()
    }
    assert after == before
    assert (summary.computed, encoder.loads) == (0, 0)


@pytest.fixture(scope="module")
def opened():
    """Return a list that gets the path of every file that is opened from now on, in whatever way."""
    paths: list[str] = []
    # A hook stays for the rest of the process, so it is told when nobody listens any more.
    listening = [True]

    def note(event, arguments):
        if listening and event == "open" and isinstance(arguments[0], str | os.PathLike):
            paths.append(os.fspath(arguments[0]))

    sys.addaudithook(note)
    yield paths
    listening.clear()


def receipts_read(opened, extract_once):
    """Return how many receipts an extraction reads; those that it writes have another name at first."""
    opened.clear()
    extract_once()
    return sum(Path(path).parent.name == "receipts" and path.endswith(".json") for path in opened)


@pytest.mark.parametrize("shard", [None, Shard(1, 1)])
def test_a_store_is_opened_once_and_again_under_the_lock_if_there_is_work(pictures, tmp_path, opened, shard):
    options = replace(OPTIONS, shard=shard)

    def once():
        extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=options)

    # Five chunks. Receipts of the run itself are not read back to sum it up.
    assert receipts_read(opened, once) == 0
    assert receipts_read(opened, once) == 5
    (tmp_path / "s" / "parts" / "0000" / "receipts" / "000002.json").unlink()
    assert receipts_read(opened, once) == 2 * 4


def test_the_summary_of_a_resumed_run_is_that_of_the_store_on_disk(pictures, tmp_path):
    kept = (pictures / "image3.png").read_bytes()
    for number in (3, 9):
        (pictures / f"image{number}.png").unlink()
    states: list[Progress] = []
    observer = Observer(progress=states.append, stopping=lambda: len(states) >= 2)
    extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS, observer=observer)
    (pictures / "image3.png").write_bytes(kept)
    summary = extract(
        replace(collection_of(pictures, 18), root=str(pictures)),
        str(tmp_path / "s"),
        MeanEncoder(),
        options=OPTIONS,
        choose=Choose.NEW_OR_FAILED,
    )
    status = open_store(tmp_path / "s").status
    assert (summary.images, summary.valid, summary.pending) == (18, 17, 0)
    assert (status == VALID).sum() == 17
    assert status[9] == FAILED
    assert summary.failed == {"missing": 1}


def test_new_images_become_a_new_part_and_known_ones_are_skipped(pictures, tmp_path):
    extract(collection_of(pictures, 10), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    summary = extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    store = open_store(tmp_path / "s")
    assert [part.plan.rows for part in store.parts] == [10, 8]
    assert summary.computed == 8
    np.testing.assert_array_equal(store.embeddings().vectors, expected_vectors(18).astype(np.float16))


def test_limit_plans_the_first_images_and_the_next_call_the_rest(pictures, tmp_path):
    first = extract(
        collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=replace(OPTIONS, limit=5)
    )
    assert (first.images, first.valid) == (5, 5)
    extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    assert [part.plan.rows for part in open_store(tmp_path / "s").parts] == [5, 13]


def test_a_bad_image_fails_alone_with_its_reason(pictures, tmp_path):
    (pictures / "image3.png").unlink()
    (pictures / "image7.png").write_bytes(b"")
    (pictures / "image8.png").write_bytes((pictures / "image8.png").read_bytes()[:60])
    (pictures / "image9.png").write_text("this is no picture")
    summary = extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    store = open_store(tmp_path / "s")
    assert summary.failed == {"missing": 1, "no-pixels": 1, "unreadable": 2}
    assert summary.failed_share == pytest.approx(4 / 18)
    assert [failure.row for failure in store.failures] == [3, 7, 8, 9]
    expected = np.delete(expected_vectors(18), [3, 7, 8, 9], axis=0).astype(np.float16)
    np.testing.assert_array_equal(store.embeddings().vectors, expected)


def test_retrying_computes_only_the_failed_rows_and_leads_to_the_reference(pictures, tmp_path):
    extract(collection_of(pictures, 18), tmp_path / "reference", MeanEncoder(), options=OPTIONS)
    kept = {name: (pictures / name).read_bytes() for name in ("image3.png", "image9.png")}
    for name in kept:
        (pictures / name).unlink()
    extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    assert extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS).computed == 0
    (pictures / "image3.png").write_bytes(kept["image3.png"])
    summary = extract(
        collection_of(pictures, 18),
        tmp_path / "s",
        MeanEncoder(),
        options=OPTIONS,
        choose=Choose.NEW_OR_FAILED,
    )
    assert (summary.computed, summary.failed) == (2, {"missing": 1})
    (pictures / "image9.png").write_bytes(kept["image9.png"])
    summary = extract(
        collection_of(pictures, 18),
        tmp_path / "s",
        MeanEncoder(),
        options=OPTIONS,
        choose=Choose.NEW_OR_FAILED,
    )
    assert (summary.computed, summary.failed) == (1, {})
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


def test_tokens_are_kept_beside_the_vectors_and_retried_with_them(pictures, tmp_path):
    extract(collection_of(pictures, 18), tmp_path / "reference", TokenEncoder(), options=OPTIONS)
    store = open_store(tmp_path / "reference")
    np.testing.assert_array_equal(store.embeddings().vectors, expected_vectors(18).astype(np.float16))
    np.testing.assert_array_equal(store.array("tokens").all().values, expected_tokens(18).astype(np.float16))
    kept = (pictures / "image3.png").read_bytes()
    (pictures / "image3.png").unlink()
    extract(collection_of(pictures, 18), tmp_path / "s", TokenEncoder(), options=OPTIONS)
    rows = open_store(tmp_path / "s").array("tokens").all().rows
    np.testing.assert_array_equal(rows, np.delete(np.arange(18), 3))
    (pictures / "image3.png").write_bytes(kept)
    summary = extract(
        collection_of(pictures, 18),
        tmp_path / "s",
        TokenEncoder(),
        options=OPTIONS,
        choose=Choose.NEW_OR_FAILED,
    )
    assert summary.computed == 1
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


def test_a_store_with_tokens_and_one_without_are_of_two_identities(pictures, tmp_path):
    class Plain(TokenEncoder):
        identity = replace(TOKEN_IDENTITY, arrays={})

    extract(collection_of(pictures, 4), tmp_path / "s", TokenEncoder(), options=OPTIONS)
    with pytest.raises(IdentityMismatch, match=r"arrays\.tokens\.row_shape: \[2, 3\] there, None asked"):
        extract(collection_of(pictures, 4), tmp_path / "s", Plain(), options=OPTIONS)


class NanEncoder(MeanEncoder):
    """Returns NaN for pictures whose mean is above 130."""

    def encode(self, pixels):
        vectors = super().encode(pixels)
        vectors[vectors[:, 0] > 130] = np.nan
        return vectors


def test_a_vector_that_is_not_finite_is_a_failure_with_its_image(pictures, tmp_path):
    extract(collection_of(pictures, 18), tmp_path / "s", NanEncoder(), options=OPTIONS)
    bright = np.flatnonzero(expected_vectors(18)[:, 0] > 130)
    failures = open_store(tmp_path / "s").failures
    assert [failure.row for failure in failures] == bright.tolist()
    assert {failure.reason for failure in failures} == {"non-finite"}


def test_another_encoder_on_the_store_is_refused_and_nothing_changes(pictures, tmp_path):
    extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    before = store_bytes(tmp_path / "s")
    with pytest.raises(IdentityMismatch, match=r"preprocess\.preset: 'pad' there, 'eval' asked"):
        extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(preset="eval"), options=OPTIONS)
    assert store_bytes(tmp_path / "s") == before


def test_two_extractions_at_once_are_refused(pictures, tmp_path):
    with (
        open_writer(tmp_path / "s", IDENTITY, say=print),
        pytest.raises(StoreBusy, match=f"pid {os.getpid()}"),
    ):
        extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS)


def test_stopping_keeps_finished_chunks_and_the_same_call_continues(pictures, tmp_path):
    states: list[Progress] = []
    observer = Observer(progress=states.append, stopping=lambda: len(states) >= 2)
    summary = extract(
        collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS, observer=observer
    )
    assert summary.interrupted
    assert 0 < summary.valid < 18
    assert summary.valid + summary.pending == 18
    rest = extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    assert rest.computed == summary.pending
    extract(collection_of(pictures, 18), tmp_path / "reference", MeanEncoder(), options=OPTIONS)
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


def test_progress_counts_images_chunks_and_failures(pictures, tmp_path):
    (pictures / "image5.png").unlink()
    states: list[Progress] = []
    extract(
        collection_of(pictures, 18),
        tmp_path / "s",
        MeanEncoder(),
        options=OPTIONS,
        observer=Observer(progress=states.append),
    )
    # A first batch of three is told before any chunk of four is whole; then batches go on across chunks.
    assert (states[0].done, states[0].chunks_done) == (3, 0)
    done = [state.done for state in states]
    assert done == sorted(done)
    assert done[-1] == states[0].total == 18
    assert all(state.done >= min(4 * state.chunks_done, 18) for state in states)
    # Each chunk is told, and the picture that is not there, image 5, with its own: the second.
    assert list(dict.fromkeys((state.chunks_done, state.failed) for state in states)) == [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 1),
        (4, 1),
        (5, 1),
    ]


def test_a_full_disk_loses_nothing_and_the_run_resumes(pictures, tmp_path, monkeypatch):
    extract(collection_of(pictures, 18), tmp_path / "reference", MeanEncoder(), options=OPTIONS)
    monkeypatch.setenv("EMBEDSTORE_FAILPOINT", "content.written:3=ENOSPC")
    with pytest.raises(OSError, match="No space left on device"):
        extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    monkeypatch.delenv("EMBEDSTORE_FAILPOINT")
    np.testing.assert_array_equal(
        open_store(tmp_path / "s").embeddings().vectors, expected_vectors(8).astype(np.float16)
    )
    assert extract(collection_of(pictures, 18), tmp_path / "s", MeanEncoder(), options=OPTIONS).computed == 10
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


def test_chunks_of_another_data_set_are_left_to_their_own_command(pictures, tmp_path):
    said: list[str] = []
    with open_writer(tmp_path / "s", IDENTITY, say=print) as writer:
        writer.plan_part(
            manifest_of(4, first=100), dataset="other", data_root="x", chunk_rows=4, dtype="float16"
        )
    extract(
        collection_of(pictures, 18),
        tmp_path / "s",
        MeanEncoder(),
        options=OPTIONS,
        observer=Observer(say=said.append),
    )
    assert open_store(tmp_path / "s").parts[0].pending == [0]
    assert [line.partition(" of ")[0] for line in said] == ["1 unfinished chunk(s)"]


def test_rerunning_a_finished_extraction_of_40_000_rows_takes_under_3_seconds(tmp_path):
    from tests.stores import DIM

    manifest = manifest_of(40_000)
    with open_writer(tmp_path / "s", IDENTITY, say=print) as writer:
        plan = writer.plan_part(manifest, dataset="test", data_root="x", chunk_rows=256, dtype="float16")
        for chunk in range(plan.chunks):
            start, stop = plan.bounds(chunk)
            rows = stop - start
            writer.commit(
                plan, chunk, ChunkResult(np.ones((rows, DIM), np.float32), np.ones((rows, 32), np.uint8))
            )
    collection = replace(collection_of(tmp_path, 1), manifest=manifest)
    started = time.perf_counter()
    summary = extract(collection, tmp_path / "s", MeanEncoder(), options=OPTIONS)
    assert summary.valid == 40_000
    assert time.perf_counter() - started < 3


def test_memory_stays_bounded_over_many_chunks(tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from embedstore.extraction.extract import ExtractOptions, extract\n"
        "from tests.pictures import collection_of; from tests.stores import MeanEncoder\n"
        "if __name__ == '__main__':\n"
        "    extract(collection_of(Path(sys.argv[1]), int(sys.argv[3])), Path(sys.argv[2]), MeanEncoder(),\n"
        "            options=ExtractOptions(chunk_rows=8, batch_size=4, workers=1))\n"
        "    import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    write_pictures(tmp_path / "images", range(800))
    peaks = []
    for count in (40, 800):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "images"), str(tmp_path / f"s{count}"), str(count)],
            capture_output=True,
            text=True,
            check=True,
            cwd=PROJECT,
        )
        peaks.append(int(done.stdout))
    kib = 1 if sys.platform == "linux" else 1024  # macOS counts bytes
    assert peaks[1] < peaks[0] + 30_000 * kib
