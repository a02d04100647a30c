"""Checkpoints that are missing, gated, damaged, foreign or from the future: one clear line for each."""

import json
import os
import subprocess
import sys
import time

import httpx2
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, errors
from safetensors.torch import load_file, save_file

from embedstore.checkpoints import checkpoint, digest
from embedstore.checkpoints.hub import hub_file
from embedstore.encoders.registry import image_encoder
from embedstore.encoders.siglip import MEDSIGLIP_448, SiglipEncoder
from embedstore.errors import DataError, MissingDependency, MissingWeights, UsageError
from embedstore.files import sha256_file
from tests.checkpoints import cache_snapshot, edit_config, pictures, write_gemma, write_siglip
from tests.paths import PROJECT

REPOSITORY = "google/medsiglip-448"


@pytest.fixture(autouse=True)
def _own_caches(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "tiny-siglip"
    place.mkdir()
    write_siglip(place)
    return place


@pytest.fixture
def snapshot(tmp_path, folder):
    return cache_snapshot(tmp_path / "hub", REPOSITORY, folder)


def hub_answers(monkeypatch, error):
    """Make the hub answer every request with `error`."""

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)


def http_error(kind, status):
    request = httpx2.Request("GET", f"https://huggingface.co/{REPOSITORY}")
    return kind(f"{status} Client Error\nlong story", response=httpx2.Response(status, request=request))


# -- not there -------------------------------------------------------------------------------------------


def test_weights_that_are_not_cached_say_how_to_get_them_and_what_runs_now():
    with pytest.raises(MissingWeights) as caught:
        _ = MEDSIGLIP_448(device="cpu").identity
    message = str(caught.value)
    assert "\n" not in message
    for needed in (REPOSITORY, "HF_HUB_OFFLINE is set", f"hf download {REPOSITORY}", "`encoder='hog'`"):
        assert needed in message


