"""``embed localise`` on stores of synthetic spines: the run, what is printed, and what is wrong."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from cli.main import run
from embedstore.lumbar.level_points import LevelPoints
from embedstore.queries.store_grids import StoreGrids
from embedstore.store.reader import open_store
from heads.localising.localiser_run import read_localiser
from tests.heads.localising.spines import source_of, spine
from tests.spine_stores import write_near_store, write_spine_store
from tests.stores import make_store

QUICK = ["--folds", "2", "--steps", "20", "--draws", "50"]


@pytest.fixture(scope="module")
def source():
    found = source_of(10, seed=3)
    chance = np.random.default_rng(5)
    found.add("new", spine(chance), labelled=False)
    found.add("t2 only", spine(chance), labelled=False, kinds=("T2",))
    return found


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("localise") / "spines.store"
    write_spine_store(path, source)
    return path


@pytest.fixture(scope="module")
def done(store, tmp_path_factory):
    """The document of a run, and its folder."""
    folder = tmp_path_factory.mktemp("run") / "levels"
    assert run(["localise", "--store", str(store), "--out", str(folder), *QUICK]) == 0
    return json.loads((folder / "localiser.json").read_text()), folder


def test_every_study_gets_levels_and_new_ones_too(done, store):
    document, folder = done
    levels = LevelPoints.load(folder / "levels.parquet")
    assert set(levels.studies) == {f"s{number}" for number in range(10)} | {"new", "t2 only"}
    assert levels.origin == "localised"
    assert levels.digest == document["digest"]
    assert document["counts"] == {
        "studies": 12,
        "studies learned from": 10,
        "new studies": 2,
        "studies without sagittal T1": 1,
        **{name: count for name, count in document["counts"].items() if "seem to have" in name},
    }
    localiser = read_localiser(folder)
    grids = StoreGrids(open_store(store))
    (study,) = grids.read(["new"])
    found = localiser.locate(study, grids.identity)
    np.testing.assert_allclose(found.xyz_mm, levels.of_study("new").xyz_mm, atol=1e-9)
    np.testing.assert_allclose(found.confidence, levels.of_study("new").confidence)


def test_the_document_has_errors_with_intervals_beside_the_baseline(done):
    errors = done[0]["errors"]
    for row in ("localised", "mean_position"):
        for group in ("canal", "foramen", "subarticular"):
            metrics = errors[row][group]
            assert metrics["median_mm"]["n"] == {"canal": 50}.get(group, 100)
            assert (
                metrics["median_mm"]["low"] <= metrics["median_mm"]["value"] <= metrics["median_mm"]["high"]
            )
        assert {f"level_accuracy_{level}" for level in ("l1_l2", "l5_s1")} <= metrics.keys()
        assert "all_levels_right" in errors[row]["canal"]
    # A mean place is off by the shift of the spine, 15 mm.
    assert (
        errors["localised"]["canal"]["median_mm"]["value"]
        < errors["mean_position"]["canal"]["median_mm"]["value"]
    )
    assert done[0]["names"]["judged"] == 10


def test_what_is_printed(store, tmp_path, capsys):
    assert run(["localise", "--store", str(store), "--out", str(tmp_path / "levels"), *QUICK]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^canal +50  [\d.]+ \([\d.]+-[\d.]+\)", printed, re.MULTILINE)
    assert re.search(r"^  mean position +50  ", printed, re.MULTILINE)
    assert "within 20 mm" in printed
    assert "not a medical device" in printed
    following = printed.splitlines()[-2:]
    assert re.match(
        r"Next: embed extract .* --crop-neighbours 0 .* --tokens 64, for a second look", following[0]
    )
    assert re.match(r"  or: embed extract --crops .* --store .*crops\.store$", following[1])


def test_json_names_the_run_and_the_levels(store, tmp_path, capsys):
    folder = tmp_path / "levels"
    assert run(["localise", "--store", str(store), "--out", str(folder), *QUICK, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["levels"] == str(folder / "levels.parquet")
    assert document["settings"]["folds"] == 2
    assert document["digest"] == read_localiser(folder).digest


def test_what_is_left_out_is_said(source, tmp_path, capsys):
    def change(row):
        lost = row["series_id"] == "s4/T1"
        return row | {"image_orientation": None} if lost else row

    write_spine_store(tmp_path / "a.store", source, change=change)
    assert run(["localise", "--store", str(tmp_path / "a.store"), *QUICK]) == 0
    said = capsys.readouterr().err
    assert "7 slices without usable geometry play no part" in said
    assert "10 points left out: image without usable geometry" in said
    assert "s4" in LevelPoints.load("runs/levels/levels.parquet").studies


@pytest.fixture(scope="module")
def near(source, store, done, tmp_path_factory):
    """A store of crops around the levels of the first look, whose tokens show the readers' points."""
    path = tmp_path_factory.mktemp("near") / "near.store"
    write_near_store(path, store, LevelPoints.load(done[1] / "levels.parquet"), source)
    return path


