"""One study, from DICOM to an answer: files are answered as their store, and what is unsure is said everywhere."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from cli.jobs import probe_store
from cli.jobs.open_probe import ProbeJob
from cli.jobs.predict_inputs import predict_inputs
from cli.main import run
from cli.page.catalog import Catalog
from cli.page.memory_files import MemoryFiles
from cli.page.routes import new_page
from cli.printing.prediction_file import open_predictions
from cli.studying import find_localiser
from embedstore.encoders.registry import image_encoder
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.identity import Identity
from embedstore.lumbar.level_points import LevelPoints
from embedstore.lumbar.levels import TARGETS
from embedstore.lumbar.series_grid import StudyGrids
from embedstore.lumbar.severity_codes import read_response
from embedstore.view import MISSING
from heads.lumbar.response_file import read_responses
from heads.protocol.options import ProbeOptions
from tests.lumbar_stores import LOCALISER, make_crops, severities
from tests.lumbar_studies import PLACES, blobs, level_points, usual_series, write_study

WHOLE, NO_AXIAL, EMPTY = "1001", "1002", "1003"


def points_of(*studies: str) -> LevelPoints:
    """Points of two levels; those of the study without axial slices are unsure."""
    found = level_points(
        {(study, *name): xyz for study in studies for name, xyz in PLACES.items()}, digest=LOCALISER
    )
    return replace(found, unsure=found.study_ids == NO_AXIAL)


@dataclass(frozen=True)
class Localiser:
    identity: Identity
    digest: str
    folder: Path
    second: None = None
    document: Mapping[str, Any] = field(default_factory=dict)

    def locate(self, grids: StudyGrids, identity: Identity) -> LevelPoints:
        self.identity.require_same(identity, holder="the localiser")
        return points_of(grids.study_id) if grids.series else points_of()


@dataclass(frozen=True)
class World:
    """A run over crops, the store of two studies' crops, and the folder of the studies."""

    run: Path
    store: Path
    images: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("lumbar")
    balls = np.random.default_rng(5).uniform((-30, -25, -40), (30, 35, 45), (25, 3))
    signal = blobs(balls, width_mm=5.0)
    series = usual_series(sagittal_x_mm=(-15, -10, 0, 5, 15), shape=(48, 40))
    write_study(folder / "rsna", WHOLE, series, signal)
    write_study(folder / "rsna", NO_AXIAL, series[:2], signal)
    write_study(folder / "rsna", EMPTY, series[2:], signal)
    options = ExtractOptions(workers=1, store_dtype="float32")
    points = points_of(WHOLE, NO_AXIAL)
    extract("rsna-lumbar", folder / "crops.store", "hog", root=folder / "rsna", crops=points, options=options)
    learned = make_crops(
        folder / "learned.store",
        severities(40),
        points="localised",
        signal=1.5,
        identity=image_encoder("hog").identity,
    )
    job = ProbeJob(
        stores=[learned],
        options=ProbeOptions(head="knn", folds=2, draws=10),
        out=folder / "runs" / "crops",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_store, "save_report", lambda path, runs, **given: None)
        probe_store.probe_store(job)
    (folder / "runs" / "levels").mkdir()
    (folder / "runs" / "levels" / "localiser.json").write_text(json.dumps({"digest": LOCALISER}))
    return World(folder / "runs" / "crops", folder / "crops.store", folder / "rsna" / "train_images")


