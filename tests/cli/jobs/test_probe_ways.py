"""Ways from images to a study's 25 severities: equal folds, one table, shared heads, and what no image answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cli.jobs import probe_store
from cli.jobs.open_probe import ProbeJob
from cli.jobs.predict_inputs import predict_inputs
from cli.jobs.probe_ways import ComparedWays, WaysJob, probe_ways
from cli.main import cli
from cli.printing.head_table import ways_document
from embedstore.errors import UsageError
from embedstore.lumbar.levels import TARGETS
from heads.lumbar.rsna_score import SCORE, for_rsna_score, rsna_score
from heads.protocol.options import ProbeOptions
from heads.reporting.page import save_report
from tests.lumbar_stores import make_crops, make_slices, severities

# Three stores are probed with 25 targets each.
pytestmark = pytest.mark.slow
STUDIES, WITHOUT = 40, 7
# The quickest head; that shared heads learn from all their targets is tested in heads/protocol.
OPTIONS = ProbeOptions(head="knn", folds=2, draws=20)


@pytest.fixture(scope="module")
def y() -> np.ndarray:
    return severities(STUDIES)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, y) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ways")
    return {
        "slices": make_slices(folder / "slices.store", y),
        "localised": make_crops(folder / "crops.store", y, points="localised", signal=1.5, without=WITHOUT),
        "oracle": make_crops(folder / "oracle.store", y, points="oracle", signal=2.0),
    }


@pytest.fixture(scope="module")
def compared(stores) -> ComparedWays:
    slices = ProbeJob(stores=[stores["slices"]], options=OPTIONS, out=stores["slices"].parent / "out")

    def only_oracle(path: Path, runs: list, **given: object) -> None:
        """Draw one of the pages: each takes as long as a probe."""
        if "oracle" in path.parent.name:
            save_report(path, runs, **given)
        else:
            path.write_text("")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_store, "save_report", only_oracle)
        return probe_ways(WaysJob(slices=slices, crops=[stores["localised"], stores["oracle"]]))


def test_every_way_is_scored_on_every_labelled_cell_and_the_same_folds(compared, y) -> None:
    rows = {row.way: row for row in compared.table.rows}
    assert set(rows) == {"slices-binned", "crops-localised", "crops-oracle", "no image"}
    assert compared.table.cells == STUDIES * 25
    first, *others = [row.run for row in compared.table.rows if row.run is not None]
    fold_of = dict(zip(first.evaluated.unit_ids, first.evaluated.fold, strict=True))
    for run in others:
        assert all(
            fold_of[unit] == fold
            for unit, fold in zip(run.evaluated.unit_ids, run.evaluated.fold, strict=True)
        )
    assert rows["crops-localised"].filled == 10
    assert rows["crops-oracle"].filled == 0
    assert rows["no image"].filled == STUDIES * 25


def test_crops_beat_whole_slices_and_these_the_prevalence_where_vectors_say_so(compared) -> None:
    order = [row.way for row in compared.table.rows]
    assert order.index("crops-oracle") < order.index("crops-localised") < order.index("no image")
    (prior,) = (row for row in compared.table.rows if row.way == "no image")
    assert prior.differences["rsna_score"].estimate.low > 0


def test_the_score_of_a_row_is_that_of_its_runs_answers_with_the_prevalence_of_other_folds(
    compared, y
) -> None:
    (row,) = (row for row in compared.table.rows if row.way == "crops-localised")
    said = row.run.evaluated
    study = np.array([int(unit) - 1 for unit in said.unit_ids])
    filled = np.empty((STUDIES, 25, 3))
    filled[study] = said.probabilities
    fold = np.empty(STUDIES, int)
    fold[study] = said.fold
    others = y[fold != fold[WITHOUT]]
    for at, target in enumerate(TARGETS):
        if "subarticular" in target:
            assert np.isnan(filled[WITHOUT, at]).all()
            filled[WITHOUT, at] = np.bincount(others[:, at], minlength=3) / len(others)
    expected = rsna_score(y, for_rsna_score(filled), draws=2)["rsna_score"].value
    assert row.metrics["rsna_score"].value == pytest.approx(expected, rel=1e-12)
    assert row.run.document["severity_cells"] == {"labelled": STUDIES * 25, "from_prevalence": 10}
    assert row.run.document["rsna_score"]["rsna_score"]["value"] == pytest.approx(expected, rel=1e-12)


def test_a_condition_has_one_head_for_its_levels_and_sides_which_may_be_told_the_level(compared) -> None:
    (row,) = (row for row in compared.table.rows if row.way == "crops-oracle")
    heads = row.run.predictor.heads
    assert len({len(head.to_arrays()["labels"]) for head in heads[:5]}) == 1
    assert len(heads[0].to_arrays()["labels"]) == 5 * STUDIES
    assert len(heads[7].to_arrays()["labels"]) == 10 * STUDIES
    tried = row.run.document["inputs"]["tried"]
    assert [way["metadata"] for way in tried] == [[], ["level"]]


def test_oracle_is_said_in_the_table_the_run_and_its_page(compared) -> None:
    (row,) = (row for row in compared.table.rows if row.way == "crops-oracle")
    assert row.is_oracle
    assert row.run.document["points"] == "oracle"
    assert row.run.document["warnings"][0]["kind"] == "oracle coordinates"
    page = (row.run.folder / "report.html").read_text()
    assert "oracle coordinates" in page
    # The competition's score comes first, and no tile says nothing.
    tiles = re.findall(r'<div class="tile">(.*?)<b>(.*?)</b>', page)
    assert tiles[0] == ("RSNA score", f"{row.metrics[SCORE].value:.3f}")
    assert all(value != "–" for _, value in tiles)
    assert page.index("By condition, level and side") < page.index("All metrics")
    assert "(oracle)" in compared.report.read_text()


def test_a_run_of_crops_answers_a_studys_25_targets_from_a_store(compared, stores) -> None:
    (row,) = (row for row in compared.table.rows if row.way == "crops-localised")
    answers = predict_inputs(row.run.folder, [stores["localised"]]).units
    assert [answer["unit_id"] for answer in answers] == [f"{study + 1}" for study in range(STUDIES)]
    assert list(answers[0]["targets"]) == list(TARGETS)
    lacking = answers[WITHOUT]["targets"]
    assert lacking["left_subarticular_stenosis_l4_l5"]["probabilities"] is None
    assert lacking["spinal_canal_stenosis_l4_l5"]["probabilities"] is not None


def test_the_command_prints_one_table_and_refuses_what_it_cannot_compare(stores, compared) -> None:
    arguments = [
        "probe",
        "--store",
        str(stores["slices"]),
        "--crops",
        str(stores["oracle"]),
        "--head",
        "knn",
    ]
    arguments += ["--folds", "2", "--draws", "20", "--out", str(compared.report.parent)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "crops-oracle, knn" in done.output
    assert "oracle: cut around the readers' own" in done.output
    assert "slices-binned: kept" not in done.output.split("RSNA 2024")[1]
    found = ways_document(compared)
    assert found["rows"][0]["points"] == "oracle"
    assert json.loads(json.dumps(found)) == found
    slices = ProbeJob(stores=[stores["slices"]], options=ProbeOptions(pooling="binned"))
    with pytest.raises(UsageError, match="ways choose this themselves"):
        probe_ways(WaysJob(slices=slices))
    plain = ProbeJob(stores=[stores["slices"]], options=OPTIONS)
    with pytest.raises(UsageError, match="must be a store of crops"):
        probe_ways(WaysJob(slices=plain, crops=[stores["slices"]]))
    with pytest.raises(UsageError, match="must be among slices-binned"):
        probe_ways(WaysJob(slices=plain, ways=["slices"]))
