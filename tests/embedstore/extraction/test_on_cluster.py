"""A Ray cluster of two nodes on this machine: one is lost in the middle, and no byte differs."""

from __future__ import annotations

import os
import sys
import time
from functools import partial

import pytest

from embedstore.compute_device import DeviceLost
from embedstore.errors import MissingDependency, UsageError
from embedstore.extraction import ray_crew as ray_engine
from embedstore.extraction.extract import Choose, Extraction, ExtractOptions, Observer, Progress, extract
from embedstore.extraction.on_cluster import OnCluster
from embedstore.store.reader import open_store
from embedstore.store.store_lock import has_traces
from embedstore.store.verify import verify_store
from tests.paths import PROJECT
from tests.pictures import collection_of, write_pictures
from tests.stores import TokenEncoder, store_bytes

OPTIONS = ExtractOptions(chunk_rows=2, batch_size=2, workers=1)
PICTURES = 48


def extract_on_cluster(
    collection, store, build, *, observer=None, choose=Choose.NEW, options=OPTIONS, **cluster
):
    extraction = Extraction(collection, store, build, options, observer or Observer())
    return extraction.run(choose=choose, executor=OnCluster(**cluster))


class SlowEncoder(TokenEncoder):
    """Slow enough that a node is lost before the work is done."""

    def encode(self, pixels):
        time.sleep(0.1)
        return super().encode(pixels)


class LosingEncoder(SlowEncoder):
    """The first actor to encode loses its device; `flag` tells the others that it was not them."""

    def __init__(self, *, flag, device="auto"):
        super().__init__(device=device)
        self.flag = flag

    def encode(self, pixels):
        try:
            self.flag.touch(exist_ok=False)
        except FileExistsError:
            return super().encode(pixels)
        raise DeviceLost("device cuda:0 stopped answering (unspecified launch failure)")


class DyingEncoder(TokenEncoder):
    """The first actor dies with its eighth batch; `flag` keeps its successor alive."""

    def __init__(self, *, flag, device="auto"):
        super().__init__(device=device)
        self.flag = flag
        self.batches = 0

    def encode(self, pixels):
        self.batches += 1
        if self.batches == 8 and not self.flag.exists():
            self.flag.touch()
            os._exit(9)
        return super().encode(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, and the store that one process makes of them."""
    path = tmp_path_factory.mktemp("ray")
    write_pictures(path / "images", range(PICTURES))
    extract(collection_of(path / "images", PICTURES), path / "reference", TokenEncoder(), options=OPTIONS)
    return path


@pytest.fixture(scope="module")
def cluster():
    """Start a head with one CPU; nothing reports anywhere, and workers import this test's modules."""
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(PROJECT))
        from ray.cluster_utils import Cluster

        started = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False},
        )
        yield started
        started.shutdown()


@pytest.fixture(scope="module")
def second_node(cluster):
    """Add a node with one CPU for the last two tests; Ray may still place actors on one for a while after its end."""
    return cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)


def without_sizes(said: list[str]) -> list[str]:
    """Leave out what is said of the size of the encoder's tokens before anything is computed."""
    return [line for line in said if not line.startswith("tokens: ")]


@pytest.mark.slow
def test_when_every_device_is_lost_the_first_error_is_raised_and_the_rest_is_resumable(
    folder, tmp_path, cluster
):
    with pytest.raises(DeviceLost, match="device cuda:0 stopped answering"):
        extract_on_cluster(
            collection_of(folder / "images", PICTURES),
            tmp_path / "s",
            partial(LosingEncoder, flag=tmp_path / "lost"),
            address=cluster.address,
            options=OPTIONS,
        )
    assert not has_traces(tmp_path / "s"), "whoever reads the error may go on at once"
    assert open_store(tmp_path / "s").parts[0].pending
    extract(collection_of(folder / "images", PICTURES), tmp_path / "s", TokenEncoder(), options=OPTIONS)
    assert store_bytes(tmp_path / "s") == store_bytes(folder / "reference")


@pytest.mark.slow
def test_an_actor_that_died_at_work_is_replaced_though_no_other_is_there(folder, tmp_path, cluster):
    said: list[str] = []
    summary = extract_on_cluster(
        collection_of(folder / "images", PICTURES),
        tmp_path / "s",
        partial(DyingEncoder, flag=tmp_path / "died"),
        address=cluster.address,
        observer=Observer(say=said.append),
    )
    assert (summary.valid, summary.pending) == (PICTURES, 0)
    (gone,) = without_sizes(said)
    assert "is gone" in gone
    assert store_bytes(tmp_path / "s") == store_bytes(folder / "reference")
    assert summary.stopwatch.wall_s > 0


