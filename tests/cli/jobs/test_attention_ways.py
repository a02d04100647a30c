"""The attention ways end to end: probed with equal folds by the command, and whole slices answered from files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli.jobs import probe_store
from cli.jobs.predict_inputs import predict_inputs
from cli.main import run
from embedstore.encoders.registry import image_encoder
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.lumbar.levels import TARGETS
from heads.estimators.attention import AttentionFamily, AttentionHead
from heads.runs.run_files import load_run
from tests.lumbar_stores import make_crops, make_slices
from tests.lumbar_studies import blobs, usual_series, write_study

pytestmark = pytest.mark.slow
STUDIES = 18
LEARNED = (
    "spinal_canal_stenosis_l4_l5",
    "left_neural_foraminal_narrowing_l5_s1",
    "right_subarticular_stenosis_l4_l5",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attention")
    # Three targets of the three conditions have all grades; the others are no heads to be learned.
    y = np.zeros((STUDIES, len(TARGETS)), np.int64)
    chance = np.random.default_rng(0)
    for target in LEARNED:
        y[:, TARGETS.index(target)] = chance.permutation(STUDIES) % 3
    slices = make_slices(folder / "slices.store", y, identity=image_encoder("hog").identity)
    crops = make_crops(folder / "crops.store", y, points="localised", signal=3.0)
    words = ["probe", "--store", str(slices), "--crops", str(crops), "--ways", "slices-attention,crops"]
    words += ["--head", "attention", "--folds", "2", "--draws", "10", "--out", str(folder / "runs")]
    words += ["--final", "refit"]
    with pytest.MonkeyPatch.context() as patch:
        # One point of the grid and fewer steps: how heads are chosen and trained is tested with the head.
        one = AttentionFamily(points=({"l2": 1e-2, "minimum_steps": 80},))
        patch.setattr(AttentionHead, "family", staticmethod(lambda: one))
        patch.setattr(probe_store, "save_report", lambda path, runs, **given: None)
        assert run(words) == 0
    return folder / "runs"


def test_both_ways_answer_the_same_studies_on_the_same_folds(runs: Path) -> None:
    slices, crops = (load_run(runs / f"{way}-attention") for way in ("slices-attention", "crops-localised"))
    fold_of = dict(zip(slices.evaluated.unit_ids, slices.evaluated.fold, strict=True))
    assert all(
        fold_of[unit] == fold
        for unit, fold in zip(crops.evaluated.unit_ids, crops.evaluated.fold, strict=True)
    )
    assert crops.targets == TARGETS
    assert slices.targets == LEARNED
    # Of a crop the vector says the severity.
    assert crops.document["severity"]["condition"]["spinal"]["kappa"]["value"] > 0.3


def test_whole_slices_are_answered_from_files_as_from_their_store(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    balls = np.random.default_rng(5).uniform((-30, -25, -40), (30, 35, 45), (25, 3))
    series = usual_series(sagittal_x_mm=(-15, -5, 5, 15), shape=(32, 32))
    write_study(tmp_path / "rsna", "1001", series, blobs(balls, width_mm=5.0))
    extract(
        "rsna-lumbar",
        tmp_path / "whole.store",
        "hog",
        root=tmp_path / "rsna",
        options=ExtractOptions(workers=1, store_dtype="float32"),
    )
    # Of these files only the competition's table says what is T1 and T2.
    (tmp_path / "embed.toml").write_text(f'dataset = "rsna-lumbar"\nroot = "{tmp_path / "rsna"}"\n')
    monkeypatch.chdir(tmp_path)
    folder = runs / "slices-attention-attention"
    (of_store,) = predict_inputs(folder, [tmp_path / "whole.store"]).units
    out = tmp_path / "answers.jsonl"
    words = ["predict", "--probe", str(folder), str(tmp_path / "rsna" / "train_images" / "1001")]
    assert run([*words, "--workers", "1", "--out", str(out)]) == 0
    of_files = json.loads(out.read_text())
    assert of_files["images"] == of_store["images"] > 8
    assert set(of_files["targets"]) == set(LEARNED)
    for target, own in of_files["targets"].items():
        assert own["probabilities"] == pytest.approx(of_store["targets"][target]["probabilities"], abs=1e-6)
        series = {entry["image"].split("/")[2] for entry in own["image_weights"]}
        shown = {"spinal": {"102", "103"}, "neural": {"101"}, "subarticular": {"103"}}
        assert series <= next(names for word, names in shown.items() if word in target)
