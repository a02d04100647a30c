"""Answers in the competition's format, and what the competition's own code scores them."""

from __future__ import annotations

import csv
import json

import numpy as np
import numpy.typing as npt

from embedstore.lumbar.levels import CLASSES, TARGETS
from tests.paths import DATA

SCORED = json.loads((DATA / "rsna_lumbar_metric.json").read_text())


def golden() -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return studies, (studies, 25) labels with -1 for none, and (studies, 25, 3) probabilities."""
    with (DATA / "rsna_lumbar_metric.csv").open() as file:
        rows = list(csv.DictReader(file))
    studies = list(dict.fromkeys(row["row_id"].partition("_")[0] for row in rows))
    y = np.full((len(studies), len(TARGETS)), -1)
    probabilities = np.full((len(studies), len(TARGETS), len(CLASSES)), np.nan)
    for row in rows:
        study, _, target = row["row_id"].partition("_")
        at = studies.index(study), TARGETS.index(target)
        y[at] = CLASSES.index(row["label"]) if row["label"] else -1
        probabilities[at] = [float(row[name]) for name in ("normal_mild", "moderate", "severe")]
    return studies, y, probabilities
