"""Chunks on their way through an encoder that works beside the host, and where the time went."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cli.main import run
from cli.printing.extract_summary import _device_line
from embedstore.compute_device import DeviceLost
from embedstore.decoding.decode import EncoderInput
from embedstore.decoding.dispatch import Dispatcher
from embedstore.encoders.base import Encoded, OneByOne
from embedstore.errors import ImageRefused, Reason, UsageError
from embedstore.extraction.extract import Choose, Extraction, ExtractOptions, Observer, extract
from embedstore.extraction.on_devices import OnDevices
from embedstore.phantoms.mura import write_phantom_mura
from embedstore.pipeline.chunk_work import ChunkWork, Stopwatch
from embedstore.pipeline.run_chunks import run_chunks
from embedstore.store.reader import open_store
from tests.checkpoints import write_siglip
from tests.pictures import collection_of, expected_tokens, pixels_of, write_pictures
from tests.stores import MeanEncoder, TokenEncoder, manifest_of, store_bytes

OPTIONS = ExtractOptions(chunk_rows=4, batch_size=3, workers=2)
FAILED = (Reason.MISSING, "gone")


class AheadStream:
    """Holds one batch back, as a CUDA device does; it takes a second and a half for each picture."""

    def __init__(self, encoder):
        self.encoder = encoder
        self.held = []

    def put(self, pixels):
        self.encoder.log.append(f"put {len(pixels)}")
        self.held.append(Encoded(self.encoder.encode(pixels), 1.5 * len(pixels)))
        through, self.held = self.held[:-1], self.held[-1:]
        return through

    def drain(self):
        self.encoder.log.append("drain")
        through, self.held = self.held, []
        return through


class AheadEncoder(MeanEncoder):
    """Offers everything that an encoder may."""

    flops_per_image = 3e12

    def __init__(self, *, device="auto"):
        super().__init__(device=device)
        self.log = []

    def open_stream(self):
        return AheadStream(self)


class ListDecoder:
    """Yields prepared outcomes and notes in the log which image was asked for."""

    def __init__(self, outcomes, log):
        self.outcomes = outcomes
        self.log = log

    def decode(self, jobs, *, ahead) -> Iterator[EncoderInput | ImageRefused]:
        for number, (_, outcome) in enumerate(zip(jobs, self.outcomes, strict=True)):
            self.log.append(f"image {number}")
            yield outcome


def chunks_of(*sizes):
    records = tuple(manifest_of(sum(sizes)).records())
    start = 0
    for chunk, size in enumerate(sizes):
        rows = tuple(range(start, start + size))
        yield ChunkWork(0, chunk, rows, records[start : start + size])
        start += size


def outcome_of(number):
    return EncoderInput(pixels_of(number), bytes([number]) * 32)


def chunks_through(encoder, outcomes, sizes, *, stopping=lambda: False, batch_size=2):
    """Run chunks of these sizes and yield them, with a note in the log."""
    stopwatch = Stopwatch()
    works = chunks_of(*sizes)
    decoder = ListDecoder(outcomes, encoder.log)
    for work, result in run_chunks(
        works,
        root=Path("/"),
        encoder=encoder,
        decoder=decoder,
        batch_size=batch_size,
        stopwatch=stopwatch,
        stopping=stopping,
    ):
        encoder.log.append(f"chunk {work.chunk}")
        yield work, result


def test_the_next_chunks_batch_is_put_before_the_last_chunks_vectors_are_waited_for():
    encoder = AheadEncoder()
    outputs = [result for _, result in chunks_through(encoder, map(outcome_of, range(5)), (3, 2))]
    assert encoder.log == [
        "image 0", "image 1", "put 2", "image 2", "put 1",
        "image 3", "image 4", "put 2", "chunk 0", "drain", "chunk 1",
    ]  # fmt: skip
    vectors = np.concatenate([output.vectors for output in outputs])
    np.testing.assert_array_equal(vectors, MeanEncoder().encode(np.stack([pixels_of(n) for n in range(5)])))
    np.testing.assert_array_equal(outputs[1].content, np.repeat([[3], [4]], 32, axis=1))


def test_a_chunk_of_failures_alone_pushes_out_what_is_on_its_way():
    encoder = AheadEncoder()
    refused = ImageRefused(*FAILED)
    outcomes = [outcome_of(0), outcome_of(1), refused, refused, refused, refused]
    outputs = [result for _, result in chunks_through(encoder, outcomes, (2, 2, 2))]
    assert encoder.log == [
        "image 0", "image 1", "put 2",
        "image 2", "image 3", "drain", "chunk 0", "chunk 1",
        "image 4", "image 5", "drain", "chunk 2", "drain",
    ]  # fmt: skip
    assert [dict(output.failures) for output in outputs] == [
        {},
        {2: FAILED, 3: FAILED},
        {4: FAILED, 5: FAILED},
    ]
    assert np.isnan(outputs[1].vectors).all()


def test_asked_to_stop_what_is_on_its_way_is_finished_and_the_chunk_at_hand_is_not():
    encoder = AheadEncoder()
    outputs = list(
        chunks_through(encoder, map(outcome_of, range(6)), (2, 4), stopping=lambda: "image 3" in encoder.log)
    )
    assert [work.chunk for work, _ in outputs] == [0]
    assert np.isfinite(outputs[0][1].vectors).all()


class PatientEncoder(MeanEncoder):
    """Keeps its first batch until `enough` says so, and gives up after half a minute."""

    def __init__(self, enough):
        super().__init__()
        self.enough = enough

    def encode(self, pixels):
        deadline = time.monotonic() + 30
        while not self.enough() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.enough(), "decoding stands still while the encoder works"
        return super().encode(pixels)


def test_decoding_goes_on_while_the_encoder_works(tmp_path, monkeypatch):
    write_pictures(tmp_path / "images", range(18))
    settled = []
    settle = Dispatcher._settle

    def count(self, ticket, outcome):
        settle(self, ticket, outcome)
        settled.append(ticket)

    monkeypatch.setattr(Dispatcher, "_settle", count)
    # The first batch has three pictures, and six more may be decoded beyond it.
    encoder = PatientEncoder(lambda: len(settled) >= 9)
    summary = extract(collection_of(tmp_path / "images", 18), tmp_path / "s", encoder, options=OPTIONS)
    assert summary.valid == 18


def test_an_encoder_that_offers_nothing_more_is_asked_batch_by_batch():
    stream = MeanEncoder().open_stream()
    assert isinstance(stream, OneByOne)
    (encoded,) = stream.put(np.zeros((2, 8, 8), np.uint8))
    assert encoded.vectors.shape == (2, 4)
    assert encoded.busy_s > 0
    assert list(stream.drain()) == []


@pytest.fixture
def pictures(tmp_path):
    write_pictures(tmp_path / "images", range(18))
    extract(collection_of(tmp_path / "images", 18), tmp_path / "reference", MeanEncoder(), options=OPTIONS)
    return tmp_path / "images"


def test_batches_that_overlap_make_the_same_store(pictures, tmp_path):
    summary = extract(collection_of(pictures, 18), tmp_path / "s", AheadEncoder(), options=OPTIONS)
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")
    # 18 pictures of 3 * 10**12 operations in a second and a half each: 2 TFLOP/s.
    assert summary.stopwatch.busy_s == 27
    assert summary.stopwatch.tflops_per_s == pytest.approx(2)


class LostStream(AheadStream):
    """Loses its device while the third batch is put."""

    def put(self, pixels):
        if self.encoder.log.count("put 3") == 2:
            raise DeviceLost("device cuda:0 stopped answering")
        return super().put(pixels)


class LostEncoder(AheadEncoder):
    def open_stream(self):
        return LostStream(self)


def test_a_device_lost_with_batches_on_their_way_costs_no_committed_row(pictures, tmp_path):
    options = replace(OPTIONS, chunk_rows=3)
    extract(collection_of(pictures, 18), tmp_path / "r", MeanEncoder(), options=options)
    with pytest.raises(DeviceLost, match="stopped answering"):
        extract(collection_of(pictures, 18), tmp_path / "s", LostEncoder(), options=options)
    # The first chunk was whole when the second batch had been put; the second was still on its way.
    assert sorted(open_store(tmp_path / "s").parts[0].receipts) == [0]
    extract(collection_of(pictures, 18), tmp_path / "s", AheadEncoder(), options=options)
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "r")


def test_the_times_of_several_devices_are_added_up(pictures, tmp_path):
    extraction = Extraction(collection_of(pictures, 18), tmp_path / "s", AheadEncoder, OPTIONS)
    summary = extraction.run(choose=Choose.NEW, executor=OnDevices(("cpu", "cpu")))
    assert summary.stopwatch.busy_s == 27
    assert summary.stopwatch.flops == 18 * 3e12
    assert 0 < summary.stopwatch.wall_s < 2 * summary.seconds
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


def test_idle_is_what_is_left_of_the_time_of_all_workers():
    watch = Stopwatch(decode_s=1, encode_s=6, write_s=1, busy_s=6, wall_s=8, flops=12e12, on_gpu=True)
    assert watch.idle_share == 0.25
    watch.add(Stopwatch(decode_s=8, encode_s=1, busy_s=2, wall_s=8, flops=12e12))
    assert watch.idle_share == 0.5
    assert watch.tflops_per_s == 3
    assert (watch.bound(), watch.on_gpu) == ("decode", True)
    assert _device_line(watch) == "device idle 50.0% of 16.0 s, 3.0 TFLOP/s while busy"
    assert _device_line(replace(watch, on_gpu=False)) == "device idle 50.0% of 16.0 s"
    assert _device_line(replace(watch, flops=0)) == "device idle 50.0% of 16.0 s"


def test_before_anything_ran_nothing_is_claimed():
    assert (Stopwatch().idle_share, Stopwatch().tflops_per_s) == (None, None)
    # Two clocks may differ by a little; a device is never idle for less than nothing.
    assert Stopwatch(busy_s=2.001, wall_s=2.0).idle_share == 0


def test_the_command_says_what_bounded_the_run_and_how_idle_the_device_was(tmp_path, capsys):
    write_phantom_mura(tmp_path, patients=2, seed=3)
    arguments = ["extract", "--dataset", "mura", "--root", "MURA-v1.1", "--device", "cpu"]
    (tmp_path / "tiny").mkdir()
    write_siglip(tmp_path / "tiny")
    assert run([*arguments, "--store", "h.store", "--json"]) == 0
    of_hog = json.loads(capsys.readouterr().out)
    assert of_hog["bound_by"] in ("decode", "encoder", "writer")
    assert 0 < of_hog["device_idle_share"] < 1
    assert "tflops_per_s" not in of_hog
    assert run([*arguments, "--store", "s.store", "--encoder", "./tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tflops_per_s"] > 0
    assert run([*arguments, "--store", "t.store", "--encoder", "./tiny", "--verbose"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "device idle" in line]
    assert "TFLOP" not in line
    assert run([*arguments, "--store", "t.store", "--encoder", "./tiny", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["bound_by"], again["device_idle_share"], again["computed"]) == (None, None, 0)


def test_a_user_who_watches_sees_the_same_chunks_with_and_without_overlap(pictures, tmp_path):
    seen = []
    extract(
        collection_of(pictures, 18),
        tmp_path / "s",
        AheadEncoder(),
        options=OPTIONS,
        observer=Observer(progress=lambda state: seen.append((state.done, state.chunks_done))),
    )
    # Batches come through in between; they run ahead of the chunks that are committed, and never back.
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert list(dict.fromkeys(chunks for _, chunks in seen)) == [0, 1, 2, 3, 4, 5]
    assert all(4 * chunks <= done for done, chunks in seen[:-1])
    assert seen[-1] == (18, 5)


class SilentTokenEncoder(TokenEncoder):
    """Declares tokens and returns none."""

    def open_stream(self):
        return OneByOne(self.encode)


class FlatTokenEncoder(TokenEncoder):
    """Declares grids of tokens and returns one token, which NumPy would copy to every place."""

    def encode_tokens(self, pixels):
        return {"tokens": super().encode_tokens(pixels)["tokens"][:, :1]}


@pytest.mark.parametrize(
    ("encoder", "found"),
    [(SilentTokenEncoder(), r"\{\}"), (FlatTokenEncoder(), r"\{'tokens': \(2, 1, 3\)\}")],
)
def test_an_encoder_must_return_the_arrays_that_its_identity_declares(encoder, found):
    encoder.log = []
    with pytest.raises(
        UsageError,
        match=r"encoder 'token-mean' must return vectors of shape \(2, 4\) and, .* the further arrays "
        r"\{'tokens': \(2, 2, 3\)\} that its identity declares; found \(2, 4\) and " + found,
    ):
        list(chunks_through(encoder, map(outcome_of, range(2)), (2,)))


def test_further_arrays_of_a_failed_image_are_nan_and_those_of_others_their_own():
    encoder = TokenEncoder()
    encoder.log = []
    outcomes = [outcome_of(0), ImageRefused(*FAILED), outcome_of(2)]
    ((_, result),) = chunks_through(encoder, iter(outcomes), (3,))
    expected = expected_tokens(3)
    expected[1] = np.nan
    np.testing.assert_array_equal(result.further["tokens"], expected)
