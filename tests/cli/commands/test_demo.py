"""The demo's lumbar studies are enough for the README's command: the whole job is run in test_docs.py."""

from __future__ import annotations

import numpy as np

from cli.commands.demo import _LUMBAR_STUDIES
from embedstore.phantoms.lumbar import _plan_study
from embedstore.view import MISSING
from heads.protocol.learnable_targets import learnable_targets
from tests.heads.protocol.test_learnable_targets import view_of


def test_a_lumbar_target_can_be_learned_from_the_demos_studies() -> None:
    plans = [_plan_study(index, 0, "train") for index in range(_LUMBAR_STUDIES)]
    labels = np.stack([np.where(plan.missing, MISSING, plan.labels).ravel() for plan in plans])
    columns = {f"target {column}": labels[:, column].tolist() for column in range(labels.shape[1])}
    view = view_of(columns, classes=("Normal/Mild", "Moderate", "Severe"))
    found = learnable_targets(view, np.arange(len(labels)), folds=5, seed=0)
    assert len(found.view.task.targets) >= 1
    assert len(found.left_out) + len(found.view.task.targets) == 25
