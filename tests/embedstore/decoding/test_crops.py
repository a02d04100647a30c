"""Crops of one picture: decoded once, by one process, and never from a file that was changed."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedstore.decoding import decode as decode_module
from embedstore.decoding.decode import DecodeJob, DecodeLimits, LastPicture, SerialDecoder, decode
from embedstore.decoding.pool import DecoderPool
from embedstore.errors import ImageRefused
from embedstore.images.crop import CropBox
from embedstore.images.preprocess import PreprocessSpec
from tests.image_files import picture_bytes

SPEC = PreprocessSpec("pad", 24)
BOXES = [
    CropBox(2.0 + 3.7 * number, 4.0, 20.0, 20.0, "-c+r" if number % 2 else "+c+r") for number in range(6)
]
linux = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc")


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path in paths:
        path.write_bytes(picture_bytes(rng.integers(0, 256, (220, 210), dtype=np.uint8)))
    return paths


def crops_of(paths):
    return [DecodeJob(str(path), crop=box) for path in paths for box in BOXES]


def test_crops_of_one_picture_read_it_once(pictures, monkeypatch):
    reads = []
    read = decode_module.read_frame
    monkeypatch.setattr(
        decode_module,
        "read_frame",
        lambda file, job, limits: reads.append(job.path) or read(file, job, limits),
    )
    outcomes = list(SerialDecoder(SPEC).decode(crops_of(pictures[:3])))
    assert reads == [str(path) for path in pictures[:3]]
    assert len({outcome.content_sha256 for outcome in outcomes}) == 18
    alone = [decode(job, SPEC, DecodeLimits()) for job in crops_of(pictures[:3])]
    for found, wanted in zip(outcomes, alone, strict=True):
        np.testing.assert_array_equal(found.pixels, wanted.pixels)
        assert found.content_sha256 == wanted.content_sha256


def test_a_picture_of_another_file_range_or_frame_is_decoded_anew(pictures):
    last = LastPicture()
    job = DecodeJob(str(pictures[0]), crop=BOXES[0])
    for again in (job, job, replace(job, modality="MR"), replace(job, value_range=(0.0, 9.0)), job):
        decode(again, SPEC, DecodeLimits(), last)
    assert last.decoded == 4
    before = decode(job, SPEC, DecodeLimits(), last).pixels
    pictures[0].write_bytes(picture_bytes(np.zeros((220, 210), np.uint8)))
    after = decode(job, SPEC, DecodeLimits(), last)
    assert last.decoded == 5
    assert before.any()
    assert not after.pixels.any()


def test_a_picture_that_is_refused_is_not_kept(pictures):
    last = LastPicture()
    good = DecodeJob(str(pictures[0]), crop=BOXES[0])
    decode(good, SPEC, DecodeLimits(), last)
    pictures[1].write_bytes(b"no picture")
    with pytest.raises(ImageRefused):
        decode(DecodeJob(str(pictures[1]), crop=BOXES[0]), SPEC, DecodeLimits(), last)
    with pytest.raises(ImageRefused):
        decode(DecodeJob(str(pictures[1]), crop=BOXES[1]), SPEC, DecodeLimits(), last)
    assert decode(good, SPEC, DecodeLimits(), last).pixels.any()


@linux
def test_a_pool_gives_all_crops_of_a_picture_to_one_process(pictures):
    jobs = crops_of(pictures)
    wanted = list(SerialDecoder(SPEC).decode(jobs))
    with DecoderPool(SPEC, workers=2) as pool:
        while len(pool.process_ids()) < 2:
            time.sleep(0.05)
        list(pool.decode(jobs[:1], ahead=0))
        before = _read_bytes(pool)
        # Other images in between go to whoever is free.
        mixed = [entry for job in jobs for entry in (job, DecodeJob(str(pictures[-1])))]
        outcomes = list(pool.decode(mixed, ahead=len(mixed)))[::2]
        read = _read_bytes(pool) - before
    for found, right in zip(outcomes, wanted, strict=True):
        np.testing.assert_array_equal(found.pixels, right.pixels)
    # A crop of a picture that is kept opens the file and reads none of it: requests are a few hundred bytes.
    whole = sum(path.stat().st_size for path in pictures) + len(jobs) * pictures[-1].stat().st_size
    assert read < whole + 100_000
    assert whole > 2_000_000


@linux
def test_a_process_that_dies_gives_its_pictures_back(pictures):
    jobs = crops_of(pictures)
    with DecoderPool(SPEC, workers=2) as pool:
        outcomes = pool.decode(jobs, ahead=len(jobs))
        first = next(outcomes)
        killed = pool.process_ids()[0]
        os.kill(killed, signal.SIGKILL)
        found = [first, *outcomes]
    assert len(found) == len(jobs)
    assert sum(isinstance(outcome, ImageRefused) for outcome in found) <= 1


def _read_bytes(pool):
    """Return how many bytes the pool's processes have read, from files and pipes."""
    counts = [Path(f"/proc/{pid}/io").read_text() for pid in pool.process_ids()]
    return sum(int(text.partition("rchar: ")[2].split()[0]) for text in counts)
