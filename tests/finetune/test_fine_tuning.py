"""A whole training: what is frozen stays, what is exported answers as the model did, and a kill loses nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from embedstore.encoders.registry import encoder_of_identity, image_encoder
from embedstore.errors import DataError, IdentityMismatch, MissingWeights, UsageError
from embedstore.finetuned.encoder_folder import open_encoder_folder
from embedstore.queries.load_view import load_views
from embedstore.store.reader import open_store
from finetune import fine_tuning
from finetune.cross_fitting import cross_fit
from finetune.fine_tuning import fine_tune
from finetune.job import Watchers
from finetune.pictures.augment import Augmentation
from finetune.recipe import LoraRecipe
from finetune.towers.tunable import TunableTower
from finetune.training.lesson import Stopped, TrainingDiverged
from finetune.training.validation import Validation
from tests.checkpoints import by_hand, pictures, relative_error, write_gemma, write_image_tower
from tests.finetune.lessons import job_of, recipe_of, write_lesson
from tests.lumbar_stores import make_crops, severities

VARIED = Augmentation(noise=0.02)


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lesson")
    write_lesson(folder)
    return folder


def trained_vectors(monkeypatch, job, asked):
    """Train to the last epoch, and return what the model said of pictures just before it was exported."""
    said = {}

    def ever_better(self):
        return Validation(1 / (1 + self.progress.step), np.nan, 0.5, 3)

    monkeypatch.setattr(fine_tuning.Trainer, "validate", ever_better)
    export = fine_tuning._trained

    def seen(model, *rest):
        with torch.no_grad():
            said["vectors"] = model.eval().vectors(by_hand(asked)).numpy()
        return export(model, *rest)

    monkeypatch.setattr(fine_tuning, "_trained", seen)
    tuned = fine_tune(job)
    monkeypatch.undo()
    return tuned, said["vectors"]


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("unfreeze", recipe_of(blocks=2)),
        ("mean", recipe_of(blocks=1, ema=0.9, recompute=True)),
        ("lora", recipe_of(method="lora", blocks=None, lora=LoraRecipe(r=2))),
        ("dora", recipe_of(method="lora", blocks=2, lora=LoraRecipe(r=2, dora=True, targets=("q", "fc1")))),
    ],
)
def test_the_exported_encoder_gives_the_vectors_of_the_trained_model(lesson, monkeypatch, name, recipe):
    asked = pictures(3)
    pooling = "mean" if name == "mean" else None
    job = job_of(lesson, f"encoder-{name}", recipe, pooling=pooling)
    tuned, said = trained_vectors(monkeypatch, job, asked)
    base = transformers.SiglipVisionModel.from_pretrained(lesson / "base", dtype=torch.float32)
    before = dict(base.named_parameters())
    changed = load_file(tuned.folder / "changed.safetensors")
    assert tuned.progress.best_epoch == 2
    moved = {key for key, weight in changed.items() if not torch.equal(weight, before[key])}
    # What is not in the file is the base's, to the bit; what is in it was trained and did move.
    frozen_blocks = {"unfreeze": (0,), "mean": (0, 1), "lora": (), "dora": (0,)}[name]
    assert not any(key.startswith(f"encoder.layers.{block}.") for key in changed for block in frozen_blocks)
    assert not any("embeddings" in key for key in changed)
    assert any(key.startswith("encoder.layers.2.") for key in moved)
    assert (name in ("lora", "dora")) == (not any(key.startswith(("head.", "post_")) for key in changed))
    encoder = image_encoder(str(tuned.folder), device="cpu", dtype="float32")
    encoder.load()
    assert relative_error(encoder.encode(asked), said) < 1e-5
    # And by transformers alone, without this project's way of loading.
    base.load_state_dict({**base.state_dict(), **changed})
    with torch.no_grad():
        output = base.eval()(pixel_values=by_hand(asked))
    alone = output.last_hidden_state.mean(1) if name == "mean" else output.pooler_output
    assert relative_error(alone.numpy(), said) < 1e-5
    assert encoder.identity.options["finetuned"]["method"] == recipe.method
    assert encoder.identity.weights_sha256 != image_encoder(str(lesson / "base")).identity.weights_sha256


@pytest.mark.parametrize("method", ["unfreeze", "lora"])
def test_a_medgemma_tower_without_a_pooling_head_is_fine_tuned_as_well(lesson, monkeypatch, method):
    """The base of work A (arXiv 2511.05600): the mean of the tokens of a Gemma 3's tower."""
    if not (lesson / "gemma").exists():
        write_gemma(lesson / "gemma")
    recipe = recipe_of(method=method, lora=LoraRecipe(r=2) if method == "lora" else None)
    job = replace(job_of(lesson, f"gemma-{method}", recipe), encoder=str(lesson / "gemma"))
    asked = pictures(2)
    tuned, said = trained_vectors(monkeypatch, job, asked)
    encoder = image_encoder(str(tuned.folder), device="cpu", dtype="float32")
    encoder.load()
    assert encoder.identity.pooling == "mean"
    assert relative_error(encoder.encode(asked), said) < 1e-5
    base = image_encoder(str(lesson / "gemma"), device="cpu", dtype="float32")
    base.load()
    assert relative_error(base.encode(asked), said) > 1e-3