def test_a_hub_out_of_reach_is_told_from_offline_mode(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_answers(monkeypatch, errors.LocalEntryNotFoundError("no connection"))
    with pytest.raises(MissingWeights, match="the hub cannot be reached"):
        _ = MEDSIGLIP_448().identity


def test_a_hub_out_of_reach_is_asked_once_and_not_retried(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked = []

    def unreachable(url, **_):
        asked.append(url)
        raise httpx2.ConnectError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("retries and prints")
    )
    with pytest.raises(MissingWeights, match="the hub cannot be reached"):
        _ = MEDSIGLIP_448(device="cpu").identity
    assert asked == [f"https://huggingface.co/{REPOSITORY}/resolve/main/config.json"]


def test_a_file_that_the_hub_has_not_is_left_to_the_download_which_notes_it(monkeypatch):
    """The cache's note that there is none serves later runs without a network."""
    downloads = []

    def absent(*_, **__):
        raise http_error(errors.RemoteEntryNotFoundError, 404)

    def download(*arguments, **_):
        downloads.append(arguments)
        absent()

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", absent)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert hub_file(REPOSITORY, "chat_template.json") is None
    assert downloads == [(REPOSITORY, "chat_template.json")]


def test_gated_weights_name_the_page_of_their_terms(monkeypatch):
    hub_answers(monkeypatch, http_error(errors.GatedRepoError, 403))
    with pytest.raises(
        MissingWeights, match=f"gated: accept the terms at https://huggingface.co/{REPOSITORY}.*hf auth login"
    ):
        _ = MEDSIGLIP_448().identity


def test_an_unknown_repository_is_told_from_a_gated_one(monkeypatch):
    hub_answers(monkeypatch, http_error(errors.RepositoryNotFoundError, 404))
    with pytest.raises(MissingWeights, match="is not there, or is private"):
        image_encoder("someone/nothing")


def test_an_unknown_revision_is_named(monkeypatch):
    hub_answers(monkeypatch, http_error(errors.RevisionNotFoundError, 404))
    with pytest.raises(MissingWeights, match="no revision 'v9'"):
        image_encoder(REPOSITORY, revision="v9")


def test_another_answer_of_the_hub_is_passed_on_in_one_line(monkeypatch):
    hub_answers(monkeypatch, http_error(errors.HfHubHTTPError, 503))
    with pytest.raises(MissingWeights, match="could not be fetched: 503 Client Error") as caught:
        _ = MEDSIGLIP_448().identity
    assert "long story" not in str(caught.value)


def test_a_full_disk_during_the_download_is_passed_on(monkeypatch):
    hub_answers(monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(MissingWeights, match="No space left on device"):
        _ = MEDSIGLIP_448().identity


def test_a_repository_without_a_configuration_is_no_checkpoint(monkeypatch):
    hub_answers(monkeypatch, http_error(errors.RemoteEntryNotFoundError, 404))
    with pytest.raises(DataError, match=r"has no config\.json"):
        image_encoder("someone/dataset")


@pytest.mark.parametrize("name", ["./missing", "/missing/folder", "~/missing-folder"])
def test_a_folder_that_is_not_there_is_not_asked_from_the_hub(name, monkeypatch):
    hub_answers(monkeypatch, AssertionError("asked the hub"))
    with pytest.raises(MissingWeights, match=r"folder .* is not there"):
        image_encoder(name)


def test_a_name_that_is_neither_folder_nor_hub_id_is_refused():
    with pytest.raises(UsageError, match="'owner/name'; found 'a/b/c'"):
        image_encoder("a/b/c")
    with pytest.raises(
        UsageError, match=r"`encoder` must be one of .*hog.* a folder or a hub id; found 'nothing'"
    ):
        image_encoder("nothing")


def test_an_interrupted_download_is_recognised_in_the_cache(snapshot):
    (snapshot / "model.safetensors").unlink()
    (snapshot.parents[1] / "blobs" / f"{'a' * 64}.incomplete").write_bytes(b"half")
    with pytest.raises(MissingWeights, match="download of google/medsiglip-448 was interrupted"):
        _ = MEDSIGLIP_448().identity


def test_an_interrupted_download_is_recognised_in_a_local_copy(folder):
    (folder / "model.safetensors").unlink()
    left = folder / ".cache" / "huggingface" / "download"
    left.mkdir(parents=True)
    (left / "model.abc.incomplete").write_bytes(b"half")
    with pytest.raises(MissingWeights, match=r"was interrupted: model.safetensors is not complete"):
        _ = SiglipEncoder(str(folder)).identity


def test_a_folder_without_weights_says_which_file_is_missing(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingWeights, match=r"model.safetensors is missing from"):
        _ = SiglipEncoder(str(folder)).identity


def test_a_folder_without_a_configuration_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingWeights, match=r"config\.json is missing"):
        image_encoder("empty")


# -- the hub's cache -------------------------------------------------------------------------------------


def test_cached_weights_work_offline_and_record_their_commit(snapshot, folder):
    encoder = MEDSIGLIP_448(device="cpu", dtype="float32")
    assert (encoder.identity.encoder, encoder.identity.revision) == ("medsiglip-448", "c" * 40)
    local = SiglipEncoder(str(folder), device="cpu", dtype="float32")
    assert encoder.identity.weights_sha256 == local.identity.weights_sha256
    np.testing.assert_array_equal(encoder.encode(pictures(2)), local.encode(pictures(2)))


def test_a_commit_may_be_asked_for(snapshot):
    encoder = image_encoder(REPOSITORY, revision="c" * 40)
    assert encoder.identity.revision == "c" * 40


def test_the_configuration_of_a_hub_id_is_looked_up_and_read_once(snapshot, monkeypatch):
    looked_up, read = [], []
    look_up, read_bytes = huggingface_hub.try_to_load_from_cache, checkpoint.Path.read_bytes

    def looking_up(repo_id, filename, **options):
        looked_up.append(filename)
        return look_up(repo_id, filename, **options)

    def reading(path):
        read.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", looking_up)
    monkeypatch.setattr(checkpoint.Path, "read_bytes", reading)
    encoder = image_encoder(REPOSITORY, device="cpu", dtype="float32")
    assert encoder.identity.revision == "c" * 40
    assert np.isfinite(encoder.encode(pictures(1))).all()
    assert (looked_up.count("config.json"), read.count("config.json")) == (1, 1)


def test_the_name_of_a_blob_serves_as_its_digest(snapshot, monkeypatch):
    monkeypatch.setattr(digest, "sha256_file", lambda path: pytest.fail("hashed"))
    assert len(MEDSIGLIP_448().identity.weights_sha256) == 64


def test_a_blob_with_a_flipped_bit_is_refused_before_it_computes(snapshot):
    blob = (snapshot / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-100] ^= 1
    blob.write_bytes(content)
    with pytest.raises(DataError, match=r"are damaged: the hub names them .* Delete .* and download again"):
        MEDSIGLIP_448(device="cpu").load()


def test_a_link_to_another_name_than_a_digest_is_hashed(folder, tmp_path):
    (tmp_path / "blobs").mkdir()
    target = tmp_path / "blobs" / "model"
    (folder / "model.safetensors").rename(target)
    (folder / "model.safetensors").symlink_to(target)
    assert digest.stated_sha256(folder / "model.safetensors") == sha256_file(target)


# -- digests ---------------------------------------------------------------------------------------------


def backdate(path):
    """Give a file the age at which its time stamp can be trusted."""
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))


