"""Run folders: whole, unpickled, refusing what was changed, reproducing to the bit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from embedstore.errors import DataError, IdentityMismatch, PluginError, UsageError
from embedstore.task import ImageRule
from embedstore.view import MISSING, View
from heads.protocol.options import ProbeOptions
from heads.protocol.probe_result import ProbeResult
from heads.registry import head_class
from heads.reporting.page import render_report
from heads.runs import run_files
from heads.runs.run import Run
from heads.runs.run_document import run_document
from heads.runs.run_files import FILES, load_run, save_run
from heads.runs.shared_arrays import arrays_from_bytes, arrays_to_bytes
from tests.views import make_view, probed


@pytest.fixture(scope="module")
def view() -> View:
    return make_view()


@pytest.fixture(scope="module")
def result(view: View) -> ProbeResult:
    return probed(view, draws=50)


@pytest.fixture
def run(tmp_path: Path, result: ProbeResult) -> Run:
    return save_run(tmp_path / "run", result)


def _test_probabilities(run: Run) -> np.ndarray:
    table = run.predictions.filter(np.array(run.predictions.column("role").to_pylist()) == "evaluation")
    return np.array(table.column("prob_abnormal").to_pylist())


def _images(view: View, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = np.flatnonzero(np.isin(view.unit_of_image, units))
    renumbered = {unit: row for row, unit in enumerate(units)}
    return view.X[images], np.array([renumbered[unit] for unit in view.unit_of_image[images]])


def test_a_loaded_run_is_the_saved_run(run: Run) -> None:
    loaded = load_run(run.folder)
    assert loaded.document == run.document
    assert loaded.predictions.equals(run.predictions)
    assert loaded.label_noise.equals(run.label_noise)
    assert loaded.conformal == run.conformal
    assert loaded.identity == run.identity
    assert loaded.run_id == run.run_id


def test_a_run_folder_holds_exactly_the_documented_files(run: Run) -> None:
    names = sorted(path.name for path in run.folder.iterdir())
    assert names == sorted(["run.json", "timing.json", *FILES])
    page = (run_files.__doc__ or "").split()
    assert set(names) <= set(page)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 64])
def test_predicting_again_gives_the_test_probabilities_bit_for_bit_in_any_batch(
    run: Run, view: View, batch: int
) -> None:
    loaded, expected = load_run(run.folder), _test_probabilities(run)
    evaluated = np.flatnonzero(view.splits == "valid")
    for start in range(0, len(evaluated), batch):
        X, unit_of_image = _images(view, evaluated[start : start + batch])
        found = loaded.predict(X, unit_of_image)[:, 0, 1]
        assert found.tobytes() == expected[start : start + batch].tobytes()


def test_predicting_does_not_depend_on_the_order_of_images(run: Run, view: View) -> None:
    X, unit_of_image = _images(view, np.flatnonzero(view.splits == "valid"))
    order = np.random.default_rng(1).permutation(len(X))
    found = run.predict(X[order], unit_of_image[order])
    assert found.tobytes() == run.predict(X, unit_of_image).tobytes()


def test_a_run_refuses_vectors_of_another_identity(run: Run) -> None:
    run.require_identity(run.identity)
    with pytest.raises(IdentityMismatch, match="compute_dtype"):
        run.require_identity(replace(run.identity, compute_dtype="bfloat16"))


def test_a_run_refuses_vectors_of_another_length(run: Run) -> None:
    with pytest.raises(DataError, match=r"shape \(n, 6\); found \(1, 5\)"):
        run.predict(np.zeros((1, 5), np.float32), np.zeros(1, np.int64))


def test_a_run_refuses_the_vector_of_a_failed_image(run: Run) -> None:
    with pytest.raises(UsageError, match="1 of 2 rows"):
        run.predict(np.array([[0.0] * 6, [np.nan] * 6], np.float32), np.arange(2))


@pytest.mark.parametrize("name", FILES)
def test_an_edited_file_is_named(run: Run, name: str) -> None:
    payload = bytearray((run.folder / name).read_bytes())
    payload[len(payload) // 2] ^= 1
    (run.folder / name).write_bytes(payload)
    with pytest.raises(DataError, match=rf"{name} was changed"):
        load_run(run.folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(run: Run, name: str) -> None:
    (run.folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name} cannot be read"):
        load_run(run.folder)


def test_a_folder_without_run_json_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a run: it has no run\.json"):
        load_run(tmp_path)


def test_a_run_that_was_misspelt_is_guessed_from_its_neighbours(run: Run) -> None:
    name = run.folder.name
    with pytest.raises(DataError, match=rf"no run\.json\. Did you mean '{name}'\?"):
        load_run(run.folder.with_name(f"{name}x"))


def test_another_format_version_is_refused(run: Run) -> None:
    path = run.folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 3}))
    with pytest.raises(DataError, match="format version must be one of 4, 5, 6, found 3; probe again"):
        load_run(run.folder)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("identity", "encoder", "another"), ("metrics", "auroc", 1.0), ("inputs", "blocks", {"scale": "much"})],
)
def test_an_edited_run_json_is_refused(run: Run, part: str, name: str, value: object) -> None:
    path = run.folder / "run.json"
    document = json.loads(path.read_text())
    document[part][name] = value
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"run\.json was changed after the run: its content has sha256"):
        load_run(run.folder)


def test_the_digest_of_run_json_is_that_of_its_content_in_one_form(run: Run) -> None:
    document = json.loads((run.folder / "run.json").read_text())
    stated = document.pop("sha256")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == stated


def _signed(document: dict[str, object]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(document | {"sha256": hashlib.sha256(text.encode()).hexdigest()})


def test_the_id_is_the_digest_of_what_decides_the_result(run: Run) -> None:
    document = json.loads((run.folder / "run.json").read_text())
    text = json.dumps(document["decided_by"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert document["run_id"] == hashlib.sha256(text.encode()).hexdigest()
    assert run.run_id == document["run_id"][:12]
    assert {"numpy", "embedstore", "torch"} <= document["decided_by"]["versions"].keys()


@pytest.mark.parametrize("head", ["logistic", "knn", "xgboost"])
def test_equal_inputs_give_equal_files_but_for_the_time(tmp_path: Path, head: str) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        save_run(folder, probed(make_view(patients=60), head, draws=5))
    one, other = (
        {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "timing.json"}
        for folder in folders
    )
    assert one == other
    assert one.keys() >= {*FILES, "run.json"}
    assert render_report([load_run(folders[0])]) == render_report([load_run(folders[1])])


def test_a_run_of_the_version_before_predicts_as_it_did(run: Run, view: View) -> None:
    document = json.loads((run.folder / "run.json").read_text())
    for key in ("sha256", "run_id", "decided_by", "warnings", "without_image", "left_out_targets"):
        del document[key]
    del document["settings"]["folds_asked"]
    document |= {"format_version": 4, "created": "2026-10-01T08:00:00+00:00", "seconds": {"fit": 2.0}}
    (run.folder / "run.json").write_text(_signed(document))
    (run.folder / "timing.json").unlink()
    old = load_run(run.folder)
    assert old.run_id == old.document["sha256"][:12]
    assert (old.timing["created"], old.seconds) == ("2026-10-01T08:00:00+00:00", 2.0)
    X, unit_of_image = _images(view, np.flatnonzero(view.splits == "valid"))
    assert old.predict(X, unit_of_image).tobytes() == run.predict(X, unit_of_image).tobytes()
    assert old.run_id in render_report([old])


@pytest.mark.parametrize("text", [None, "{", '{"created": 1}'])
def test_a_run_without_its_time_is_whole(run: Run, text: str | None) -> None:
    path = run.folder / "timing.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert load_run(run.folder).timing == {}
    assert load_run(run.folder).seconds == 0


def test_saying_the_prevalence_of_all_is_scored_beside_the_head(run: Run, view: View) -> None:
    train, valid = (view.y[view.splits == split, 0] for split in ("train", "valid"))
    share = np.bincount(train) / len(train)
    found = run.document["without_image"]
    assert found["log_loss"]["value"] == pytest.approx(-np.log(share[valid]).mean(), rel=1e-12)
    # The two-class Brier score is the squared error of the positive class's probability.
    assert found["brier"]["value"] == pytest.approx(((valid - share[1]) ** 2).mean(), rel=1e-12)
    assert found["log_loss"]["low"] < found["log_loss"]["value"] < found["log_loss"]["high"]


def test_without_a_split_the_prevalence_is_that_outside_the_units_fold() -> None:
    view = make_view(patients=60, valid_share=0)
    result = probed(view, "knn", draws=5, folds=3)
    expected = []
    for fold in range(3):
        inside = result.evaluated.fold == fold
        share = np.bincount(result.evaluated.y[~inside, 0], minlength=2) / (~inside).sum()
        expected += (-np.log(share[result.evaluated.y[inside, 0]])).tolist()
    assert result.evaluation.without_image["log_loss"].value == pytest.approx(np.mean(expected), rel=1e-12)


def test_a_run_json_that_is_not_json_is_refused(run: Run) -> None:
    (run.folder / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json cannot be read"):
        load_run(run.folder)


def test_metrics_are_named_and_have_n_and_an_interval(run: Run, view: View) -> None:
    for name in ("auroc", "auprc", "kappa", "log_loss", "brier", "ece", "accuracy", "f1"):
        entry = run.document["metrics"][name]
        assert entry["n"] == int((view.splits == "valid").sum())
        assert entry["low"] <= entry["value"] <= entry["high"]


def test_a_run_says_whether_its_head_converged_and_what_it_learned_from(run: Run, view: View) -> None:
    (head,) = run.document["heads"]
    assert head["converged"] is True
    y = view.y[view.splits == "train", 0]
    assert head["prevalence"] == pytest.approx([(y == 0).mean(), (y == 1).mean()])
    assert run.document["settings"]["coverage"] == 0.9


def test_predictions_hold_every_unit_out_of_fold_and_evaluated(run: Run, view: View) -> None:
    rows = run.predictions.to_pylist()
    train = view.unit_ids[view.splits == "train"].tolist()
    assert [row["unit_id"] for row in rows if row["role"] == "out-of-fold"] == train
    assert all(row["fold"] is None for row in rows if row["role"] == "evaluation")
    assert all(abs(row["prob_normal"] + row["prob_abnormal"] - 1) < 1e-9 for row in rows)
    labels = dict(zip(view.unit_ids.tolist(), view.y[:, 0].tolist(), strict=True))
    assert all(row["label"] == ("normal", "abnormal")[labels[row["unit_id"]]] for row in rows)


def test_a_run_of_three_classes_and_two_targets_comes_back(tmp_path: Path) -> None:
    view = make_view(classes=("mild", "moderate", "severe"), targets=("left", "right"), signal=3.0)
    result = probed(view, draws=20)
    run = save_run(tmp_path / "run", result)
    evaluated = np.flatnonzero(view.splits == "valid")
    X, unit_of_image = _images(view, evaluated)
    found = load_run(run.folder).predict(X, unit_of_image)
    assert found.shape == (len(evaluated), 2, 3)
    assert found.tobytes() == result.evaluated.probabilities.tobytes()


def _neighbors_run(folder: Path, targets: tuple[str, ...]) -> Run:
    return save_run(folder, probed(make_view(targets=targets, dim=200), "knn", draws=2))


def test_targets_that_find_their_cases_in_the_same_vectors_keep_them_once(tmp_path: Path) -> None:
    one, three = (_neighbors_run(tmp_path / str(len(names)), names) for names in (("a",), ("a", "b", "c")))
    sizes = [(run.folder / "head.safetensors").stat().st_size for run in (one, three)]
    vectors = one.predictor.heads[0].to_arrays()["vectors"]
    assert sizes[0] > vectors.nbytes
    # A label (8 bytes) and a weight (4 bytes) of each row for two more targets, and a header of names.
    assert sizes[1] - sizes[0] < 2 * 12 * len(vectors) + 1_000 < vectors.nbytes / 4
    heads = load_run(three.folder).predictor.heads
    first = heads[0].to_arrays()["vectors"]
    assert all(np.shares_memory(first, head.to_arrays()["vectors"]) for head in heads)
    assert not np.shares_memory(heads[0].to_arrays()["labels"], heads[1].to_arrays()["labels"])


def test_targets_with_other_cases_keep_their_own_vectors(tmp_path: Path) -> None:
    view = make_view(targets=("a", "b"))
    y = view.y.copy()
    y[::5, 1] = MISSING
    result = probed(replace(view, y=y), "knn", draws=2)
    heads = load_run(save_run(tmp_path / "run", result).folder).predictor.heads
    for loaded, fitted in zip(heads, result.fitted.predictor.heads, strict=True):
        for name, array in fitted.to_arrays().items():
            assert loaded.to_arrays()[name].tobytes() == array.tobytes()


def test_arrays_that_overlap_but_are_not_the_same_are_kept_apart() -> None:
    whole = np.arange(12.0).reshape(3, 4)
    heads = [{"a": whole}, {"a": whole.T}, {"a": whole[:2]}, {"a": whole, "b": whole}]
    payload = arrays_to_bytes(heads)
    assert set(safetensors.numpy.load(payload)) == {"0,3.a", "1.a", "2.a", "3.b"}
    for found, expected in zip(arrays_from_bytes(payload, 4), heads, strict=True):
        assert {name: array.tolist() for name, array in found.items()} == {
            name: array.tolist() for name, array in expected.items()
        }


@pytest.mark.parametrize(("head", "library"), [("zeroshot", "transformers"), ("xgboost", "xgboost")])
def test_a_run_names_the_versions_of_what_its_head_needs_and_of_no_other_head(
    result: ProbeResult, head: str, library: str
) -> None:
    of_logistic = run_document(result)["versions"]
    assert of_logistic["numpy"] == version("numpy")
    assert of_logistic["embedstore"] == version("embedstore")
    assert library not in of_logistic
    settings = replace(result.settings, options=ProbeOptions(head=head))
    predictor = replace(result.fitted.predictor, heads=[head_class(head)()])
    other = replace(result, settings=settings, fitted=replace(result.fitted, predictor=predictor))
    versions = run_document(other)["versions"]
    assert versions[library] == version(library)


def test_a_run_from_before_tasks_named_a_positive_class_acts_on_the_second_of_two_and_on_none_of_more(
    run: Run,
) -> None:
    assert run.positive == "abnormal"
    task = {key: value for key, value in run.document["task"].items() if key not in ("positive", "ordered")}
    assert replace(run, document={**run.document, "task": task}).positive == "abnormal"
    # Sorted as text, the last class is any.
    old = replace(run, document={**run.document, "task": {**task, "classes": ["mild", "normal", "severe"]}})
    assert old.positive is None
    named = replace(run, document={**run.document, "task": {**task, "positive": None}})
    assert named.positive is None


def test_a_run_whose_targets_have_their_own_images_wants_to_know_which(tmp_path: Path) -> None:
    view = make_view(targets=("canal", "left"))
    task = replace(view.task, images_of_target={"left": ImageRule("plane", ("axial",))})
    mask = np.ones((len(view.image_ids), 2), np.bool_)
    masked = replace(view, task=task, image_of_target=mask)
    save_run(tmp_path / "run", probed(masked, draws=5, folds=2))
    run = load_run(tmp_path / "run")
    assert run.image_rules == (None, ImageRule("plane", ("axial",)))
    with pytest.raises(UsageError, match="learned each target from the images that speak for it, by plane"):
        run.predict(view.X, view.unit_of_image)
    probabilities = run.predict(view.X, view.unit_of_image, image_of_target=mask)
    assert np.isfinite(probabilities).all()


def test_a_run_whose_head_is_of_an_absent_package_names_that(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        if name == "embedstore":
            raise PackageNotFoundError
        return "1"

    monkeypatch.setattr("heads.runs.saved_predictor.head_package", lambda _name: None)
    head = run.document["settings"]["head"]
    with pytest.raises(
        PluginError, match=f"the run needs head '{head}', which no installed package offers.$"
    ):
        load_run(run.folder)
    monkeypatch.setattr("heads.runs.saved_predictor.version", absent)
    with pytest.raises(PluginError, match=r"made with embedstore [\w.]+, which is not there: install it"):
        load_run(run.folder)


def test_what_is_no_result_is_not_saved(view: View, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"result must be a ProbeResult, as heads.probe returns; found View"):
        save_run(tmp_path / "run", view)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("units", [["a", "a", "b"], [0, 0, -1], [0.0, 0.5, 1.0]])
def test_units_are_whole_numbers_from_0(view: View, run: Run, units: list) -> None:
    with pytest.raises(UsageError, match=r"unit_of_image must hold whole numbers from 0.*; found"):
        run.predict(view.X[:3], units)
