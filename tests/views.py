"""Synthetic views: vectors whose classes overlap by a known amount, several images a study, studies a patient."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.identity import Identity
from embedstore.task import Task
from embedstore.view import View
from heads.base import HeadFamily
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe
from heads.protocol.probe_result import ProbeResult

IDENTITY = Identity("fake", "1", "none", {"name": "pad", "size_px": 8}, "cells", "float32", 6)


def make_view(
    *,
    patients: int = 120,
    dim: int = 6,
    classes: tuple[str, ...] = ("normal", "abnormal"),
    targets: tuple[str, ...] = ("finding",),
    signal: float = 1.5,
    valid_share: float = 0.3,
    seed: int = 0,
    **changes: Any,
) -> View:
    """Make a view: one or two studies a patient, one to three images a study.

    `signal` is how far class means lie apart, in deviations within a class; 0 makes labels that have nothing
    to do with the vectors. `valid_share` of the patients are the official valid split, 0 leaves no split.
    """
    generator = np.random.default_rng(seed)
    studies = generator.integers(1, 3, patients)
    patient_of_unit = np.repeat(np.arange(patients), studies)
    n_units = len(patient_of_unit)
    unit_of_image = np.repeat(np.arange(n_units), generator.integers(1, 4, n_units))
    y = generator.integers(0, len(classes), (n_units, len(targets)))
    # The means are the same for every seed, so that a second view can test what a first one taught.
    means = np.random.default_rng(99).normal(size=(len(targets), len(classes), dim))
    means *= signal / np.linalg.norm(means[:, 0] - means[:, 1], axis=1)[:, None, None]
    of_unit = sum(means[target][y[:, target]] for target in range(len(targets)))
    noise = generator.normal(size=(len(unit_of_image), dim))
    X = (np.asarray(of_unit)[unit_of_image] + noise).astype(np.float32)
    in_valid = generator.random(patients) < valid_share
    splits = np.where(in_valid[patient_of_unit], "valid", "train") if valid_share else np.full(n_units, "")
    image_ids = np.array([f"image{row:05d}" for row in range(len(X))])
    unit_ids = np.array([f"study{row:05d}" for row in range(n_units)])
    labels = {"unit_id": unit_ids.tolist()} | {
        target: [classes[k] for k in y[:, column]] for column, target in enumerate(targets)
    }
    task = Task("phantom", "study", targets, classes, pa.table(labels), subgroups=("anatomy",))
    digests = [list(hashlib.sha256(image_id.encode()).digest()) for image_id in image_ids]
    view = View(
        task=task,
        identity=replace(IDENTITY, dim=dim),
        X=X,
        image_ids=image_ids,
        content_sha256=np.array(digests, np.uint8),
        unit_of_image=unit_of_image,
        unit_ids=unit_ids,
        y=y,
        patients=np.array([f"patient{row:05d}" for row in patient_of_unit]),
        splits=splits,
        subgroups={"anatomy": np.where(patient_of_unit % 2, "XR_WRIST", "XR_HAND")},
        excluded={"failed: unreadable": 2},
    )
    return replace(view, **changes)


def probed(
    view: View, head: str = "logistic", *, family: HeadFamily | None = None, **changes: Any
) -> ProbeResult:
    """Probe a view with options that differ from the defaults by `changes`."""
    return probe(view, ProbeOptions(head=head, **changes), family=family)