def test_a_digest_is_taken_once_and_again_when_the_file_changes(folder, monkeypatch):
    path = folder / "model.safetensors"
    backdate(path)
    hashed = []
    monkeypatch.setattr(digest, "sha256_file", lambda target: hashed.append(target) or sha256_file(target))
    first = digest.measured_sha256(path)
    assert digest.measured_sha256(path) == first == sha256_file(path)
    assert len(hashed) == 1
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    backdate(path)  # same size, same time of change: the inode's own time tells
    assert digest.measured_sha256(path) == sha256_file(path) != first


def test_a_file_written_just_now_is_not_remembered(folder, tmp_path):
    digest.measured_sha256(folder / "model.safetensors")
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_a_cache_that_cannot_be_used_costs_time_and_nothing_else(folder, tmp_path, monkeypatch):
    path = folder / "model.safetensors"
    backdate(path)
    digest.measured_sha256(path)
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_text("[]")
    assert digest.measured_sha256(path) == sha256_file(path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert digest.measured_sha256(path) == sha256_file(path)


def test_the_identity_needs_neither_transformers_nor_torch_models(folder):
    script = (
        "import sys; from embedstore.encoders.registry import image_encoder; "
        f"image_encoder({str(folder)!r}).identity; print('transformers' in sys.modules)"
    )
    root = PROJECT
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "False"


# -- damaged ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (0, "does not begin with a safetensors header"),
        (7, "does not begin with a safetensors header"),
        (200, "truncated inside its header, 200 bytes"),
        (-1, "truncated: .* of .* bytes are there"),
    ],
)
def test_a_truncated_file_is_named_with_what_is_there(folder, keep, message):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"weights .*model.safetensors are damaged: .*{message}"):
        _ = SiglipEncoder(str(folder)).identity


