"""Generated answers beside a run of the lumbar targets: numbers of scikit-learn, what is left out and refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, cohen_kappa_score, log_loss

from embedstore.errors import UsageError
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.lumbar.severity_codes import write_response
from embedstore.view import MISSING
from heads.comparing.responses_table import ResponsesTable, responses_table
from heads.lumbar.rsna_score import for_rsna_score, rsna_score
from heads.reporting.responses_page import render_responses
from heads.runs.run import Run
from heads.scores import Floats
from heads.statistics.metric_functions import ece
from heads.statistics.metrics import ece_bins
from tests.heads.comparing.encoder_runs import documented, run_of
from tests.views import make_view

DRAWS = 60


@pytest.fixture(scope="module")
def lumbar(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of all 25 targets, whose labels are dealt evenly over the three classes."""
    view = make_view(patients=60, classes=CLASSES, targets=TARGETS, signal=2.0)
    return run_of(view, tmp_path_factory.mktemp("lumbar") / "run")


def answered(
    folder: Path,
    run: Run,
    *,
    name: str = "model",
    flip: float = 0.3,
    slots: Floats | None = None,
    **other: str,
) -> Path:
    """Write responses for all evaluated studies: the labels, a share of cells wrong; `other` by study.

    With `slots`, (n_studies, 25, 3) in the order of `TARGETS`, as their probabilities, those of NaN left out.
    """
    generator = np.random.default_rng(1)
    wrong = generator.random(run.evaluated.y.shape) < flip
    said = np.where(wrong, (run.evaluated.y + 1) % 3, run.evaluated.y)[:, _order(run)]
    texts = {
        study: write_response(classes.tolist())
        for study, classes in zip(run.evaluated.unit_ids.tolist(), said, strict=True)
    } | other
    path = folder / f"{name}.jsonl"
    lines = [{"study_id": study, "response": text} for study, text in texts.items()]
    for line, of_study in zip(lines, [] if slots is None else slots.tolist(), strict=False):
        if np.isfinite(of_study).all():
            line["slot_probabilities"] = dict(zip(TARGETS, of_study, strict=True))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _order(run: Run) -> list[int]:
    return [run.targets.index(target) for target in TARGETS]


def compared(run: Run, *files: Path, **options: Any) -> ResponsesTable:
    return responses_table([run], files, draws=DRAWS, **options)


def kinds(table: ResponsesTable) -> Sequence[str]:
    return [row.kind for row in table.rows]


def test_rows_are_the_run_the_answers_and_the_prior(lumbar: Run, tmp_path: Path) -> None:
    table = compared(lumbar, answered(tmp_path, lumbar))
    assert kinds(table) == ["run", "responses", "prior"]
    of_run, generated, prior = table.rows
    y, said = lumbar.evaluated.y, lumbar.evaluated.probabilities
    right = np.where(np.random.default_rng(1).random(y.shape) < 0.3, (y + 1) % 3, y)
    assert generated.metrics["kappa"].value == pytest.approx(cohen_kappa_score(y.ravel(), right.ravel()))
    assert generated.metrics["accuracy"].value == pytest.approx(accuracy_score(y.ravel(), right.ravel()))
    foramina = [at for at, target in enumerate(lumbar.targets) if target.startswith("left_neural")]
    assert generated.conditions["left_neural_foraminal_narrowing"]["kappa"].value == pytest.approx(
        cohen_kappa_score(y[:, foramina].ravel(), right[:, foramina].ravel())
    )
    assert of_run.metrics["kappa"].value == pytest.approx(
        cohen_kappa_score(y.ravel(), said.argmax(axis=2).ravel())
    )
    score = rsna_score(y, for_rsna_score(said), targets=lumbar.targets, draws=2)["rsna_score"].value
    assert of_run.metrics["rsna_score"].value == pytest.approx(score)
    assert not {"rsna_score", "log_loss", "ece"} & generated.metrics.keys()
    assert {"rsna_score", "log_loss"} <= prior.metrics.keys()
    # The commonest class of each target among the units learned from.
    counts = [np.bincount(column, minlength=3) for column in lumbar.out_of_fold.y.T]
    assert prior.metrics["accuracy"].value == pytest.approx(
        np.mean([y[:, at] == counts[at].argmax() for at in range(len(counts))])
    )


