"""An extraction asked for by names: where it runs, and the arithmetic that a store keeps."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cli.jobs.extract_store import EncoderChoice, ExtractJob, dry_run_store, executor_of, extract_store
from embedstore.errors import UsageError
from embedstore.extraction.extract import ExtractOptions, InProcess, Observer
from embedstore.extraction.on_cluster import OnCluster
from embedstore.extraction.on_devices import OnDevices
from embedstore.store.reader import open_store
from tests.checkpoints import write_siglip
from tests.paths import PROJECT
from tests.pictures import collection_of, write_pictures

OPTIONS = ExtractOptions(chunk_rows=4, batch_size=4, workers=1)


def test_devices_and_an_address_of_ray_say_where_an_extraction_runs():
    assert executor_of("cuda:1", ray_address=None) == InProcess("cuda:1")
    assert executor_of("cuda:0, cuda:1", ray_address=None) == OnDevices(("cuda:0", "cuda:1"))
    assert executor_of("cpu", ray_address="auto") == OnCluster("auto", "cpu")
    with pytest.raises(UsageError, match="names cuda:0 twice"):
        executor_of("cuda:0,cuda:0", ray_address="auto")


@pytest.mark.parametrize("address", ["None", "'auto'"])
def test_only_a_cluster_costs_the_module_that_speaks_to_ray(address):
    script = (
        "import json, sys\n"
        "from cli.jobs.extract_store import executor_of\n"
        f"executor_of('cpu', ray_address={address})\n"
        "print(json.dumps(['embedstore.extraction.on_cluster' in sys.modules, 'ray' in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert json.loads(done.stdout) == [address != "None", False]


def test_a_job_fills_a_store_and_a_dry_run_of_it_writes_nothing(tmp_path):
    write_pictures(tmp_path / "images", range(6))
    job = ExtractJob(
        collection=collection_of(tmp_path / "images", 6),
        store=str(tmp_path / "s"),
        encoder=EncoderChoice(name="hog"),
        options=OPTIONS,
    )
    found = dry_run_store(job)
    assert (found.images, found.known, found.sampled) == (6, 0, 6)
    assert not (tmp_path / "s").exists()
    summary = extract_store(job, observer=Observer())
    assert (summary.valid, summary.computed) == (6, 6)
    assert (open_store(job.store).status == 1).all()
    again = dry_run_store(job)
    assert (again.images, again.known) == (0, 6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_auto_is_the_arithmetic_of_the_store_whatever_this_processor_would_choose(tmp_path, dtype):
    write_pictures(tmp_path / "images", range(4))
    (tmp_path / "tiny-siglip").mkdir()
    write_siglip(tmp_path / "tiny-siglip")
    name = str(tmp_path / "tiny-siglip")

    def job(asked):
        return ExtractJob(
            collection=collection_of(tmp_path / "images", 4),
            store=tmp_path / "s",
            encoder=EncoderChoice(name=name, dtype=asked),
            devices="cpu",
            options=OPTIONS,
        )

    assert extract_store(job(dtype), observer=Observer()).computed == 4
    assert extract_store(job("auto"), observer=Observer()).computed == 0
    assert open_store(tmp_path / "s").identity.compute_dtype == dtype
