"""Every study is answered by an encoder that never saw its patient, and a fold that is finished is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedstore.encoders.registry import image_encoder
from embedstore.errors import UsageError
from embedstore.finetuned.encoder_folder import open_encoder_folder
from finetune.cross_fitting import cross_fit
from finetune.job import Watchers
from finetune.training.lesson import Stopped
from tests.finetune.lessons import SIZE, job_of, picture, recipe_of, write_lesson


def test_each_fold_answers_for_the_patients_that_it_never_saw(tmp_path):
    write_lesson(tmp_path, patients=20)
    job = job_of(tmp_path, "folds", recipe_of(epochs=1, validation_share=0.25))
    asked = iter(range(99))
    with pytest.raises(Stopped):
        cross_fit(job, 2, Watchers(stopping=lambda: next(asked) == 1))
    said = []
    found = cross_fit(replace(job, resume=True), 2, Watchers(say=said.append), draws=20)
    assert "fold 1 of 2" in said
    rows = found.table.to_pylist()
    assert sorted(row["unit_id"] for row in rows) == sorted(f"study{study}" for study in range(20))
    for row in rows:
        patients = open_encoder_folder(tmp_path / f"folds/fold-{row['fold']}").patients()
        assert patients.parts_of([row["patient_id"]]).tolist() == [""]
        assert sum(row["probabilities"]) == pytest.approx(1)
    # What the encoder and head of a fold's folder say of a study, by hand.
    row = rows[0]
    folder = tmp_path / f"folds/fold-{row['fold']}"
    study = int(row["unit_id"].removeprefix("study"))
    pixels = np.stack([picture(2 * study + at, kind=study % 2) for at in (0, 1)])
    assert pixels.shape[1:] == (SIZE, SIZE)
    encoder = image_encoder(str(folder), device="cpu", dtype="float32")
    encoder.load()
    head = load_file(folder / "head.safetensors")
    hidden = (torch.from_numpy(encoder.encode(pixels)) - head["mean"]) * head["factor"]
    hidden = torch.relu(hidden @ head["layers.0.weight"].T + head["layers.0.bias"])
    logits = hidden @ head["layers.3.weight"].T + head["layers.3.bias"]
    assert row["probabilities"][1] == pytest.approx(float(torch.sigmoid(logits).mean()), abs=1e-4)
    assert set(found.metrics["sign"]) == {"auroc", "kappa", "log_loss", "ece", "accuracy"}
    assert not (tmp_path / "folds/cache").exists()
    with pytest.raises(
        UsageError, match=r"finished encoder of other settings: recipe\.epochs: 1 before, 2 now"
    ):
        cross_fit(replace(job, recipe=recipe_of(epochs=2, validation_share=0.25), resume=True), 2)
    with pytest.raises(UsageError, match=r"leave `hold_out=0\.2` out"):
        cross_fit(replace(job, recipe=recipe_of(hold_out=0.2)), 2)
