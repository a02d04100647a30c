"""What an encoder has to say reaches the user by the same way in every engine: memory, releases."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from embedstore.checkpoints import checkpoint
from embedstore.encoders.siglip import SiglipEncoder
from embedstore.extraction.extract import Choose, Extraction, ExtractOptions, Observer, extract
from embedstore.extraction.on_cluster import WorkerFactory
from embedstore.extraction.on_devices import OnDevices
from embedstore.extraction.pending import unfinished
from embedstore.store.reader import open_store
from tests.checkpoints import edit_config, write_siglip
from tests.pictures import collection_of, write_pictures

OPTIONS = ExtractOptions(chunk_rows=4, batch_size=4, workers=1)
HALVED = "cpu ran out of memory with 4 pictures in a pass; going on with 2"


class NarrowTower(nn.Module):
    """A tower on a device with memory for two pictures."""

    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, pixel_values):
        if len(pixel_values) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.tower(pixel_values=pixel_values)


class NarrowEncoder(SiglipEncoder):
    def load_tower(self, dtype):
        return NarrowTower(super().load_tower(dtype))


@pytest.fixture
def build(tmp_path):
    (tmp_path / "tiny-siglip").mkdir()
    write_siglip(tmp_path / "tiny-siglip")
    write_pictures(tmp_path / "images", range(8))
    return partial(NarrowEncoder, str(tmp_path / "tiny-siglip"), dtype="float32", pass_rows=4)


def test_memory_that_runs_out_is_said_and_every_image_has_its_vector(build, tmp_path):
    said: list[str] = []
    collection = collection_of(tmp_path / "images", 8)
    summary = extract(
        collection,
        tmp_path / "s",
        build(device="cpu"),
        options=OPTIONS,
        observer=Observer(say=said.append),
    )
    assert (summary.valid, summary.failed) == (8, {})
    assert [line.partition(".")[0] for line in said] == [HALVED]
    extract(collection, tmp_path / "two", build(device="cpu", pass_rows=2), options=OPTIONS)
    np.testing.assert_array_equal(
        open_store(tmp_path / "s").embeddings().vectors, open_store(tmp_path / "two").embeddings().vectors
    )


@pytest.mark.slow
def test_a_notice_of_another_process_is_said_with_its_device(build, tmp_path):
    said: list[str] = []
    observer = Observer(say=said.append)
    extraction = Extraction(collection_of(tmp_path / "images", 8), tmp_path / "s", build, OPTIONS, observer)
    extraction.run(choose=Choose.NEW, executor=OnDevices(("cpu", "cpu")))
    # Both processes ran out of memory with the same words, which are said once.
    assert [line.partition(".")[0] for line in said] == [f"cpu: {HALVED}"]


def test_a_notice_of_an_actor_travels_with_its_report_and_names_the_host(build, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    collection = collection_of(tmp_path / "images", 8)
    extract(collection, tmp_path / "s", build(device="cpu", pass_rows=2), options=OPTIONS)
    for receipt in (tmp_path / "s" / "parts" / "0000" / "receipts").iterdir():
        receipt.unlink()
    pending = unfinished(open_store(tmp_path / "s"), collection.manifest, print)
    factory = WorkerFactory(Extraction(collection, tmp_path / "s", build, OPTIONS))
    with factory(name="actor", device="cpu", cpus=1) as worker:
        first, second = (worker.do([chunk], lambda: False) for chunk in pending)
    assert [line.partition(".")[0] for line in first.notices] == [f"node7: {HALVED}"]
    assert second.notices == []
    flops = build(device="cpu").flops_per_image
    assert (first.stopwatch.flops, second.stopwatch.flops) == (4 * flops, 4 * flops)


@pytest.mark.slow
def test_a_later_release_of_transformers_is_said_once_for_all_devices(build, tmp_path):
    major = checkpoint.version("transformers").split(".")[0]
    edit_config(tmp_path / "tiny-siglip", transformers_version=f"{major}.999.0")
    said: list[str] = []
    source, observer = partial(build, pass_rows=2), Observer(say=said.append)
    extraction = Extraction(collection_of(tmp_path / "images", 8), tmp_path / "s", source, OPTIONS, observer)
    extraction.run(choose=Choose.NEW, executor=OnDevices(("cpu", "cpu")))
    assert len(said) == 1
    assert f"was written by transformers {major}.999.0" in said[0]
