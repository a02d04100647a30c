"""What is known of the encoder: whether it has weights, its shape, and how fast it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from embedstore.encoders.registry import image_encoder
from embedstore.errors import DataError, UsageError
from embedstore.store.reader import open_store
from embedstore.store.writer import open_writer
from finetune.escalation.base_encoder import measured_rates, trainable_base
from tests.checkpoints import SMALL_VISION
from tests.stores import IDENTITY, known_result, manifest_of


def test_an_encoder_is_trainable_if_it_has_weights(tmp_path: Path) -> None:
    assert (
        trainable_base(image_encoder("hog").identity).untrainable
        == "hog has no weights that could be trained"
    )
    (tmp_path / "tower").mkdir()
    config = {"model_type": "siglip_vision_model", **SMALL_VISION}  # no weights: they are not looked at
    (tmp_path / "tower/config.json").write_text(json.dumps(config))
    identity = replace(IDENTITY, encoder="tower")
    found = trainable_base(identity, str(tmp_path / "tower"))
    assert found.shape is not None
    assert (found.shape.num_hidden_layers, found.untrainable, found.unknown) == (2, "", "")
    assert "`encoder` says where it lies" in trainable_base(identity).unknown
    assert "imported" in trainable_base(replace(identity, declared=True)).untrainable
    with pytest.raises(UsageError, match="gone"):
        trainable_base(identity, "gone")


def test_rates_are_those_of_the_receipts_and_of_doctor(tmp_path: Path) -> None:
    with open_writer(tmp_path / "s.store", IDENTITY, say=lambda line: None) as writer:
        plan = writer.plan_part(manifest_of(20), dataset="t", data_root="i", chunk_rows=8, dtype="float16")
        for chunk, device in enumerate(("cpu", "cpu", "cuda:0")):
            start, stop = plan.bounds(chunk)
            writer.commit(
                plan, chunk, replace(known_result(IDENTITY, start, stop), seconds=2.0, device=device)
            )
    doctor = {"findings": [{"topic": "speed of models/mean", "images_per_s": 50.0, "device": "cuda:0"}]}
    (tmp_path / "doctor.json").write_text(json.dumps(doctor))
    found = [*measured_rates([open_store(tmp_path / "s.store")], tmp_path / "doctor.json", encoder="mean")]
    assert [(rate.images_per_s, rate.device) for rate in found] == [
        (50.0, "cuda:0"),
        (2.0, "cuda:0"),
        (4.0, "cpu"),
    ]
    assert [rate.is_gpu for rate in found] == [True, True, False]


def test_what_is_not_doctors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json cannot be read"):
        next(measured_rates([], tmp_path / "gone.json"))
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(UsageError, match="must be a file of `embed doctor --json`"):
        next(measured_rates([], tmp_path / "a.json"))
    (tmp_path / "b.json").write_text(json.dumps({"findings": [{"topic": "speed of hog", "images_per_s": 1}]}))
    with pytest.raises(UsageError, match="speed of medsiglip-448, on a device; it has speed of hog"):
        next(measured_rates([], tmp_path / "b.json", encoder="medsiglip-448"))
