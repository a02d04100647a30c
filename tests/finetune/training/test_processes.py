"""Two processes give the gradients, and the weights, of one."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from safetensors.torch import load_file

from finetune.fine_tuning import fine_tune
from finetune.training.loop import Trainer
from finetune.training.validation import Validation
from tests.finetune.lessons import job_of, recipe_of, write_lesson

# 32 images teach, and a batch of 15 leaves one of 2, of which each process has one.
RECIPE = {"epochs": 1, "batch": 15, "class_weights": "balanced", "clip": 0.0}


def ever_better(trainer: Trainer) -> Validation:
    """Judge so that the last weights are kept, whatever they are worth."""
    return Validation(1 / (1 + trainer.progress.step), 0.5, 0.5, 3)


def train(rank: int, folder: str, port: int) -> None:
    """Train as one of two processes."""
    from pathlib import Path

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    Trainer.validate = ever_better  # type: ignore[method-assign]
    fine_tune(job_of(Path(folder), "two", recipe_of(**RECIPE)))


@pytest.mark.skipif(sys.platform != "linux", reason="gloo is looked up by an interface of Linux")
def test_two_processes_give_the_weights_of_one(tmp_path, monkeypatch):
    import socket

    write_lesson(tmp_path)
    monkeypatch.setattr(Trainer, "validate", ever_better)
    alone = fine_tune(job_of(tmp_path, "one", recipe_of(**RECIPE)))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torch.multiprocessing.spawn(train, (str(tmp_path), port), nprocs=2)
    expected, together = (
        load_file(folder / "changed.safetensors") for folder in (alone.folder, tmp_path / "two")
    )
    for name, weight in expected.items():
        assert torch.allclose(weight, together[name], atol=2e-5), name
    before = load_file(tmp_path / "base/model.safetensors")
    moved = [name for name, weight in together.items() if (before[name] - weight).abs().max() > 1e-3]
    assert len(moved) > 10
