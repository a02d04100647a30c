"""The head of a run goes on as it was: it says of vectors what the run says of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from embedstore.encoders.registry import image_encoder
from embedstore.errors import UsageError
from finetune.towers.head_of_run import head_of_run
from heads.estimators.mlp import MlpFamily
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe
from heads.runs.run_files import save_run
from tests.checkpoints import write_image_tower
from tests.views import make_view


@pytest.fixture(scope="module")
def question(tmp_path_factory):
    """A base, and a view that its vectors could be."""
    folder = tmp_path_factory.mktemp("run")
    write_image_tower(folder / "base")
    base = image_encoder(str(folder / "base"), device="cpu", dtype="float32")
    view = replace(make_view(patients=40, dim=32), identity=base.identity)
    return folder, base, view


def said_by(head, view):
    with torch.no_grad():
        return head.eval()(torch.from_numpy(view.X)).numpy()


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_the_head_says_what_the_run_says(question, kind):
    folder, base, view = question
    point = {"hidden": (8,), "epochs": 2, "minimum_steps": 4}
    family = MlpFamily(points=(point,)) if kind == "mlp" else None
    run = save_run(
        folder / kind, probe(view, ProbeOptions(head=kind, folds=2, draws=5, final="refit"), family=family)
    )
    head = head_of_run(run.folder, base, view)
    fitted = run.predictor.heads[0]
    expected = np.asarray(fitted.decision_function(view.X)).reshape(len(view.X), -1)
    assert said_by(head, view) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    if head.takes_vectors_as_they_are:
        head.in_standardised_terms(torch.from_numpy(view.X))
        assert not head.takes_vectors_as_they_are
        assert said_by(head, view) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    with pytest.raises(UsageError, match="`from_run` must answer for the targets"):
        head_of_run(run.folder, base, make_view(patients=9, targets=("other",)))
    write_image_tower(folder / "other", hidden_act="relu")
    other = image_encoder(str(folder / "other"), device="cpu", dtype="float32")
    with pytest.raises(
        UsageError, match=r"run on vectors of the encoder to be fine-tuned, other; .* weights_sha256"
    ):
        head_of_run(run.folder, other, view)


def test_a_head_of_another_kind_is_refused(question):
    folder, base, view = question
    run = save_run(folder / "knn", probe(view, ProbeOptions(head="knn", folds=2, draws=5)))
    with pytest.raises(UsageError, match="run of one target with head logistic, or mlp of one member"):
        head_of_run(run.folder, base, view)