def stopped_at(steps):
    """Return who stops a training before the step of a number."""
    asked = iter(range(10**6))
    return Watchers(stopping=lambda: next(asked) >= steps)


@pytest.mark.parametrize("method", ["unfreeze", "lora"])
def test_a_training_that_was_stopped_and_gone_on_with_has_the_bits_of_one_that_was_not(lesson, method):
    lora = LoraRecipe(r=2, dropout=0.3) if method == "lora" else None
    recipe = recipe_of(method=method, lora=lora, augmentation=VARIED, ema=0.9, head_dropout=0.2)
    whole = fine_tune(job_of(lesson, f"whole-{method}", recipe))
    pieces = job_of(lesson, f"pieces-{method}", recipe)
    for steps in (1, 2, 0):
        resume = (lesson / f"pieces-{method}/training/state.json").exists()
        going_on = job_of(lesson, f"pieces-{method}", recipe, resume=resume)
        with pytest.raises(Stopped):
            fine_tune(going_on, watchers=stopped_at(steps))
    with pytest.raises(UsageError, match="unfinished training; go on with it by `resume`"):
        fine_tune(pieces)
    fine_tune(job_of(lesson, f"pieces-{method}", recipe, resume=True))
    for name in ("changed.safetensors", "head.safetensors"):
        assert (lesson / f"pieces-{method}" / name).read_bytes() == (whole.folder / name).read_bytes()
    lines = (lesson / f"pieces-{method}/training/metrics.jsonl").read_text().splitlines()
    expected = (whole.folder / "training/metrics.jsonl").read_text().splitlines()
    kept = [json.loads(line).get("validation_loss") for line in lines]
    assert kept == [json.loads(line).get("validation_loss") for line in expected]


def test_a_state_that_could_not_be_written_whole_leaves_the_one_before(lesson, monkeypatch):
    recipe = recipe_of(epochs=3)
    whole = fine_tune(job_of(lesson, "undisturbed", recipe))
    monkeypatch.setenv("EMBEDSTORE_FAILPOINT", "finetune-state.write:2=ENOSPC")
    with pytest.raises(OSError, match="No space"):
        fine_tune(job_of(lesson, "full-disk", recipe))
    monkeypatch.delenv("EMBEDSTORE_FAILPOINT")
    fine_tune(job_of(lesson, "full-disk", recipe, resume=True))
    name = "changed.safetensors"
    assert (lesson / "full-disk" / name).read_bytes() == (whole.folder / name).read_bytes()


def test_other_settings_are_refused_with_what_differs(lesson):
    with pytest.raises(Stopped):
        fine_tune(job_of(lesson, "settings", recipe_of()), watchers=stopped_at(1))
    with pytest.raises(
        UsageError, match=r"recipe\.batch: 16 before, 8 now; recipe\.lr: 0\.001 before, 0\.01 now"
    ):
        fine_tune(job_of(lesson, "settings", recipe_of(batch=8, lr=0.01), resume=True))
    # How much is computed at once is no such setting.
    fine_tune(job_of(lesson, "settings", recipe_of(micro_batch=8), resume=True))