@pytest.fixture(autouse=True)
def localiser(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project about the studies, and what lies in the localiser's folder; reading a whole one is tested there."""
    (tmp_path / "embed.toml").write_text(f'dataset = "rsna-lumbar"\nroot = "{world.images.parent}"\n')
    identity = image_encoder("hog", tokens=8).identity
    monkeypatch.setattr(
        find_localiser, "read_localiser", lambda folder: Localiser(identity, LOCALISER, Path(folder))
    )
    monkeypatch.setattr(find_localiser, "read_levels", lambda folder: points_of())


@pytest.fixture(scope="module")
def lines(world: World) -> dict[str, Any]:
    """Answers for the store; that files have the same is tested below."""
    return {answer["unit_id"]: answer for answer in predict_inputs(world.run, [world.store]).units}


def test_a_folder_of_studies_is_answered_as_its_store_and_the_rest_is_said(
    world: World, lines: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", "--probe", str(world.run), str(world.images), "--workers", "1"]) == 3
    out, err = capsys.readouterr()
    of_files = {answer["unit_id"]: answer for answer in map(json.loads, out.splitlines())}
    assert list(of_files) == [WHOLE, NO_AXIAL]
    for study, answer in of_files.items():
        expected = lines[study]
        assert answer["localisation"] == expected["localisation"]
        assert answer["images"] == expected["images"]
        for target in TARGETS:
            own, whole = answer["targets"][target], expected["targets"][target]
            assert own["crops"] == whole["crops"]
            assert (own["probabilities"] is None) == (whole["probabilities"] is None)
            assert own["probabilities"] == pytest.approx(whole["probabilities"], abs=1e-6)
    assert (
        f"1 of 2 units with unsure levels (level_unsure), whose names may be one off: {NO_AXIAL} (confidence 0.88)"
        in err
    )
    assert "1 x studies without axial T2" in err
    assert f"study {EMPTY}: no level of the spine found" in err


def test_an_answer_says_how_sure_its_levels_are_and_which_crops_spoke(lines: dict[str, Any]) -> None:
    whole, no_axial = lines[WHOLE], lines[NO_AXIAL]
    assert (whole["level_unsure"], no_axial["level_unsure"]) == (False, True)
    assert whole["localisation"] == {
        "points": "localised",
        "confidence": 0.875,
        "levels": ["l3_l4", "l4_l5"],
        "localiser": LOCALISER,
    }
    crops = whole["targets"]["right_neural_foraminal_narrowing_l4_l5"]["crops"]
    # The point lies at x = -15.9 mm, beside the outermost slice at -15 mm; the next one is towards the spine.
    assert [(crop["offset"], crop["distance_mm"], crop["side"], crop["level"]) for crop in crops] == [
        (0, 0.9, "right", "l4_l5"),
        (-1, 5.9, "right", "l4_l5"),
    ]
    assert crops[0]["image"].startswith(
        f"train_images/{WHOLE}/101/1.dcm#crop=foramen_sagittal_t1,l4_l5,right"
    )
    assert no_axial["targets"]["left_subarticular_stenosis_l4_l5"]["probabilities"] is None
    assert no_axial["targets"]["left_subarticular_stenosis_l4_l5"]["crops"] == []
    assert whole["targets"]["spinal_canal_stenosis_l1_l2"]["probabilities"] is None


def test_every_format_says_that_levels_are_unsure(lines: dict[str, Any], tmp_path: Path) -> None:
    answers = list(lines.values())
    for form, name in (("codes", "codes.jsonl"), ("compact", "compact.jsonl"), ("full", "rows.csv")):
        with open_predictions(tmp_path / name, form) as write:
            write(answers)
    codes = [json.loads(line) for line in (tmp_path / "codes.jsonl").read_text().splitlines()]
    assert [line["level_unsure"] for line in codes] == [False, True]
    assert [line["study_id"] for line in codes] == [WHOLE, NO_AXIAL]
    assert read_responses(tmp_path / "codes.jsonl").study_ids.tolist() == [WHOLE, NO_AXIAL]
    compact = [json.loads(line) for line in (tmp_path / "compact.jsonl").read_text().splitlines()]
    assert [line["level_unsure"] for line in compact] == [False, True]
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["unit_id"], row["level_unsure"], row["level_confidence"]) for row in rows} == {
        (WHOLE, "false", "0.875"),
        (NO_AXIAL, "true", "0.875"),
    }
    with open_predictions(tmp_path / "submission.csv", "submission") as write:
        write(answers)
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 1 + 2 * len(TARGETS)


def test_levels_are_only_for_runs_over_crops_and_have_to_be_a_localiser(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = str(world.images / WHOLE)
    (world.run.parent / "levels" / "localiser.json").rename(tmp_path / "localiser.json")
    try:
        assert run(["predict", "--probe", str(world.run), study]) == 2
        assert "name its folder with --levels" in capsys.readouterr().err
        with (tmp_path / "embed.toml").open("a") as project:
            project.write('levels = "."\n')
        assert run(["predict", "--probe", str(world.run), study, "--format", "codes", "--workers", "1"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert json.loads(line)["study_id"] == WHOLE
    finally:
        (tmp_path / "localiser.json").rename(world.run.parent / "levels" / "localiser.json")


def test_a_study_that_is_sent_to_the_page_is_answered_as_its_store_beside_the_crops_that_spoke(
    world: World, lines: dict[str, Any]
) -> None:
    """One archive of a study, in which a file's name says nothing, becomes the table of its levels."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        for path in sorted((world.images / WHOLE).rglob("*.dcm")):
            image, buffer = pydicom.dcmread(path), io.BytesIO()
            # What a scanner says itself; the data set's own table is not sent.
            image.SeriesDescription = {"101": "Sagittal T1", "102": "Sagittal T2", "103": "Axial T2"}[
                path.parent.name
            ]
            image.save_as(buffer)
            writing.writestr(str(path.relative_to(world.images)), buffer.getvalue())
    catalog = Catalog(stores={"crops": world.store}, runs={"crops": world.run})
    page = new_page(catalog, limit_bytes=10**8)
    try:
        with MemoryFiles(10**8) as files:
            files.begin()
            files.write(archive.getvalue())
            sent = page.desk.answer(files, {"store": "crops", "run": "crops"})
    finally:
        page.pictures.close()
        page.workshop.close()
    (answer,), expected = sent["answers"], lines[WHOLE]
    assert [line.split(":")[0] for line in sent["notices"]] == ["note, pixels-made-square"]
    assert answer["images"] == expected["images"]
    assert sent["table"]["rows"][0]["level"] == "L1/L2"
    shown = {target["name"]: target for target in answer["targets"]}
    assert list(shown) == list(TARGETS)
    for name, of in expected["targets"].items():
        shares = {bar["name"]: bar["share"] for bar in shown[name]["bars"]}
        assert shares == pytest.approx(of["probabilities"] or {}, abs=1e-6)
        # The nearest crops of each target have a picture; those of levels that were not found have none.
        assert len(shown[name]["pictures"]) == min(3, len(of["crops"]))
    coded = read_response(answer["codes"]).classes != MISSING
    assert coded.tolist() == [expected["targets"][name]["probabilities"] is not None for name in TARGETS]
    assert 0 < coded.sum() < len(TARGETS)
    assert len(sent["pictures"]) > 10