@pytest.mark.slow
def test_asking_to_stop_keeps_finished_chunks(folder, tmp_path, cluster):
    states: list[Progress] = []
    summary = extract_on_cluster(
        collection_of(folder / "images", PICTURES),
        tmp_path / "s",
        SlowEncoder,
        address=cluster.address,
        observer=Observer(progress=states.append, stopping=lambda: bool(states)),
    )
    assert summary.interrupted
    assert 0 < summary.valid < PICTURES
    assert list((tmp_path / "s" / "workers").iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("second_node")
def test_a_lost_device_has_its_chunks_done_by_others_and_a_retry_is_shared_too(tmp_path, cluster):
    pictures = tmp_path / "images"
    write_pictures(pictures, range(PICTURES))
    extract(collection_of(pictures, PICTURES), tmp_path / "reference", TokenEncoder(), options=OPTIONS)
    payload = (pictures / "image9.png").read_bytes()
    (pictures / "image9.png").unlink()
    said: list[str] = []
    summary = extract_on_cluster(
        collection_of(pictures, PICTURES),
        tmp_path / "s",
        partial(LosingEncoder, flag=tmp_path / "lost"),
        address=cluster.address,
        observer=Observer(say=said.append),
    )
    assert (summary.failed, summary.pending) == ({"missing": 1}, 0)
    assert without_sizes(said) == [
        "device cuda:0 stopped answering (unspecified launch failure); its chunks go to others"
    ]
    (pictures / "image9.png").write_bytes(payload)
    summary = extract_on_cluster(
        collection_of(pictures, PICTURES),
        tmp_path / "s",
        TokenEncoder,
        address=cluster.address,
        choose=Choose.NEW_OR_FAILED,
    )
    assert (summary.computed, summary.failed) == (1, {})
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "reference")


@pytest.mark.slow
def test_a_node_lost_in_the_middle_changes_no_byte(folder, tmp_path, cluster, second_node):
    states: list[Progress] = []
    said: list[str] = []

    def lose_a_node(state):
        states.append(state)
        if len(states) == 4:
            cluster.remove_node(second_node, allow_graceful=False)

    summary = extract_on_cluster(
        collection_of(folder / "images", PICTURES),
        tmp_path / "s",
        SlowEncoder,
        address=cluster.address,
        device="cpu",
        observer=Observer(say=said.append, progress=lose_a_node),
    )
    assert (summary.valid, summary.pending, summary.interrupted) == (PICTURES, 0, False)
    assert sum("is gone" in line for line in said) == 1
    assert verify_store(tmp_path / "s").findings == ()
    assert store_bytes(tmp_path / "s") == store_bytes(folder / "reference")


def test_without_ray_the_install_line_is_named(monkeypatch, tmp_path, folder):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r'pip install "embedstore\[ray\]"'):
        extract_on_cluster(collection_of(folder / "images", PICTURES), tmp_path / "s", TokenEncoder)
    assert not (tmp_path / "s").exists()


def test_a_single_device_is_refused_because_ray_uses_every_one(tmp_path, folder):
    with pytest.raises(UsageError, match="Ray takes `device` auto, cpu or cuda"):
        extract_on_cluster(collection_of(folder / "images", 4), tmp_path / "s", TokenEncoder, device="cuda:1")


def test_an_address_where_nobody_listens_is_refused_at_once(tmp_path, folder):
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    with pytest.raises(
        UsageError, match=r"no Ray cluster answers at 'localhost:1' .*Start one with `ray start"
    ):
        extract_on_cluster(
            collection_of(folder / "images", 4), tmp_path / "s", TokenEncoder, address="localhost:1"
        )


def test_slots_are_one_per_gpu_or_one_per_node_without():
    def node(name, cpus, gpus, alive=True):
        resources = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
        return {"NodeID": name, "Alive": alive, "NodeManagerHostname": name, "Resources": resources}

    nodes = [node("a", 16.0, 4.0), node("b", 8.0, 0), node("dead", 8.0, 8.0, alive=False)]
    found = ray_engine._slots(nodes, "auto")
    assert [(slot.node_id, slot.device, slot.cpus, slot.gpus, count) for slot, count in found.items()] == [
        ("a", "cuda:0", 4, 1, 4)
    ]
    found = ray_engine._slots(nodes, "cpu")
    assert [(slot.node_id, slot.device, slot.cpus, slot.gpus, count) for slot, count in found.items()] == [
        ("a", "cpu", 16, 0, 1),
        ("b", "cpu", 8, 0, 1),
    ]
    assert ray_engine._slots(nodes[1:], "cuda") == {}
