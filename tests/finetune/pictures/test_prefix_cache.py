"""What frozen blocks made, kept on disk: the same losses, a kill in between, and bytes that are not what they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedstore.errors import CorruptStore, DataError, UsageError
from finetune.fine_tuning import fine_tune
from finetune.job import Watchers
from finetune.pictures.augment import NONE, Augmentation
from finetune.pictures.cached_inputs import cache_format, saved_share
from finetune.pictures.prefix_cache import PLAIN_VIEW, CacheSpec, open_cache
from finetune.prefix import CacheOptions
from finetune.recipe import Recipe
from finetune.training.lesson import Stopped
from tests.finetune.lessons import job_of, recipe_of, write_lesson

VARIED = Augmentation(noise=0.02)


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cached")
    write_lesson(folder)
    return folder


def losses(folder: Path) -> list[float]:
    lines = (folder / "training/metrics.jsonl").read_text().splitlines()
    return [json.loads(line).get("loss", json.loads(line).get("validation_loss")) for line in lines]


@pytest.mark.parametrize(
    ("kind", "augmentation", "tolerance"),
    [("float16", VARIED, 1e-3), ("int8", NONE, 3e-2)],
)
def test_a_training_from_the_cache_has_the_losses_of_one_without(lesson, kind, augmentation, tolerance):
    name = f"{kind}-{'plain' if augmentation is NONE else 'varied'}"
    # More than 100 steps, with two views in turn.
    recipe = recipe_of(epochs=7, batch=2, lr=1e-4, views=2, augmentation=augmentation, patience=99)
    without = fine_tune(job_of(lesson, f"{name}-without", recipe, cache=CacheOptions(asked="none")))
    said = []
    cached = fine_tune(
        job_of(lesson, f"{name}-cached", recipe, cache=CacheOptions(asked=kind)), Watchers(say=said.append)
    )
    assert without.progress.step == cached.progress.step == 112
    expected, found = losses(without.folder), losses(cached.folder)
    assert found == pytest.approx(expected, rel=tolerance)
    assert found != expected  # they were read from a cache
    (announced,) = [line for line in said if line.startswith("prefix cache: ")]
    rows = 38 if augmentation is NONE else 2 * 32 + 6
    size = {"float16": "576 bytes", "int8": "324 bytes"}[kind]
    assert f"{rows} rows of 9 x 32 {kind}, {size} a row" in announced
    assert not (cached.folder / "training/cache").exists()


def test_a_cache_that_was_interrupted_goes_on_and_is_shared(lesson, tmp_path, monkeypatch):
    monkeypatch.setattr("finetune.pictures.prefix_cache.MAX_CHUNK_ROWS", 8)
    kept = CacheOptions(asked="float16", folder=tmp_path / "caches")
    asked = iter(range(99))
    with pytest.raises(Stopped):
        fine_tune(
            job_of(lesson, "interrupted", recipe_of(), cache=kept),
            Watchers(stopping=lambda: next(asked) == 2),
        )
    (folder,) = (tmp_path / "caches").iterdir()
    before = {path: path.stat().st_mtime_ns for path in (folder / "c").iterdir()}
    assert len(before) == 2
    fine_tune(job_of(lesson, "interrupted", recipe_of(), cache=kept, resume=True))
    assert len(list((folder / "c").iterdir())) == 5  # 38 rows
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    whole = fine_tune(job_of(lesson, "shared", recipe_of(lr=2e-3), cache=kept))
    assert len(list((tmp_path / "caches").iterdir())) == 1
    weights = load_file(whole.folder / "changed.safetensors")
    assert all(torch.isfinite(weight).all() for weight in weights.values())


def test_bytes_that_changed_are_refused_and_a_cache_that_is_too_large_is_not_begun(lesson, tmp_path):
    kept = CacheOptions(asked="float16", folder=tmp_path / "caches")
    fine_tune(job_of(lesson, "first", recipe_of(epochs=1), cache=kept))
    (chunk,) = (tmp_path / "caches").glob("*/c/*")
    payload = bytearray(chunk.read_bytes())
    payload[100] ^= 1
    chunk.write_bytes(payload)
    with pytest.raises(CorruptStore, match=r"c/000000 is not what was written"):
        fine_tune(job_of(lesson, "second", recipe_of(epochs=1), cache=kept))
    small = CacheOptions(asked="float16", limit_gb=1e-6)
    with pytest.raises(DataError, match=r"needs 2\d.\d kB, and the limit is 1e-06 GB. Use `cache='int8'`"):
        fine_tune(job_of(lesson, "third", recipe_of(), cache=small))
    said = []
    fine_tune(
        job_of(lesson, "fourth", recipe_of(), cache=replace(small, asked="auto")), Watchers(say=said.append)
    )
    assert "no prefix cache: the limit is 1e-06 GB" in said


def test_int8_keeps_each_token_to_half_a_step_of_its_own_scale(tmp_path):
    spec = CacheSpec(
        question={},
        image_ids={PLAIN_VIEW: ["a", "b"]},
        content_sha256="0",
        tokens=3,
        dim=50,
        format="int8",
    )
    cache = open_cache(tmp_path, spec)
    rows = (
        torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 100.0, 1e-3])[:, None]
    )
    cache.write(cache.missing()[0], rows)
    assert not cache.missing()
    found = cache.read(PLAIN_VIEW, np.array([1, 0]))
    steps = rows.abs().amax(2, keepdim=True) / 127
    assert ((found.flip(0) - rows).abs() <= steps * 0.5001).all()
    cache = open_cache(tmp_path, replace(spec, format="float16"))
    with pytest.raises(DataError, match="which float16 does not; use `cache='int8'`"):
        cache.write(cache.missing()[0], rows * 1e5)


def test_the_choice_counts_passes_through_blocks():
    plain = Recipe(augmentation=NONE, epochs=10)
    # Without: 10 x (25 + 2 x 3); with: 25 once, and 10 x 2 x 3.
    assert saved_share(plain, blocks=27, frozen=25) == pytest.approx(85 / 310)
    assert saved_share(replace(plain, recompute=True), blocks=27, frozen=25) == pytest.approx(105 / 330)
    assert saved_share(Recipe(epochs=10, views=3), blocks=27, frozen=25) == pytest.approx(135 / 310)
    quiet = {"blocks": 27, "say": lambda line: None}
    assert cache_format("auto", plain, frozen=25, **quiet) == "float16"
    assert cache_format("auto", Recipe(epochs=10), frozen=25, **quiet) is None  # new pictures in every epoch
    assert cache_format("auto", plain, frozen=0, **quiet) is None
    with pytest.raises(UsageError, match="none is frozen"):
        cache_format("int8", plain, frozen=0, **quiet)