def drawn_slots(run: Run) -> Floats:
    """Return probabilities that know something of the labels, in the order of `TARGETS`."""
    noise = np.random.default_rng(2).normal(size=(*run.evaluated.y.shape, 3))
    logits = noise + 1.5 * np.eye(3)[run.evaluated.y]
    shares = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return np.asarray(shares[:, _order(run)])


def test_probabilities_of_a_file_have_a_score_a_log_loss_and_a_curve(lumbar: Run, tmp_path: Path) -> None:
    slots = drawn_slots(lumbar)
    of_run, generated, prior = (table := compared(lumbar, answered(tmp_path, lumbar, slots=slots))).rows
    y = lumbar.evaluated.y[:, _order(lumbar)]
    expected = np.mean([log_loss(y[:, at], slots[:, at], labels=[0, 1, 2]) for at in range(25)])
    assert generated.metrics["log_loss"].value == pytest.approx(expected, abs=1e-6)
    # All cells together: a target alone has too few studies for bins.
    of_cells = ece(y.ravel(), slots.reshape(-1, 3), bins=ece_bins(y.size))[0]
    assert generated.metrics["ece"].value == pytest.approx(of_cells, abs=1e-3)
    for name, submitted in (("rsna_score", for_rsna_score(slots)), ("rsna_score_as_given", slots)):
        assert generated.metrics[name].value == pytest.approx(
            rsna_score(y, submitted, draws=2)["rsna_score"].value, abs=1e-6
        )
    found = generated.differences["rsna_score"].estimate.value
    assert found == pytest.approx(generated.metrics["rsna_score"].value - of_run.metrics["rsna_score"].value)
    severe = generated.calibration["severe"]
    assert severe.stated == pytest.approx(slots[..., 2].mean(), abs=1e-6)
    assert severe.observed == pytest.approx((y == 2).mean())
    # The bins are those of scikit-learn's calibration curve: as many cells each.
    observed, stated = calibration_curve(
        (y >= 1).ravel(), 1 - slots[..., 0].ravel(), n_bins=len(severe.points), strategy="quantile"
    )
    at_least_moderate = generated.calibration["moderate or severe"].points
    assert [point[0] for point in at_least_moderate] == pytest.approx(stated, abs=5e-3)
    assert [point[1] for point in at_least_moderate] == pytest.approx(observed, abs=2e-2)
    assert sum(point[2] for point in at_least_moderate) == y.size
    assert of_run.calibration.keys() == prior.calibration.keys() == generated.calibration.keys()
    assert table.read[0]["responses_with_probabilities"] == len(y)
    page = render_responses(table)
    assert "calibration, moderate or severe" in page
    assert f"{len(y)} responses come with probabilities" in page


def test_a_study_without_probabilities_counts_as_the_prior_says(lumbar: Run, tmp_path: Path) -> None:
    slots = drawn_slots(lumbar)
    slots[0] = np.nan
    first = str(lumbar.evaluated.unit_ids[0])
    table = compared(lumbar, answered(tmp_path, lumbar, slots=slots, **{first: ""}))
    _, filled, left_out, prior = table.rows
    y = lumbar.evaluated.y[:, _order(lumbar)]
    counts = np.array(
        [np.bincount(column, minlength=3) for column in lumbar.out_of_fold.y[:, _order(lumbar)].T]
    )
    slots[0] = counts / counts.sum(axis=1, keepdims=True)
    expected = np.mean([log_loss(y[:, at], slots[:, at], labels=[0, 1, 2]) for at in range(25)])
    assert filled.metrics["log_loss"].value == pytest.approx(expected, abs=1e-6)
    assert "log_loss" not in left_out.metrics
    assert not left_out.calibration
    assert any(f"1 of {len(y)} responses have no slot_probabilities" in note for note in table.notes)
    assert prior.calibration


def test_differences_are_each_row_minus_the_run_on_the_same_draws(lumbar: Run, tmp_path: Path) -> None:
    table = compared(lumbar, answered(tmp_path, lumbar, flip=0.0))
    of_run, generated, prior = table.rows
    assert of_run.differences == {}
    found = generated.differences["kappa"]
    assert found.estimate.value == pytest.approx(1 - of_run.metrics["kappa"].value)
    assert found.estimate.low > 0
    assert generated.corrected_p["kappa"] == pytest.approx(2 * found.p_value)
    assert "rsna_score" not in generated.differences
    assert prior.differences["rsna_score"].estimate.value > 0