def test_memory_that_runs_out_halves_what_is_computed_at_once_and_changes_no_step(lesson, monkeypatch):
    whole = fine_tune(job_of(lesson, "roomy", recipe_of()))
    forward = TunableTower.forward

    def narrow(self, inputs, **options):
        if torch.is_grad_enabled() and len(inputs) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, inputs, **options)

    monkeypatch.setattr(TunableTower, "forward", narrow)
    said = []
    tuned = fine_tune(job_of(lesson, "narrow", recipe_of()), Watchers(say=said.append))
    assert tuned.progress.micro_batch == 4
    assert "out of memory with 16 images at once; going on with 8, and 2 pieces to a batch of 16" in said
    wide, pieced = (load_file(folder / "changed.safetensors") for folder in (whole.folder, tuned.folder))
    for name, weight in wide.items():
        assert torch.allclose(weight, pieced[name], atol=2e-5), name


def test_a_loss_that_is_no_number_stops_with_its_causes_and_keeps_the_state_before(lesson, monkeypatch):
    loss = fine_tuning.Trainer._gradients

    def broken(self, *rest):
        found = loss(self, *rest)
        return float("nan") if self.progress.step == 3 else found

    monkeypatch.setattr(fine_tuning.Trainer, "_gradients", broken)
    with pytest.raises(TrainingDiverged, match=r"step 4: the loss is nan .* learning rate that is too high"):
        fine_tune(job_of(lesson, "diverged", recipe_of()))
    state = json.loads((lesson / "diverged/training/state.json").read_text())
    assert state["progress"]["step"] == 2  # of the end of the first epoch: 28 images teach, 16 a step


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": recipe_of(blocks=4)}, "`blocks` must be at most the 3 of the encoder; found 4"),
        ({"targets": ["sing"]}, "has no target 'sing'; it has sign. Did you mean 'sign'"),
        ({"recipe": recipe_of(dtype="float16")}, "`dtype` must be auto, float32 or bfloat16"),
        ({"recipe": recipe_of(validation_share=0.05)}, "19 patients are too few to part 20 ways"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(lesson, settings, message):
    recipe = settings.pop("recipe", None)
    with pytest.raises((UsageError, DataError), match=message):
        fine_tune(job_of(lesson, "never", recipe, **settings))
    assert not (lesson / "never").exists()


def test_an_encoder_without_blocks_is_refused(lesson):
    job = job_of(lesson, "never")
    with pytest.raises(
        UsageError, match=r"`encoder` must be a SigLIP or Gemma 3 checkpoint .* 'hog' has no blocks"
    ):
        fine_tune(replace(job, encoder="hog"))


def test_an_edited_encoder_is_refused(lesson):
    tuned = fine_tune(job_of(lesson, "edited", recipe_of(epochs=1)))
    identity = image_encoder(str(tuned.folder), dtype="float32").identity
    again = encoder_of_identity(identity, holder="x", name=str(tuned.folder))
    assert again.identity == identity
    with pytest.raises(
        UsageError, match=r"store x holds vectors of an encoder that was fine-tuned, 'edited': name its"
    ):
        encoder_of_identity(identity, holder="store x", name="hog")
    other = fine_tune(job_of(lesson, "another", recipe_of(epochs=1, seed=3)))
    with pytest.raises(
        IdentityMismatch, match=r"trained otherwise .* \(other recipe_sha256, patients_sha256\)"
    ):
        encoder_of_identity(identity, holder="store x", name=str(other.folder))
    document = tuned.folder / "encoder.json"
    text = document.read_text()
    document.write_text(text.replace('"blocks": 1', '"blocks": 2'))
    with pytest.raises(DataError, match=r"encoder\.json was changed after the training"):
        image_encoder(str(tuned.folder))
    document.write_text(text)
    weights = tuned.folder / "changed.safetensors"
    payload = bytearray(weights.read_bytes())
    payload[-1] ^= 1
    weights.write_bytes(payload)
    with pytest.raises(DataError, match=r"changed\.safetensors was changed after the training"):
        image_encoder(str(tuned.folder)).load()
    # Without the list of patients no store could keep it: that is said before a picture is decoded.
    (tuned.folder / "trained_patients.json").unlink()
    with pytest.raises(MissingWeights, match=r"trained_patients\.json is missing"):
        image_encoder(str(tuned.folder))


def test_a_training_that_is_not_finished_is_called_so(tmp_path):
    (tmp_path / "begun" / "training").mkdir(parents=True)
    (tmp_path / "begun" / "training" / "state.json").write_text("{}")
    with pytest.raises(MissingWeights, match="is an unfinished training; `embed finetune` goes on"):
        image_encoder(str(tmp_path / "begun")).load()


def test_a_base_that_was_moved_or_is_another_is_asked_for_by_name(tmp_path):
    write_lesson(tmp_path)
    tuned = fine_tune(job_of(tmp_path, "encoder", recipe_of(epochs=1)))
    identity = image_encoder(str(tuned.folder), dtype="float32").identity
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(
        MissingWeights, match=r"needs what it was made from.*Put it, or a link to it, at .*encoder/base"
    ):
        image_encoder(str(tuned.folder), dtype="float32").load()
    (tuned.folder / "base").symlink_to(tmp_path / "moved")
    assert image_encoder(str(tuned.folder), dtype="float32").identity == identity
    (tuned.folder / "base").unlink()
    write_image_tower(tmp_path / "base", num_hidden_layers=3, hidden_act="relu")
    with pytest.raises(DataError, match="was made from weights with sha256"):
        image_encoder(str(tuned.folder), dtype="float32").load()


def test_an_encoder_that_was_fine_tuned_is_fine_tuned_on_and_remembers_all_its_patients(tmp_path):
    (tmp_path / "others").mkdir()
    write_lesson(tmp_path)
    write_lesson(tmp_path / "others", name="other")
    first = fine_tune(job_of(tmp_path, "first", recipe_of(epochs=1)))
    again = replace(job_of(tmp_path, "second", recipe_of(epochs=1, seed=5)), encoder=str(first.folder))
    # By whom it was taught, it cannot be judged.
    with pytest.raises(UsageError, match=r"was fine-tuned on 1\d of these 24 patients: who judges now"):
        fine_tune(again)
    with pytest.raises(UsageError, match="who judges now"):
        cross_fit(again, 2)
    others = job_of(tmp_path / "others", "second", recipe_of(epochs=1, seed=5))
    second = fine_tune(replace(others, encoder=str(first.folder)))
    before, after = (open_encoder_folder(tuned.folder).patients() for tuned in (first, second))
    assert before.taught < after.taught
    assert not after.taught & after.judged
    encoder = image_encoder(str(second.folder), device="cpu", dtype="float32")
    encoder.load()
    assert np.isfinite(encoder.encode(pictures(2))).all()


def test_a_crop_teaches_its_own_target_alone(tmp_path):
    store = open_store(make_crops(tmp_path / "crops.store", severities(3), points="oracle", signal=1.0))
    (task,) = store.tasks
    rules = fine_tuning._image_rules([store], None)
    mask = load_views([store], task, image_rules=rules).image_of_target
    assert (mask.sum(axis=1) == 1).all()  # each of 75 crops is of one condition, level and side
    write_lesson(tmp_path)
    assert fine_tuning._image_rules([open_store(tmp_path / "pictures.store")], None) is None


def test_three_classes_learn_by_a_masked_choice(tmp_path):
    write_lesson(tmp_path, patients=30, classes=("none", "mild", "severe"))
    tuned = fine_tune(job_of(tmp_path, "three", recipe_of(epochs=1, class_weights="balanced")))
    assert load_file(tuned.folder / "head.safetensors")["layers.3.weight"].shape == (3, 8)
    assert np.isfinite(tuned.progress.best_loss)
