"""What a checkpoint must hold to answer questions about images, and which changes make it another model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers

from embedstore.errors import DataError, MissingWeights, UsageError
from embedstore.generation.model_files import open_model_files, settings_of
from tests.checkpoints import edit_config, silent_transformers, write_image_tower


@pytest.fixture
def folder(answering: Path, tmp_path: Path) -> Path:
    shutil.copytree(answering, tmp_path / "tiny-it")
    return tmp_path / "tiny-it"


def test_a_model_is_named_by_its_folder_and_digested(folder: Path) -> None:
    files = open_model_files(str(folder))
    assert files.size_px == 42
    assert settings_of(files) == {"model": "tiny-it", "revision": "local", "model_sha256": files.sha256}


def edited(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        edited("chat_template.jinja", "model", "MODEL"),
        edited("tokenizer.json", '"merges"', ' "merges"'),
        lambda folder: edit_config(folder, mm_tokens_per_image=4),
        edited("generation_config.json", "{", '{"max_length": 7,'),
    ],
)
def test_whatever_changes_an_answer_changes_the_digest(folder: Path, edit: Callable[[Path], None]) -> None:
    before = open_model_files(str(folder)).sha256
    edit(folder)
    assert open_model_files(str(folder)).sha256 != before


def test_who_saved_it_changes_nothing(folder: Path) -> None:
    before = open_model_files(str(folder)).sha256
    edit_config(folder, transformers_version="5.0.0", _name_or_path="elsewhere")
    assert open_model_files(str(folder)).sha256 == before


def without(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def with_processor(**settings: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "processor_config.json"
        document = json.loads(path.read_text())
        document["image_processor"] |= settings
        path.write_text(json.dumps(document))

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            without("processor_config.json"),
            "must hold a processor, preprocessor_config.json or processor_config.json",
        ),
        (
            without("tokenizer.json"),
            "must hold a tokenizer, tokenizer.json or tokenizer.model; found neither",
        ),
        (without("chat_template.jinja"), "must hold a chat template .* Give an instruction-tuned model"),
        (
            lambda folder: edit_config(folder, model_type="gemma3_text"),
            "reads text alone: model_type 'gemma3_text'",
        ),
        (lambda folder: edit_config(folder, model_type="llava"), "is of another kind: model_type 'llava'"),
        (lambda folder: edit_config(folder, vision_config=None), "and a vision_config"),
        (with_processor(do_pan_and_scan=True), "do_pan_and_scan must be off"),
        (
            with_processor(size={"height": 84, "width": 84}),
            "size must be that of the image tower, 42 px; found 84 x 84",
        ),
        (with_processor(image_mean=[0, 0, 0]), "image_mean must be"),
    ],
)
def test_a_checkpoint_that_cannot_answer_is_refused(
    folder: Path, edit: Callable[[Path], None], message: str
) -> None:
    edit(folder)
    with pytest.raises(DataError, match=message):
        open_model_files(str(folder))


def test_lone_towers_texts_and_places_without_a_model_are_refused(folder: Path, tmp_path: Path) -> None:
    write_image_tower(tmp_path / "tower")
    with pytest.raises(DataError, match="is of another kind: model_type 'siglip_vision_model'"):
        open_model_files(str(tmp_path / "tower"))
    with pytest.raises(
        UsageError, match="`model` must be a folder that is there, or a hub id 'owner/name'; found 'gone"
    ):
        open_model_files("gone/for/good")
    with pytest.raises(MissingWeights, match=r"the folder ./gone of `model` is not there"):
        open_model_files("./gone")
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingWeights, match=r"model.safetensors is missing from"):
        open_model_files(str(folder))


def test_a_text_only_gemma_is_refused(tmp_path: Path) -> None:
    with silent_transformers():
        config = transformers.Gemma3TextConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, vocab_size=16
        )
        transformers.Gemma3ForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="reads text alone: model_type 'gemma3_text'"):
        open_model_files(str(tmp_path))


def test_a_model_of_the_hub_that_cannot_be_fetched_says_so_without_advice_for_encoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights) as caught:
        open_model_files("google/medgemma-1.5-4b-it")
    assert "google/medgemma-1.5-4b-it" in str(caught.value)
    assert "hog" not in str(caught.value)