def test_a_second_look_is_nearer_and_takes_its_folds_from_the_first(done, store, near, capsys):
    out = done[1].parent / "levels-near"
    line = ["localise", "--store", str(store), "--near", str(near), "--out", str(out), "--draws", "50"]
    assert run(line) == 0  # the first look is found beside it, by what the crops say
    printed = capsys.readouterr().out
    assert re.search(r"^  first look +50  ", printed, re.MULTILINE)
    assert f"extract --crops {out}" in printed.splitlines()[-1]
    document = json.loads((out / "localiser.json").read_text())
    assert document["settings"]["folds"] == done[0]["settings"]["folds"]
    assert document["settings"]["first_look"] == done[0]["digest"]
    assert document["errors"]["first_look"] == done[0]["errors"]["localised"]
    canal = {row: of["canal"]["median_mm"]["value"] for row, of in document["errors"].items()}
    assert canal["localised"] < 0.7 * canal["first_look"]
    assert document["names"] == done[0]["names"]
    studies = [LevelPoints.load(folder / "levels.parquet").studies for folder in (done[1], out)]
    assert studies[0] == studies[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--near near.store --out runs/near", "not beside runs/near; name its folder with --first"),
        ("--near near.store --first levels --out levels", "holds the first look, which stays needed"),
        ("--near near.store --first levels --folds 3", "--folds is that of the first look"),
        ("--first levels", "--first is the run whose levels are looked at again; it needs --near"),
        ("--near spines.store --first levels", "must hold crops around a localiser's levels; it holds whole"),
        ("--near other.store --first levels", "was cut around .*, not around the levels of localiser"),
    ],
)
def test_what_is_wrong_with_a_second_look_is_one_line(
    line, message, source, store, near, done, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name, target in (("spines.store", store), ("near.store", near), ("levels", done[1])):
        (tmp_path / name).symlink_to(target)
    if "other" in line:
        levels = LevelPoints.load(done[1] / "levels.parquet")
        write_near_store(tmp_path / "other.store", store, replace(levels, digest="cd" * 32), source)
    assert run(["localise", "--store", "spines.store", *line.split()]) == 2
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("localise --store plain.store", 2, "has no token grids.*--tokens"),
        (
            "localise --store spines.store --out full",
            2,
            "must be new, empty or a localiser's run; it holds mine.txt",
        ),
        ("localise --store spines.store --folds 1", 2, "folds"),
        ("localise --store spines.store --folds 12", 1, "at least 12 patients .* found 10"),
        ("localise --store bare.store", 2, "no table 'coordinates'"),
    ],
)
def test_what_is_wrong_is_one_line(line, code, message, source, store, tmp_path, monkeypatch, capsys):
    make_store(tmp_path / "plain.store")
    (tmp_path / "spines.store").symlink_to(store)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    if "bare" in line:
        write_spine_store(tmp_path / "bare.store", source, coordinates=False)
    assert run(line.split()) == code
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))
