"""What ``embed search`` shows can be typed back as it stands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cli.main import run
from cli.searching.hit_words import labels_in_words
from cli.searching.search_store import SearchHit

IDS = [f"i{number}.png" for number in range(8)] + ["left, one.png", "it's two.png"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(IDS):
        pixels = np.random.default_rng(number).integers(0, 255, (48, 48)).astype(np.uint8)
        Image.fromarray(pixels).save(name)
    columns = {
        "path": IDS,
        "patient_id": [f"P{number}" for number in range(10)],
        "age": pa.array([None, *(50.0 + number for number in range(1, 10))], pa.float64()),
        "site": ["A, north", " B ", "C", "D=E", "A, north", " B ", "C", "D=E", 'the "big" one', "C"],
    }
    pq.write_table(pa.table(columns), "table.parquet")
    assert run(["extract", "--dataset", "table", "--root", "table.parquet", "--store", "s"]) == 0
    capsys.readouterr()
    return "s"


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    assert run(["search", "--store", "s", "-k", "20", *arguments]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["cosine", "image", "facts"]
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize("age", ["53.0", "53", "5.3e1"])
def test_an_age_is_found_as_it_is_shown_and_in_other_ways(
    store: str, capsys: pytest.CaptureFixture[str], age: str
) -> None:
    shown = next(line for line in found(capsys, "--id", "i0.png") if line[0] == "i3.png")
    assert "age=53" in shown
    assert [line[0] for line in found(capsys, "--id", "i0.png", "--where", f"age={age}")] == ["i3.png"]


def test_every_id_and_every_fact_that_is_shown_finds_its_image_again(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = found(capsys, "--id", "i0.png")
    assert {line[0] for line in lines} == {*IDS} - {"i0.png"}
    for image_id, *facts in lines:
        assert found(capsys, "--id", image_id)
        where = [word for fact in facts for word in ("--where", fact)]
        assert [line[0] for line in found(capsys, "--id", "i0.png", *where)] == [image_id]


def test_ranges_leave_those_within(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = found(capsys, "--id", "i0.png", "--where", "age>52", "--where", "age<=55")
    assert {line[0] for line in lines} == {"i3.png", "i4.png", "i5.png"}


def test_a_value_that_no_image_has_gets_the_nearest_in_both_forms(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", "--store", "s", "--id", "i0.png", "--where", "site=A north"]) == 0
    out = capsys.readouterr().out
    assert (
        "no image to compare with: the conditions leave none; --where site=A north leaves none of 10" in out
    )
    assert out.endswith("Did you mean 'A, north'?\n")
    assert run(["search", "--store", "s", "--id", "i0.png", "--where", "site=A north", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["hits"] == []
    assert "Did you mean 'A, north'?" in printed.err


def test_pictures_are_written_as_a_page_and_as_one_picture(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["search", "--store", store, "i0.png", "--id", "it's two.png", "-k", "6"]
    assert run([*arguments, "--sheet", "sheet.png", "--sheet", "sheet.html"]) == 0
    assert "wrote sheet.png" in capsys.readouterr().err
    page = Path("sheet.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 + 6
    assert "it&#39;s two.png" in page
    sheet = Image.open("sheet.png").convert("L")
    # A row of what was asked for, and two of what was found: five, and one.
    width, height = sheet.width // 5, sheet.height // 3
    inside = [
        [np.asarray(sheet)[row * height + 20 : row * height + 150, at * width + 20 : at * width + 150].std() > 5
         for at in range(5)]
        for row in range(3)
    ]  # fmt: skip
    assert inside == [[True] * 2 + [False] * 3, [True] * 5, [True] + [False] * 4]
    Path("i1.png").unlink()
    assert run([*arguments, "--sheet", "again.html", "-k", "20"]) == 0
    assert Path("again.html").read_text().count("its file has moved") == 1
    assert "wrote again.html; the files of 1 picture have moved" in capsys.readouterr().err
    assert run([*arguments, "--sheet", "sheet.pdf"]) == 2
    assert "--sheet: sheet.pdf must end in .png or .html" in capsys.readouterr().err


def test_labels_of_many_targets_are_counted_and_those_of_few_are_named() -> None:
    hit = {"unit_id": "s", "image_id": "i", "row": 0, "cosine": 1.0, "query": "q", "patient_id": None}
    hit |= {"study_id": "s", "images": 1, "record": {}}
    grades = {f"level {number}": "Severe" if number == 3 else "Normal/Mild" for number in range(25)}
    labels = {
        "spine": {**grades, "level 9": None},
        "abnormal": {"abnormal": "yes"},
        "chest": {"a": "no", "b": "yes"},
    }
    assert labels_in_words(SearchHit(**hit, labels=labels)) == "23 x Normal/Mild, 1 x Severe, yes, a=no, +1"


@pytest.mark.parametrize("option", ["--queries", "--draws", "--seed"])
def test_options_of_an_evaluation_are_refused_without_one(
    store: str, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert run(["search", "--store", store, "--id", "i0.png", option, "3"]) == 2
    assert f"{option} belongs to --evaluate" in capsys.readouterr().err


def test_task_and_encoder_of_embed_toml_are_those_of_its_own_store(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("embed.toml").write_text('store = "another.store"\ntask = "abnormal"\nencoder = "medsiglip-448"\n')
    assert run(["search", "--store", store, "i0.png", "-k", "1"]) == 0
    capsys.readouterr()
    assert run(["search", "--store", store, "i0.png", "--task", "abnormal"]) == 2
    assert "has no task 'abnormal'" in capsys.readouterr().err
