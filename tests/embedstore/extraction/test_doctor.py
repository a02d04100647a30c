"""What the doctor says of a sound and of a broken installation."""

from __future__ import annotations

import json
import shutil
import time
from importlib.metadata import PackageNotFoundError

import httpx2
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, errors

from cli.main import run
from embedstore.encoders.hog import HogEncoder
from embedstore.encoders.registry import image_encoder
from embedstore.errors import MissingWeights
from embedstore.extraction import doctor, installed
from embedstore.extraction.extract import extract
from embedstore.extraction.installed import OPTIONAL_VERSIONS, TESTED_VERSIONS, Finding, State
from embedstore.plugins import ENCODERS, HEADS
from heads.registry import head_family
from tests.checkpoints import cache_snapshot, write_siglip
from tests.paths import PROJECT
from tests.pictures import collection_of, write_pictures
from tests.plugin_packages import install
from tests.stores import MeanEncoder, make_store

ROOT = PROJECT
URL_TEMPLATE = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture(autouse=True)
def _short_trial(monkeypatch):
    monkeypatch.setattr(doctor, "_TRIAL_S", 0.2)


def test_the_tested_versions_are_those_of_the_constraints():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    pinned = dict(line.split("==") for line in lines)
    assert {name: pinned[name] for name in TESTED_VERSIONS} == TESTED_VERSIONS
    assert set(OPTIONAL_VERSIONS) <= set(pinned)


def test_a_missing_library_is_broken_and_another_version_is_a_note(monkeypatch):
    held = dict(TESTED_VERSIONS, numpy="1.0", torch=TESTED_VERSIONS["torch"] + "+cpu")
    del held["zarr"], held["ray"]

    def version(name):
        if name not in held:
            raise PackageNotFoundError(name)
        return held[name]

    monkeypatch.setattr(installed, "version", version)
    found = {finding.topic: finding for finding in doctor.library_findings()}
    assert found["zarr"].state is State.BROKEN
    assert found["zarr"].fix == f"pip install zarr=={TESTED_VERSIONS['zarr']}"
    assert found["numpy"].state is State.NOTE
    assert found["torch"].state is State.FINE
    assert "ray" not in found


def test_plugins_of_other_packages_are_listed_with_their_version_and_whether_they_load(tmp_path, monkeypatch):
    assert list(doctor.plugin_findings()) == []
    install(
        tmp_path,
        "their-plugins",
        {ENCODERS: {"sound": "their_module:thing"}, HEADS: {"broken": "their_broken_module:thing"}},
        {"their_module": "thing = 1", "their_broken_module": "import no_such_library"},
        version="0.3",
    )
    monkeypatch.syspath_prepend(tmp_path)
    sound, broken = doctor.plugin_findings()
    assert (sound.topic, sound.state, sound.found) == (
        "encoder sound",
        State.FINE,
        "their-plugins 0.3: loads",
    )
    assert sound.values == {
        "group": "embedstore.encoders",
        "name": "sound",
        "package": "their-plugins",
        "version": "0.3",
        "loads": True,
    }
    assert (broken.topic, broken.state) == ("head broken", State.NOTE)
    assert broken.found == "their-plugins 0.3: does not load"
    assert "No module named 'no_such_library'" in broken.fix
    assert broken.values["loads"] is False


def test_a_head_that_loads_but_lacks_its_contract_is_found(tmp_path, monkeypatch):
    install(
        tmp_path,
        "their-heads",
        {HEADS: {"half": "their_head:Half", "raising": "their_head:Raising"}},
        {
            "their_head": "from heads.base import HeadDefaults\n"
            "class Half: pass\n"
            "class Raising(HeadDefaults):\n"
            "    name = 'raising'\n"
            "    @classmethod\n"
            "    def family(cls): raise RuntimeError('no grid today')\n"
        },
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [finding.values["loads"] for finding in doctor.plugin_findings()] == [True, True]
    half, raising = doctor.plugin_findings(head_family)
    assert half.values["loads"] is raising.values["loads"] is False
    assert "head 'half' lacks " in half.fix
    assert "raising" in raising.fix or "no grid today" in raising.fix


def test_weights_that_are_not_there_are_a_note_with_their_fix():
    def build(name):
        raise MissingWeights(f"{name} is gated: accept the terms")

    assert doctor.weights_finding("medsiglip-448", build) == Finding(
        "medsiglip-448", State.NOTE, "weights are not there", "medsiglip-448 is gated: accept the terms"
    )


@pytest.fixture
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("_empty_cache")
@pytest.mark.parametrize(
    "error",
    [httpx2.ConnectError("no route"), httpx2.ConnectTimeout("slow"), errors.OfflineModeIsEnabled("set")],
)
def test_without_a_network_the_hub_is_asked_once_and_briefly(monkeypatch, error):
    asked = []

    def refuse(url, timeout):
        asked.append((url, timeout))
        raise error

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("downloads"))
    finding = doctor.weights_finding("medsiglip-448", image_encoder)
    assert (finding.state, finding.found) == (State.NOTE, "weights are not there, and this is offline")
    assert "hf download google/medsiglip-448" in finding.fix
    assert asked == [("https://huggingface.co/google/medsiglip-448/resolve/main/config.json", 3.0)]


