"""A small store of pictures on disk, a base encoder with three blocks, and trainings that take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from embedstore.decoding.decode import DecodeJob, SerialDecoder
from embedstore.images.preprocess import PreprocessSpec
from embedstore.manifest import manifest_from_columns
from embedstore.store.commit import ChunkResult
from embedstore.store.tasks import DATASET, write_task
from embedstore.store.writer import open_writer
from embedstore.task import Task
from finetune.job import FineTuning
from finetune.pictures.augment import NONE
from finetune.recipe import Recipe
from tests.checkpoints import write_image_tower
from tests.stores import IDENTITY, vectors_of

SIZE = 42
TASK = "finding"
BASE = "base"
STORE = "pictures.store"


def write_lesson(
    folder: Path,
    *,
    patients: int = 24,
    split: bool = False,
    classes: tuple[str, ...] = ("no", "yes"),
    name: str = "patient",
) -> None:
    """Write a base encoder, pictures and a store of two pictures to a patient; its vectors are of no use.

    Parameters
    ----------
    folder
        Gets ``base``, ``images`` and ``pictures.store``.
    patients
        Each has a class, in turn; every fourth is in the split ``test`` where there is one.
    split
        Whether there is an official split.
    classes
        Names of the classes.
    name
        Begins the names of the patients.
    """
    write_image_tower(folder / BASE, num_hidden_layers=3)
    (folder / "images").mkdir()
    rows = 2 * patients
    for row in range(rows):
        Image.fromarray(picture(row, kind=(row // 2) % len(classes))).save(folder / f"images/image{row}.png")
    numbers = range(rows)
    columns = {
        "image_id": [f"image{row}" for row in numbers],
        "path": [f"image{row}.png" for row in numbers],
        "patient_id": [f"{name}{row // 2}" for row in numbers],
        "study_id": [f"study{row // 2}" for row in numbers],
    }
    if split:
        columns["split"] = ["test" if (row // 2) % 4 == 3 else "train" for row in numbers]
    studies = range(patients)
    labels = pa.table(
        {
            "unit_id": [f"study{study}" for study in studies],
            "sign": [classes[study % len(classes)] for study in studies],
        }
    )
    with open_writer(folder / STORE, IDENTITY, say=lambda line: None) as writer:
        plan = writer.plan_part(
            manifest_from_columns(columns, source="test"),
            dataset="test",
            data_root="images",
            chunk_rows=rows,
            dtype="float16",
        )
        writer.commit(plan, 0, ChunkResult(vectors_of(0, rows), digests(folder, rows)))
    write_task(
        folder / STORE,
        Task(TASK, "study", ("sign",), classes, labels),
        source=DATASET,
    )


def digests(folder: Path, rows: int) -> np.ndarray:
    """Return (rows, 32) uint8: the digests of the decoded pixels, as an extraction keeps them."""
    decoder = SerialDecoder(PreprocessSpec("pad", size_px=SIZE))
    jobs = [DecodeJob(str(folder.resolve() / f"images/image{row}.png")) for row in range(rows)]
    found = [outcome.content_sha256 for outcome in decoder.decode(jobs)]
    return np.frombuffer(b"".join(found), np.uint8).reshape(rows, 32)


def picture(row: int, *, kind: int) -> np.ndarray:
    """Return (42, 42) uint8 noise with a bright bar, whose direction is its class."""
    drawn = np.random.default_rng(row)
    pixels = drawn.normal(100, 30, (SIZE, SIZE))
    place = int(drawn.integers(6, 30))
    if kind == 1:
        pixels[place : place + 5] += 80
    else:
        pixels[:, place : place + 5 + kind] += 80
    return pixels.clip(0, 255).astype(np.uint8)


def recipe_of(**settings: Any) -> Recipe:
    """Return a recipe of two short epochs in float32, without augmentation unless asked for."""
    usual: dict[str, Any] = {
        "blocks": 1,
        "epochs": 2,
        "batch": 16,
        "head_epochs": 1,
        "head_widths": (8,),
        "lr": 1e-3,
        "dtype": "float32",
        "augmentation": NONE,
        "patience": 9,
    }
    return Recipe(**usual | settings)


def job_of(folder: Path, out: str, recipe: Recipe | None = None, **settings: Any) -> FineTuning:
    """Return a fine-tuning in `folder` on the CPU, with no process beside this one."""
    return FineTuning(
        stores=[folder / STORE],
        out=folder / out,
        task=TASK,
        encoder=str(folder / BASE),
        recipe=recipe or recipe_of(),
        device="cpu",
        workers=0,
        **settings,
    )
