"""Runs of ensembles: kept as one file of arrays, predicting again to the bit; those from before predict as they did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy

from embedstore.errors import DataError
from embedstore.view import View
from heads.base import HeadFamily
from heads.ensemble import EnsembleHead
from heads.estimators.boosted import BoostedFamily
from heads.estimators.mlp import MlpFamily
from heads.runs.run import Run
from heads.runs.run_files import load_run, save_run
from tests.paths import DATA
from tests.views import make_view, probed

TREES = BoostedFamily(({"max_depth": 2, "learning_rate": 0.3, "rounds": 8, "patience": 4},))
NETWORKS = MlpFamily(({"hidden": (4,), "learning_rate": 0.03, "minimum_steps": 24, "batch_size": 16},))
HEADS = {"mlp": NETWORKS, "xgboost": TREES}


@pytest.fixture(scope="module")
def view() -> View:
    return make_view(patients=40, targets=("one", "two"))


def evaluation_images(view: View) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    units = np.flatnonzero(view.splits == "valid")
    images = np.flatnonzero(np.isin(view.unit_of_image, units))
    return view.X[images], np.searchsorted(units, view.unit_of_image[images])


@pytest.mark.parametrize(("head", "grid"), HEADS.items(), ids=HEADS)
def test_a_loaded_ensemble_predicts_to_the_bit(
    head: str, grid: HeadFamily, view: View, tmp_path: Path
) -> None:
    result = probed(view, head, family=grid, draws=2, folds=3, repeats=2)
    run = load_run(save_run(tmp_path / "run", result).folder)
    X, unit_of_image = evaluation_images(view)
    again = run.predict(X, unit_of_image)
    assert again.tobytes() == result.evaluated.probabilities.tobytes()
    one = unit_of_image == 2
    assert run.predict(X[one], np.zeros(one.sum(), np.int64)).tobytes() == again[2:3].tobytes()
    arrays = safetensors.numpy.load_file(run.folder / "head.safetensors")
    assert {name.split(".")[1] for name in arrays} == {str(member) for member in range(6)}
    settings, entry = run.document["settings"], run.document["heads"][1]
    assert (settings["final"], settings["repeats"]) == ("ensemble", 2)
    assert len({member["random_state"] for member in entry["members"]}) == 6
    assert "random_state" not in entry["params"]
    assert 1 / 3 - 1e-9 <= entry["reliability"] <= 1
    assert isinstance(run.predictor.heads[0], EnsembleHead)


def test_a_repeated_probe_has_the_same_bytes(view: View, tmp_path: Path) -> None:
    folders = [
        save_run(tmp_path / name, probed(view, "mlp", family=NETWORKS, draws=2, folds=3, repeats=2)).folder
        for name in ("one", "other")
    ]
    one, other = (
        {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "timing.json"}
        for folder in folders
    )
    assert one == other


def test_networks_of_an_ensemble_are_kept_in_half_precision(view: View, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", probed(view, "mlp", family=NETWORKS, draws=2, folds=3, repeats=2))
    arrays = safetensors.numpy.load_file(run.folder / "head.safetensors")
    kinds = {name.split(".")[-1]: array.dtype for name, array in arrays.items()}
    assert {kinds[f"{kind}{layer}"] for kind in ("weight", "bias") for layer in range(2)} == {
        np.dtype(np.float16)
    }
    assert kinds["mean"] == np.float32


def test_an_ensemble_that_lacks_a_member_is_named(view: View, tmp_path: Path) -> None:
    run: Run = save_run(tmp_path / "run", probed(view, "xgboost", family=TREES, draws=2, folds=3, repeats=2))
    heads = run.document["heads"]
    assert all(len(entry["members"]) == 6 for entry in heads)
    ensemble = run.predictor.heads[0]
    assert isinstance(ensemble, EnsembleHead)
    arrays = {name: array for name, array in ensemble.to_arrays().items() if not name.startswith("4.")}
    with pytest.raises(DataError, match="classes"):
        EnsembleHead.from_arrays(
            type(ensemble.members[0]), arrays, ensemble.get_params(), ensemble.own_params()
        )


def test_a_run_from_before_ensembles_predicts_as_it_did() -> None:
    folder = DATA / "run-version-5"
    run = load_run(folder)
    assert json.loads((folder / "run.json").read_text())["format_version"] == 5
    assert not isinstance(run.predictor.heads[0], EnsembleHead)
    stated = {
        row["unit_id"]: row["prob_abnormal"]
        for row in run.predictions.to_pylist()
        if row["role"] == "evaluation"
    }
    view = make_view(patients=40, seed=5)
    found = run.predict(*evaluation_images(view))[:, 0, 1]
    units = view.unit_ids[view.splits == "valid"]
    assert list(stated) == units.tolist()
    assert found == pytest.approx([stated[unit] for unit in units], abs=1e-12)