@pytest.mark.usefixtures("_empty_cache")
def test_a_network_that_refuses_connections_is_found_out_in_seconds_and_in_silence(
    monkeypatch, caplog, capfd
):
    # Nobody listens there; the library's own way would be six tries with pauses of 23 s together.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", URL_TEMPLATE)
    started = time.monotonic()
    finding = doctor.weights_finding("medsiglip-448", image_encoder)
    assert finding.found == "weights are not there, and this is offline"
    assert time.monotonic() - started < 5
    assert caplog.text == ""
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("_empty_cache")
@pytest.mark.parametrize("encoder", ["medsiglip-448", "owner/model"])
def test_a_hub_that_does_not_answer_is_asked_once_whatever_encoder_is_to_be_measured(monkeypatch, encoder):
    asked = []

    def refuse(url, timeout):
        asked.append(url)
        raise httpx2.ConnectTimeout("slow")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("downloads"))
    found = {finding.topic: finding for finding in doctor.examine(None, image_encoder, encoder)}
    assert len(asked) == 1
    assert "google/medgemma-4b-pt" in found["medgemma-896"].fix
    speed = found[f"speed of {encoder}"]
    assert (speed.state, speed.found.partition(":")[0]) == (State.BROKEN, "did not run")
    fixes = [finding.fix for finding in found.values() if f"{encoder} (revision" in finding.fix]
    assert len(fixes) == 1


@pytest.mark.usefixtures("_empty_cache")
def test_weights_without_a_network_are_not_asked_for_again_and_again_beside_a_cached_configuration(
    tmp_path, monkeypatch
):
    (tmp_path / "tiny").mkdir()
    write_siglip(tmp_path / "tiny")
    (tmp_path / "tiny" / "model.safetensors").unlink()
    cache_snapshot(tmp_path / "hub", "owner/model", tmp_path / "tiny")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("downloads"))
    finding = doctor.speed_finding(image_encoder, "owner/model", timeout_s=None)
    assert "model.safetensors of owner/model" in finding.fix


@pytest.mark.usefixtures("_empty_cache")
def test_a_gated_model_is_told_from_a_missing_network(monkeypatch):
    def refuse(url, timeout):
        request = httpx2.Request("HEAD", url)
        raise errors.GatedRepoError("403", response=httpx2.Response(403, request=request))

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    finding = doctor.weights_finding("medsiglip-448", image_encoder)
    assert finding.found == "weights are not there"
    assert "gated: accept the terms" in finding.fix


@pytest.mark.usefixtures("_empty_cache")
def test_cached_weights_are_found_without_asking_the_hub(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    write_siglip(tmp_path / "tiny")
    cache_snapshot(tmp_path / "hub", "google/medsiglip-448", tmp_path / "tiny")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: pytest.fail("asks"))
    assert doctor.weights_finding("medsiglip-448", image_encoder).state is State.FINE


def test_a_folder_that_cannot_be_written_is_broken(tmp_path, monkeypatch):
    def refuse(folder):
        raise OSError(30, "Read-only file system", str(folder))

    monkeypatch.setattr(doctor, "_fsync_ms", refuse)
    disk, fsync = doctor.disk_findings(tmp_path / "not" / "there")
    assert disk.values["free_bytes"] > 0
    assert fsync.state is State.BROKEN
    assert "Read-only file system" in fsync.found


def test_a_store_that_is_not_there_is_said_and_the_folder_above_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "WEIGHTS", ())
    wanted = tmp_path / "nostore"
    found = {finding.topic: finding for finding in doctor.examine(wanted, lambda name: MeanEncoder(), "mean")}
    assert (found["store"].state, found["store"].found) == (State.NOTE, f"none at {wanted}")
    assert found["disk"].found.endswith(f"free at {tmp_path}")
    make_store(wanted)
    assert doctor.store_finding(wanted).state is State.FINE
    (wanted / "store.json").write_text("{")
    assert doctor.store_finding(wanted).state is State.BROKEN


def test_the_speed_says_how_long_mura_takes():
    finding = doctor.speed_finding(lambda name: MeanEncoder(), "mean")
    assert finding.state is State.FINE
    assert finding.values["mura_hours"] == pytest.approx(40_005 / finding.values["images_per_s"] / 3600)


def test_the_command_names_every_topic_and_its_exit_code_says_whether_something_is_broken(
    capsys, monkeypatch
):
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    topics = {finding["topic"] for finding in found["findings"]}
    assert {"python", "processor", "medsiglip-448", "medgemma-896", "disk", "fsync", "speed of hog"} <= topics
    assert found["sound"]
    broken = Finding("disk", State.BROKEN, "cannot write", "choose another folder")
    monkeypatch.setattr(
        "cli.commands.doctor.examine", lambda folder, build, encoder, key, load_head: iter([broken])
    )
    assert run(["doctor"]) == 1
    assert "BROKEN  disk: cannot write\n        fix: choose another folder" in capsys.readouterr().out


def test_a_store_is_asked_whether_its_vectors_are_still_made_here(tmp_path, monkeypatch):
    write_pictures(tmp_path / "images", range(8))
    extract(collection_of(tmp_path / "images", 8), tmp_path / "s", HogEncoder(device="cpu"))
    found = doctor.vectors_finding(tmp_path / "s")
    assert (found.state, found.found) == (State.FINE, "5 images embedded again: the same to the bit")

    class Other(HogEncoder):
        def encode(self, pixels):
            return super().encode(pixels) * np.float32(1.01)

    monkeypatch.setattr(
        "embedstore.encoders.registry.encoder_of_identity", lambda *_, **__: Other(device="cpu")
    )
    found = doctor.vectors_finding(tmp_path / "s")
    assert found.state is State.BROKEN
    assert found.values == {}
    shutil.rmtree(tmp_path / "images")
    assert doctor.vectors_finding(tmp_path / "s").found.startswith("not compared: none of its image files")
