"""The probe of a blend: honest folds, runs that answer alone, and parts that belong together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from embedstore.errors import UsageError
from embedstore.task import ImageRule
from embedstore.view import MISSING, without_split
from heads.blending.blend import blend
from heads.blending.weights import SHRINKAGE
from heads.inputs.input_ways import HeadInputs
from heads.inputs.leakage import leakage_groups
from heads.inputs.unit_images import UnitImages
from heads.protocol.fitting import fit
from heads.protocol.options import ProbeOptions
from heads.protocol.predictions import Evidence
from heads.protocol.probe import probe
from heads.registry import head_family
from heads.reporting.page import render_report
from heads.runs.run_files import load_run, save_run
from heads.statistics.calibration import fit_calibrator
from heads.statistics.thresholds import choose_thresholds
from tests.views import make_view

PARTS = ("knn", "logistic")
OPTIONS = ProbeOptions(draws=20, folds=3, repeats=2)


def probe_parts(view, options=OPTIONS, names=PARTS):
    return [probe(view, replace(options, head=name)) for name in names]


@pytest.fixture(scope="module")
def view():
    return make_view()


@pytest.fixture(scope="module")
def parts(view):
    """Two heads that are refitted, and the mean of several."""
    return probe_parts(view, names=(*PARTS, "xgboost"))


@pytest.fixture(scope="module")
def crossed():
    """A view without split, and its parts."""
    view = make_view(patients=90, valid_share=0, seed=3)
    return view, probe_parts(view)


def odds(probabilities):
    return np.log(probabilities[..., 1] / probabilities[..., 0])


def plain_weights(log_odds, y, patients):
    """Weights by a general solver, from the definition."""
    rarest = min(len(np.unique(patients[y == k])) for k in (0, 1))
    ridge = SHRINKAGE / rarest / len(np.unique(patients))

    def loss(weights):
        scores = log_odds @ weights
        return (
            np.logaddexp(0, np.where(y == 1, -scores, scores)).mean()
            + ridge / 2 * ((weights - 1 / len(weights)) ** 2).sum()
        )

    start = np.full(log_odds.shape[1], 0.5)
    return minimize(loss, start, method="SLSQP", bounds=[(0, None)] * len(start), options={"ftol": 1e-14}).x


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_a_run_answers_alone_as_it_was_evaluated_bit_for_bit(view, parts, tmp_path, batch):
    result = blend(view, parts, OPTIONS)
    save_run(tmp_path / "run", result)
    run = load_run(tmp_path / "run")
    units = np.flatnonzero(view.splits == "valid")
    found = []
    for start in range(0, len(units), batch):
        some = units[start : start + batch]
        images = np.isin(view.unit_of_image, some)
        owners = np.searchsorted(some, view.unit_of_image[images])
        found.append(run.predict(view.X[images], owners))
    assert np.array_equal(np.concatenate(found), result.evaluated.probabilities)
    assert run.document["metrics"]["auroc"]["value"] == result.evaluation.overall["auroc"].value
    assert [part["head"] for part in run.document["parts"]] == [*PARTS, "xgboost"]
    assert list(run.document["heads"][0]["point"]) == [*PARTS, "xgboost"]
    assert run.document["settings"]["head"] == run.document["settings"]["final"] == "blend"
    assert run.document["patient_vectors"]["head"] is True  # those of knn
    assert "knn" in render_report([run])


def test_runs_are_as_good_parts_as_results(crossed, tmp_path):
    view, parts = crossed
    for part in parts:
        save_run(tmp_path / part.settings.options.head, part)
    runs = [load_run(tmp_path / name) for name in PARTS]
    one, other = blend(view, parts, OPTIONS), blend(view, runs, OPTIONS)
    assert one.decided_by == other.decided_by
    assert np.array_equal(one.evaluated.probabilities, other.evaluated.probabilities)
    assert one.fitted.points == other.fitted.points
    assert one.parts == other.parts


def test_weights_of_an_outer_fold_come_from_what_inner_folds_said(crossed):
    view, parts = crossed
    result = blend(view, parts, OPTIONS)
    folds, groups = parts[0].out_of_fold.fold, leakage_groups(view)
    everyone = UnitImages.of_view(view, groups)
    for fold in range(3):
        inside, left_out = folds != fold, folds == fold
        rows, others = everyone.take(inside), everyone.take(left_out)
        said, asked = [], []
        for name in PARTS:
            fitted = fit(
                rows,
                head_family(name),
                view.task,
                inputs=[HeadInputs(view.task.pooling)],
                folds=3,
                class_weights="none",
                seed=1 + fold,
            )
            said.append(odds(fitted.out_of_fold_probabilities[:, 0]))
            scores = fitted.predictor.scores(others.X, others.unit_of_row, n_units=others.n_units)
            asked.append(odds(fitted.predictor.probabilities(scores)[:, 0]))
        weights = plain_weights(np.stack(said, 1), rows.y[:, 0], rows.groups)
        assert result.evaluated.scores[left_out, 0, 0] == pytest.approx(
            np.stack(asked, 1) @ weights, abs=1e-3
        )


def test_out_of_fold_scores_come_from_weights_of_the_other_folds(view, parts):
    result = blend(view, parts, OPTIONS)
    said = np.stack([odds(part.out_of_fold.probabilities[:, 0]) for part in parts], axis=1)
    y, patients = result.out_of_fold.y[:, 0], result.out_of_fold.patients
    folds = result.out_of_fold.fold
    for fold in range(3):
        weights = plain_weights(said[folds != fold], y[folds != fold], patients[folds != fold])
        found = result.out_of_fold.scores[folds == fold, 0, 0]
        assert found == pytest.approx(said[folds == fold] @ weights, abs=1e-3)
    weights = plain_weights(said, y, patients)
    assert list(result.fitted.points[0].values()) == pytest.approx(weights, abs=2e-4)


def test_a_blend_of_one_head_is_that_head(view, parts):
    result = blend(view, parts[1:2], OPTIONS)
    assert result.fitted.points == ({"logistic": 1.0},)
    assert result.evaluated.scores[:, 0, 0] == pytest.approx(odds(parts[1].evaluated.probabilities[:, 0]))
    found, alone = (each.evaluation.overall for each in (result, parts[1]))
    assert found["auroc"].value == pytest.approx(alone["auroc"].value)
    assert found["log_loss"].value == pytest.approx(alone["log_loss"].value, abs=0.01)


def test_a_blend_of_heads_that_know_nothing_knows_nothing():
    view = make_view(patients=150, signal=0, valid_share=0, seed=5)
    found = blend(view, probe_parts(view), OPTIONS).evaluation.overall
    assert found["auroc"].value == pytest.approx(0.5, abs=0.09)
    assert found["log_loss"].value == pytest.approx(np.log(2), abs=0.02)


def test_several_classes_targets_and_images_that_speak_for_some(tmp_path):
    view = make_view(
        patients=150, classes=("none", "some", "all"), targets=("left", "right"), valid_share=0.3
    )
    y = view.y.copy()
    speaks = np.ones((len(view.image_ids), 2), np.bool_)
    speaks[view.unit_of_image % 7 == 0, 1] = False
    y[::7, 1] = MISSING
    y[1::9, 0] = MISSING
    task = replace(view.task, images_of_target={"right": ImageRule("plane", ("axial",))})
    view = replace(view, y=y, image_of_target=speaks, task=task)
    parts = probe_parts(view)
    result = blend(view, parts, OPTIONS)
    save_run(tmp_path / "run", result)
    run = load_run(tmp_path / "run")
    found = run.predict(view.X, view.unit_of_image, image_of_target=speaks)
    evaluated = np.isin(view.unit_ids, result.evaluated.unit_ids)
    assert np.array_equal(found[evaluated], result.evaluated.probabilities, equal_nan=True)
    assert np.isnan(found[evaluated][:, 1]).any()
    # Of units without a label, what the heads would say; of those without an image, nothing.
    scores = result.out_of_fold.scores
    assert np.isfinite(scores[:, 0]).all()
    learned = np.flatnonzero(np.isin(view.unit_ids, result.out_of_fold.unit_ids))
    assert np.array_equal(np.isnan(scores[:, 1]).all(axis=1), learned % 7 == 0)
    assert (result.out_of_fold.y[:, 0] == MISSING).any()
    assert all(len(point) == 2 for point in result.fitted.points)


def test_parts_may_get_other_metadata_and_poolings(tmp_path):
    view = make_view()
    view = replace(
        view,
        metadata={"side": np.where(np.arange(len(view.image_ids)) % 2, "left", "right")},
    )
    ways = [HeadInputs("mean-probability", ("side",)), HeadInputs("mean-vector")]
    parts = [
        probe(view, replace(OPTIONS, head=name, inputs=[way])) for name, way in zip(PARTS, ways, strict=True)
    ]
    result = blend(view, parts, OPTIONS)
    assert result.settings.inputs == HeadInputs("mean-probability, mean-vector", ("side",))
    save_run(tmp_path / "run", result)
    run = load_run(tmp_path / "run")
    assert run.predictor.blocks.columns == ("side",)
    images = np.isin(view.unit_of_image, np.flatnonzero(view.splits == "valid"))
    _, owners = np.unique(view.unit_of_image[images], return_inverse=True)
    found = run.predict(view.X[images], owners, metadata={"side": view.metadata["side"][images]})
    assert np.array_equal(found, result.evaluated.probabilities)


def test_parts_that_do_not_belong_together_are_refused(view, parts, crossed, tmp_path):
    result = blend(view, parts, OPTIONS)
    refused = [
        ([], OPTIONS, "one head or more; found none"),
        ([parts[0], parts[0]], OPTIONS, "different heads; found 'knn' twice"),
        ([*parts, result], OPTIONS, "'blend' is a blend itself"),
        (parts, replace(OPTIONS, draws=21, seed=4), r"part 'knn' .* differs in draws, seed"),
        ([crossed[1][0]], OPTIONS, r"part 'knn' .* differs in data"),
        ([view], OPTIONS, "results of heads.probe or runs; found View"),
    ]
    for found, options, message in refused:
        with pytest.raises(UsageError, match=message):
            blend(view, found, options)
    old = replace(crossed[1][0], evidence=Evidence())
    with pytest.raises(UsageError, match="lacks what its inner folds said: probe again"):
        blend(crossed[0], [old], OPTIONS)
    run = save_run(tmp_path / "run", parts[0])
    before = replace(run, document={key: run.document[key] for key in run.document if key != "decided_by"})
    with pytest.raises(UsageError, match="earlier release"):
        blend(view, [before], OPTIONS)


def test_the_split_may_be_passed_over(view):
    options = replace(OPTIONS, cross_validate=True)
    result = blend(view, probe_parts(view, options), options)
    assert result.settings.mode == "outer cross-validation"
    assert len(result.evaluated.unit_ids) == len(view.unit_ids)
    same = blend(without_split(view), probe_parts(without_split(view)), OPTIONS)
    assert np.array_equal(result.evaluated.probabilities, same.evaluated.probabilities)


def test_thresholds_and_bars_are_cut_where_an_ensemble_is_as_wide_as_its_final_head(view, parts):
    part = parts[2]
    assert part.evidence.cut is not None
    result = blend(view, [part], OPTIONS)
    y, folds = result.out_of_fold.y[:, 0], result.out_of_fold.fold
    kind = result.fitted.calibrations[0].calibrator.kind
    # One head has the weight 1: scores are its log odds, and calibrators are fitted on those of the other folds.
    steep, wide = odds(part.out_of_fold.probabilities[:, 0]), part.evidence.cut[:, 0, 0].astype(np.float64)
    assert not np.allclose(steep, wide)
    for fold in range(3):
        others, own = folds != fold, folds == fold
        calibrator = fit_calibrator(kind, steep[others, None], y[others])
        found = result.fitted.cut_probabilities[own, 0]
        assert found == pytest.approx(calibrator(wide[own, None]))
    cut = result.fitted.cut_probabilities[:, 0]
    assert result.fitted.thresholds[0] == choose_thresholds(y, cut[:, 1])


def test_a_run_of_its_own_folder_loses_the_evidence_of_the_run_before(crossed, view, parts, tmp_path):
    save_run(tmp_path / "run", crossed[1][0])
    evidence = tmp_path / "run" / "evidence.safetensors"
    assert evidence.is_file()
    loaded = load_run(tmp_path / "run").evidence
    assert np.array_equal(loaded.inner.folds, crossed[1][0].evidence.inner.folds)
    save_run(tmp_path / "run", parts[0])
    assert not evidence.exists()
    assert load_run(tmp_path / "run").evidence == Evidence()
