"""Labelled vectors for benchmarks of probing: a decaying spectrum, studies of patients, a linear rule with noise."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from embedstore.identity import Identity
from embedstore.task import Task
from embedstore.view import View

# MURA has 36,808 training images in 13,457 studies.
_IMAGES_PER_STUDY = 2.735


def synthetic_view(
    rows: int,
    dim: int,
    patients: int,
    seed: int,
    *,
    targets: int = 1,
    classes: int = 2,
    informative: int | None = None,
) -> View:
    """Make training images in studies of patients, and an eleventh of the studies beside that judge.

    Parameters
    ----------
    rows, patients
        Training images and patients.
    dim
        Length of a vector.
    seed
        Of vectors and labels.
    targets, classes
        Of the task. With two classes 44 % are positive; with three 77, 16 and 7 % as in the lumbar challenge.
    informative
        How many of the axes, the widest first, the labels follow; by default all.

    Returns
    -------
    View
        Vectors whose n-th axis spreads as 1/n, rotated; a label of a study follows its mean vector.
    """
    generator = np.random.default_rng(seed)
    studies = max(int(rows / _IMAGES_PER_STUDY), patients)
    patient_of_study = np.sort(
        np.concatenate([np.arange(patients), generator.integers(0, patients, studies - patients)])
    )
    extra = generator.integers(0, studies, max(rows - studies, 0))
    train_units = np.sort(np.concatenate([np.arange(studies), extra]))
    judged = max(studies // 11, 50)
    unit_of_image = np.concatenate([train_units, studies + np.arange(judged)])
    patient_of_unit = np.concatenate([patient_of_study, patients + np.arange(judged)])
    n, n_units = len(unit_of_image), studies + judged
    spectrum = np.arange(1, dim + 1) ** -1.0
    rotation = np.linalg.qr(generator.normal(size=(dim, dim)))[0]
    heard = np.arange(dim) < (dim if informative is None else informative)
    latent = generator.normal(size=(n, dim)).astype(np.float32)
    latent += generator.normal(size=(n_units, dim)).astype(np.float32)[unit_of_image]
    X = (latent @ (spectrum[:, None] * rotation * np.sqrt(dim)).astype(np.float32)).astype(np.float32)
    columns = [
        _labels(
            latent @ (generator.normal(size=dim) * heard).astype(np.float32),
            unit_of_image,
            classes,
            generator,
        )
        for _ in range(targets)
    ]
    y = np.stack(columns, axis=1)
    unit_ids = np.array([f"study{index}" for index in range(n_units)])
    names = tuple(f"finding{target}" for target in range(targets))
    grades = tuple(f"grade{grade}" for grade in range(classes))
    labels = pa.table(
        {"unit_id": unit_ids.tolist()}
        | {name: [grades[k] for k in y[:, target]] for target, name in enumerate(names)}
    )
    content = np.zeros((n, 32), np.uint8)
    content[:, :8] = np.arange(n, dtype=np.uint64)[:, None].view(np.uint8)
    return View(
        task=Task("synthetic", "study", names, grades, labels, ordered=classes > 2, positive=grades[-1]),
        identity=Identity("synthetic", "1", "none", {}, "none", "float32", dim),
        X=X,
        image_ids=np.array([f"image{index}" for index in range(n)]),
        content_sha256=content,
        unit_of_image=unit_of_image,
        unit_ids=unit_ids,
        y=y,
        patients=np.array([f"patient{index}" for index in patient_of_unit]),
        splits=np.where(np.arange(n_units) < studies, "train", "test"),
        subgroups={},
        excluded={},
    )


def _labels(
    answer: np.ndarray, unit_of_image: np.ndarray, classes: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw a label for each unit: the grade whose noisy bars its mean answer has passed."""
    by_unit = np.bincount(unit_of_image, answer) / np.bincount(unit_of_image)
    logit = 2 * by_unit / by_unit.std()
    bars = [0.5] if classes == 2 else np.linspace(2.0, 4.5, classes - 1)
    noise = generator.logistic(size=len(logit))
    return np.sum([logit + noise > bar for bar in bars], axis=0).astype(np.int64)
