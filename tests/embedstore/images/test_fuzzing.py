"""Thousands of broken files, and each one ends as an image or as a refusal.

2,200 seeded cases run everywhere. For a longer run set ``EMBEDSTORE_FUZZ_CASES=200000`` (cases for each of
the two tests below) and, for other cases than last time, ``EMBEDSTORE_FUZZ_SEED``; a failure names the seed
and number of its case, which alone bring it back: ``EMBEDSTORE_FUZZ_FIRST=1234 EMBEDSTORE_FUZZ_CASES=1``.
"""

from __future__ import annotations

import os
import resource
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid

from embedstore.decoding.decode import DecodeJob, DecodeLimits, EncoderInput, decode
from embedstore.decoding.pool import DecoderPool
from embedstore.errors import ImageRefused
from embedstore.images.preprocess import PreprocessSpec
from tests.differential.dicom_writing import UIDS, dicom_file
from tests.image_files import PYDICOM_FILES, dataset, dicom_bytes, picture_bytes

SEED = int(os.environ.get("EMBEDSTORE_FUZZ_SEED", "20240917"))
FIRST = int(os.environ.get("EMBEDSTORE_FUZZ_FIRST", "0"))
CASES = int(os.environ.get("EMBEDSTORE_FUZZ_CASES", "0"))
SPEC = PreprocessSpec("pad", 32)
# Small limits: a mutated header that asks for much must be refused, not served.
LIMITS = DecodeLimits(file_bytes=8 << 20, pixels=1 << 20, frames=100, timeout_s=20.0, memory_bytes=1 << 30)
BASELINE = {"jpeg baseline"}  # has no samples of 12 bits
REAL_FILES = (
    "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "CT_small.dcm",
    "SC_rgb_small_odd_jpeg.dcm", "MR_small_implicit.dcm", "nested_priv_SQ.dcm", "SC_rgb_small_odd_big_endian.dcm",
)  # fmt: skip
# What headers break on: extremes of lengths and counts, and the delimiters of DICOM.
NASTY = [
    b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0", b"\xfe\xff\x00\xe0",
    b"\xfe\xff\xdd\xe0", b"\xfe\xff\x0d\xe0", b"SQ\0\0", b"\xff\xd9", b"\xff\xc0\0\x11", b"nan ", b"\\\\\\\\", b"-1e9",
]  # fmt: skip


