"""A real extraction that tests kill: decoding processes, encoder, writer, tasks and all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa

import embedstore.store.zarr_arrays  # noqa: F401 - preloaded, so that a killed process dies in the write path
from embedstore.datasets.base import Collection
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.files import FAILPOINT_VARIABLE
from embedstore.task import Task
from tests.pictures import collection_of
from tests.stores import TokenEncoder

PICTURES = 20
OPTIONS = ExtractOptions(chunk_rows=3, batch_size=2, workers=1)


class SlowEncoder(TokenEncoder):
    """Takes a few milliseconds a batch, so that a kill at a random moment lands anywhere in the run."""

    def encode(self, pixels):
        time.sleep(0.004)
        return super().encode(pixels)


def crash_collection(pictures: Path) -> Collection:
    plain = collection_of(pictures, PICTURES)
    labels = pa.table({"unit_id": ["study0", "study1"], "abnormal": ["yes", "no"]})
    task = Task("t", "study", ("abnormal",), ("no", "yes"), labels)
    tables = {"coordinates": pa.table({"x": [1.0], "y": [2.0]})}
    return Collection("test", plain.root, plain.manifest, (task,), {}, tables)


def run_extraction(pictures: Path, store: Path, failpoint: str = "") -> None:
    if failpoint:
        os.environ[FAILPOINT_VARIABLE] = failpoint
    extract(crash_collection(pictures), store, SlowEncoder(), options=OPTIONS)