def test_unread_cells_count_as_normal_and_in_another_row_as_missing(lumbar: Run, tmp_path: Path) -> None:
    first = str(lumbar.evaluated.unit_ids[0])
    path = answered(tmp_path, lumbar, flip=0.0, **{first: "I cannot help."})
    table = compared(lumbar, path)
    assert kinds(table) == ["run", "responses", "responses", "prior"]
    of_run, filled, left_out, _ = table.rows
    y = lumbar.evaluated.y
    assert filled.cells == y.size
    assert filled.metrics["accuracy"].value == pytest.approx(1 - (y[0] != 0).sum() / y.size)
    assert left_out.cells == y.size - 25
    assert left_out.metrics["accuracy"].value == 1
    # The run is compared on the cells that were read.
    rest = lumbar.evaluated.probabilities[1:].argmax(axis=2) == y[1:]
    assert left_out.differences["accuracy"].estimate.value == pytest.approx(1 - rest.mean())
    assert of_run.cells == y.size
    assert table.read[0]["flaws_of_responses"]["no JSON"] == 1
    assert table.read[0]["unread_cells"] == 25


def test_labels_that_are_missing_have_no_part(lumbar: Run, tmp_path: Path) -> None:
    path = answered(tmp_path, lumbar)
    table = lumbar.predictions
    unit, target = lumbar.evaluated.unit_ids[0], lumbar.targets[0]
    rows = table.to_pylist()
    for row in rows:
        if row["unit_id"] == unit and row["target"] == target:
            row["label"] = None
    masked = replace(lumbar, predictions=pa.Table.from_pylist(rows, schema=table.schema))
    assert (masked.evaluated.y == MISSING).sum() == 1
    assert compared(masked, path).cells == lumbar.evaluated.y.size - 1


def test_studies_on_one_side_only_are_left_out_and_said(lumbar: Run, tmp_path: Path) -> None:
    learned = str(lumbar.out_of_fold.unit_ids[0])
    path = answered(tmp_path, lumbar, **{"0815": "", learned: "{}"})
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[3:]))
    table = compared(lumbar, path)
    assert table.studies == len(lumbar.evaluated.unit_ids) - 3
    assert any(
        "1 responses left out, of studies that the runs do not know: 0815" in note for note in table.notes
    )
    assert any(f"learned from or did not all evaluate: {learned}" in note for note in table.notes)
    assert any("3 of" in note and "have no response" in note for note in table.notes)
    assert table.read[0]["responses"] == table.studies


def test_files_of_one_name_are_told_apart_by_their_folders(lumbar: Run, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    paths = [answered(tmp_path, lumbar), answered(tmp_path / "b", lumbar)]
    assert [row.name for row in compared(lumbar, *paths).rows[1:3]] == [str(path) for path in paths]


def test_what_cannot_be_compared_is_refused(lumbar: Run, tmp_path: Path) -> None:
    path = answered(tmp_path, lumbar)
    with pytest.raises(UsageError, match="`responses` must name one file or more"):
        responses_table([lumbar], [])
    with pytest.raises(UsageError, match="runs must be one or more"):
        responses_table([], [path])
    with pytest.raises(UsageError, match="draws must be 1 or more"):
        responses_table([lumbar], [path], draws=0)
    other = documented(lumbar, "task", classes=["mild", "moderate", "severe"])
    with pytest.raises(UsageError, match="found classes mild, moderate, severe in"):
        compared(other, path)
    other = documented(lumbar, "task", targets=["fracture", *lumbar.targets[1:]])
    with pytest.raises(UsageError, match="found target 'fracture' in"):
        compared(other, path)
    path.write_text('{"study_id": 1, "response": ""}\n')
    with pytest.raises(UsageError, match=r"found none in common: such as '1' in .*model.jsonl, 'study0"):
        compared(lumbar, path)


def test_the_page_has_every_row_flaw_and_note_and_no_markup_of_the_file(lumbar: Run, tmp_path: Path) -> None:
    first = str(lumbar.evaluated.unit_ids[0])
    path = answered(tmp_path, lumbar, name="<b>4b", **{first: "sorry", "0815": ""})
    table = compared(lumbar, path)
    page = render_responses(table)
    assert "<b>4b" not in page
    assert "&lt;b&gt;4b, unread cells left out" in page
    assert "the prior, no image" in page
    assert "studies that the runs do not know: 0815" in page
    assert '<td>no JSON</td><td>responses</td><td class="n">1</td>' in page
    assert "RSNA score, uncorrected" in page
    assert json.loads(json.dumps(table.to_json()))["rows"][0]["metrics"]["kappa"]["n"] == table.cells