@pytest.fixture(scope="module")
def seeds():
    """Valid files, most of them a few kilobytes."""
    rng = np.random.default_rng(1)
    ramp = np.add.outer(np.arange(40) * 50, np.arange(40) * 45) + rng.integers(0, 60, (40, 40))
    grey, deep = (ramp // 16).astype(np.uint8), ramp.astype(np.uint16)
    colour = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    window = {"WindowCenter": [2000, 1], "WindowWidth": [1500, 2], "PixelPaddingValue": 0}
    contents = [
        picture_bytes(grey), picture_bytes(colour), picture_bytes(deep), picture_bytes(grey > 99),
        picture_bytes(grey, "JPEG"), picture_bytes(colour, "JPEG", progressive=True),
        picture_bytes(colour, "TIFF", compression="tiff_lzw"), picture_bytes(grey, "BMP"),
        picture_bytes(grey, "GIF"), picture_bytes(colour, "WEBP"), picture_bytes(colour, "PPM"),
    ]  # fmt: skip
    header = dataset(deep, bits_stored=12, **window)
    contents += [
        dicom_file(header, deep[None], name, value_bits=12) for name in sorted(UIDS.keys() - BASELINE)
    ]
    contents.append(dicom_file(dataset(grey), grey[None], "jpeg baseline"))
    contents.append(dicom_file(dataset(colour), colour[None], "jpeg 2000"))
    frames = np.stack([deep, deep[::-1]])
    contents.append(dicom_bytes(dataset(frames, frames=2, Modality="MR"), uid.RLELossless))
    contents.append(dicom_bytes(dataset(deep, Modality="CT", RescaleSlope=1, RescaleIntercept=-1024)))
    real = [PYDICOM_FILES / name for name in REAL_FILES]
    return contents + [path.read_bytes() for path in real if path.exists()]


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Break valid content in one to four ways, headers more often than pixels."""
    broken = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        end = len(broken) if rng.random() < 0.4 else min(len(broken), 1200)
        place = int(rng.integers(0, max(end, 1)))
        match rng.integers(0, 7):
            case 0:  # flip bits
                broken[place : place + 1] = bytes(
                    [broken[place] ^ (1 << rng.integers(0, 8))] if broken else []
                )
            case 1:  # other bytes
                broken[place : place + 8] = rng.bytes(min(8, len(broken) - place))
            case 2:  # nasty values
                nasty = NASTY[rng.integers(0, len(NASTY))]
                broken[place : place + len(nasty)] = nasty
            case 3:  # cut out
                del broken[place : place + int(rng.integers(1, 64))]
            case 4:  # repeat
                piece = broken[place : place + int(rng.integers(1, 256))]
                broken[place:place] = piece
            case 5:  # truncate
                del broken[max(place, 1) :]
            case _:  # a length that lies, little or big endian
                form = "<I" if rng.random() < 0.5 else ">I"
                broken[place : place + 4] = struct.pack(form, int(rng.integers(0, 1 << 32)))
    return bytes(broken)


def case(seeds, number: int) -> bytes:
    rng = np.random.default_rng([SEED, number])
    return mutated(seeds[rng.integers(0, len(seeds))], rng)


def outcome_of(path: Path, number: int) -> EncoderInput | ImageRefused:
    try:
        return decode(DecodeJob(str(path)), SPEC, LIMITS)
    except ImageRefused as refusal:
        return refusal
    except Exception as error:
        raise AssertionError(f"seed {SEED}, case {number} escaped: {error!r}") from error


@pytest.mark.timeout(0 if CASES else 300)
def test_every_mutated_file_ends_as_an_image_or_a_refusal(seeds, tmp_path):
    path = tmp_path / "case"
    refused = 0
    slowest_s = 0.0
    n = CASES or 1800
    for number in range(FIRST, FIRST + n):
        path.write_bytes(case(seeds, number))
        started = time.perf_counter()
        outcome = outcome_of(path, number)
        if isinstance(outcome, ImageRefused):
            refused += 1
            assert outcome.message.isprintable(), number
            assert "Secret" not in outcome.message, number
        else:
            assert outcome.pixels.shape[:2] == (32, 32), number
        slowest_s = max(slowest_s, time.perf_counter() - started)
    assert slowest_s < LIMITS.timeout_s
    if n >= 1000:  # both ends must be reached, or the mutations are too tame or too wild
        assert 0.2 < refused / n < 0.98


@pytest.mark.timeout(0 if CASES else 300)
def test_mutated_files_leave_a_pool_alive_and_within_its_memory(seeds, tmp_path):
    n = CASES or 400
    good = tmp_path / "good.png"
    good.write_bytes(picture_bytes(np.zeros((9, 9), np.uint8)))

    def jobs():
        for number in range(FIRST, FIRST + n):
            path = tmp_path / f"case{number % 64}"  # rewritten only after its turn: 16 ahead, 64 names
            path.write_bytes(case(seeds, 1_000_000 + number))
            yield DecodeJob(str(path))
        yield DecodeJob(str(good))

    with DecoderPool(SPEC, workers=2, limits=LIMITS) as pool:
        outcomes = list(pool.decode(jobs(), ahead=16))
    assert len(outcomes) == n + 1
    assert all(isinstance(outcome, EncoderInput | ImageRefused) for outcome in outcomes)
    assert isinstance(outcomes[-1], EncoderInput)
    # The largest of all child processes so far, in kB on Linux.
    peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    if Path("/proc/self").exists() and not os.environ.get("PYTEST_XDIST_WORKER"):
        assert peak_bytes < LIMITS.memory_bytes