def test_bytes_after_the_end_are_noticed(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(DataError, match="but its header describes"):
        _ = SiglipEncoder(str(folder)).identity


@pytest.mark.parametrize("header", [b"[1, 2]", b'{"a": {}}', b'{"a": 3}', b"{not json}", b"\xff\xfe{}"])
def test_a_header_that_is_not_the_formats_is_refused(folder, header):
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(DataError, match="header is not the format's JSON"):
        _ = SiglipEncoder(str(folder)).identity


def test_a_git_lfs_pointer_is_recognised(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(DataError, match="Git LFS pointer, not the weights; run `git lfs pull`"):
        _ = SiglipEncoder(str(folder)).identity


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_damaged_configuration_is_named(folder, content):
    (folder / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=r"config\.json (is not JSON|must hold a JSON object)"):
        image_encoder(str(folder))


def test_missing_weights_are_an_error_where_transformers_would_invent_them(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["vision_model.head.probe"], tensors["vision_model.post_layernorm.bias"]
    save_file(tensors, path)
    with pytest.raises(DataError, match=r"lacks 2 weights of the image tower.*: head\.probe, post_layernorm"):
        SiglipEncoder(str(folder), device="cpu").load()


def test_missing_text_weights_stop_text_alone(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["text_model.head.bias"]
    save_file(tensors, path)
    encoder = SiglipEncoder(str(folder), device="cpu")
    encoder.load()
    with pytest.raises(DataError, match=r"lacks 1 weights of the text tower.*: head\.bias"):
        encoder.encode_text(["a fracture"])


def test_weights_of_another_shape_than_the_configuration_says_are_an_error(folder):
    config = json.loads((folder / "config.json").read_text())
    edit_config(folder, vision_config=config["vision_config"] | {"intermediate_size": 80})
    with pytest.raises(DataError, match=r"image tower of .* (does not load|lacks)"):
        SiglipEncoder(str(folder), device="cpu").load()


def test_an_index_that_points_outside_its_folder_is_refused(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"vision_model.head.probe": "../../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="names files outside its folder"):
        _ = SiglipEncoder(str(folder)).identity


# -- foreign ---------------------------------------------------------------------------------------------


def test_pickle_files_are_refused_even_when_they_are_all_there_is(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"found only pytorch_model\.bin\. Pickle files can run code"):
        _ = SiglipEncoder(str(folder)).identity


def test_a_repository_with_pickles_alone_is_refused(snapshot, monkeypatch):
    (snapshot / "model.safetensors").unlink()
    hub_answers(monkeypatch, http_error(errors.RemoteEntryNotFoundError, 404))
    with pytest.raises(DataError, match=r"google/medsiglip-448 must hold safetensors weights; found none"):
        _ = MEDSIGLIP_448().identity


@pytest.mark.parametrize(
    ("model_type", "advice"),
    [
        ("paligemma", "PaliGemma projects its tokens"),
        ("clip", "CLIP has another tower"),
        ("gemma3_text", "no image tower"),
        ("bert", "known are siglip"),
        ("", "known are siglip"),
    ],
)
def test_another_architecture_is_named_with_what_to_bring(folder, model_type, advice):
    edit_config(folder, model_type=model_type)
    with pytest.raises(DataError, match=f"(?i)model_type '{model_type}'.*{advice}"):
        image_encoder(str(folder))


def test_a_gemma_folder_is_not_siglip(tmp_path):
    write_gemma(tmp_path / "g")
    with pytest.raises(DataError, match=r"must be a SigLIP checkpoint.*'gemma3'"):
        _ = SiglipEncoder(str(tmp_path / "g")).identity


def test_a_checkpoint_of_a_later_generation_is_refused_with_the_fix(folder):
    edit_config(folder, transformers_version="99.0.0")
    with pytest.raises(
        DataError, match=r"written by transformers 99\.0\.0.*pip install -U 'transformers>=99'"
    ):
        image_encoder(str(folder))


@pytest.mark.parametrize("build", [SiglipEncoder, image_encoder])
def test_a_checkpoint_of_a_later_release_loads_and_whoever_listens_is_told(folder, build):
    major = checkpoint.version("transformers").split(".")[0]
    edit_config(folder, transformers_version=f"{major}.999.0")
    encoder, said = build(str(folder), device="cpu"), []
    encoder.report_to(said.append)
    assert np.isfinite(encoder.encode(pictures(1))).all()
    assert len(said) == 1
    assert f"written by transformers {major}.999.0" in said[0]
    with pytest.warns(UserWarning, match=f"written by transformers {major}.999.0"):
        _ = build(str(folder), device="cpu").identity


@pytest.mark.parametrize("written_by", ["4.57.1", "", "5.0.0.dev0", "unknown"])
def test_an_earlier_or_unstated_release_is_nothing_to_speak_of(folder, written_by):
    edit_config(folder, transformers_version=written_by)
    encoder, said = SiglipEncoder(str(folder)), []
    encoder.report_to(said.append)
    _ = encoder.identity
    assert said == []


def test_transformers_that_are_not_installed_are_asked_for(folder, monkeypatch):
    def missing(name):
        raise checkpoint.PackageNotFoundError(name)

    monkeypatch.setattr(checkpoint, "version", missing)
    with pytest.raises(MissingDependency, match="pip install 'transformers>=5' sentencepiece"):
        image_encoder(str(folder))


def test_a_revision_belongs_to_a_hub_id_alone(folder):
    with pytest.raises(UsageError, match="revision 'main' belongs to a hub id"):
        image_encoder(str(folder), revision="main")


def test_an_option_that_an_encoder_does_not_know_is_refused():
    with pytest.raises(UsageError, match="encoder 'hog' has no pooling and no revision"):
        image_encoder("hog", revision="main", pooling="mean")
