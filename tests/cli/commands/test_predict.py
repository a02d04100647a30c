"""``embed predict`` as it is typed: rows of a store, the kinds of image, Ctrl-C, and what stands on stderr."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cli.jobs import answer_units
from cli.main import run
from embedstore.inputs.file_units import FileUnits
from embedstore.phantoms.mura import write_phantom_mura
from tests.image_files import pydicom_file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_phantom_mura(folder, patients=50, seed=0)
    extract = ["extract", "--dataset", "mura", "--root", str(folder / "MURA-v1.1"), "--encoder", "hog"]
    assert run([*extract, "--store", str(folder / "s")]) == 0
    probe = ["probe", "--store", str(folder / "s"), "--preset", "google-lr", "--draws", "20"]
    assert run([*probe, "--out", str(folder / "run"), "--no-thumbnails"]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_made(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(made)
    capsys.readouterr()


PREDICT = ["predict", "--probe", "run", "--neighbors", "0"]


def answers(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_units_of_a_store_are_chosen_by_id_or_condition(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PREDICT, "s"]) == 0
    every = {answer["unit_id"]: answer for answer in answers(capsys.readouterr().out)}
    study = next(unit for unit in every if unit.startswith("valid/"))
    for chosen in (study, every[study]["image_id"]):
        assert run([*PREDICT, "--id", chosen, "--store", "s"]) == 0
        assert answers(capsys.readouterr().out) == [every[study]]
    assert (
        run([*PREDICT, "--store", "s", "--where", "anatomy in XR_HAND,XR_WRIST", "--where", "split=valid"])
        == 0
    )
    found = answers(capsys.readouterr().out)
    wanted = [unit for unit in every if re.match(r"valid/XR_(HAND|WRIST)/", unit)]
    assert found == [every[unit] for unit in wanted]
    assert wanted


def test_attention_names_the_same_images_for_files_and_rows_of_a_store(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = ["probe", "--store", "s", "--head", "attention", "--draws", "2", "--folds", "2", "--repeats", "2"]
    assert run([*probe, "--out", "attention", "--no-thumbnails"]) == 0
    capsys.readouterr()
    predict = ["predict", "--probe", "attention", "--neighbors", "0"]
    found = []
    for source in (["s"], ["MURA-v1.1"], ["MURA-v1.1", "--store", "s"]):
        assert run([*predict, *source]) == 0
        found.append(
            {
                each["unit_id"]: each["targets"]["abnormal"]["image_weights"]
                for each in answers(capsys.readouterr().out)
            }
        )
    assert found[0] == found[1] == found[2]
    for unit, weights in found[0].items():
        assert all(entry["image"].startswith(f"{unit}/image") for entry in weights)
        assert sum(entry["weight"] for entry in weights) == pytest.approx(1)
    assert max(map(len, found[0].values())) > 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give images, study folders or a store"),
        (["--id", "x"], 2, "give images, study folders or a store; --id and --where choose units of --store"),
        (["--id", "x", "--store", "nowhere"], 2, "--store: nowhere is no store"),
        (
            ["--id", "valid/XR_HAN", "--store", "s"],
            1,
            "store s has no unit or image 'valid/XR_HAN' with a vector",
        ),
        (["s", "--where", "anatomy=XR_WRISTS"], 1, "leaves none of"),
        (["s", "--where", "anatomy=XR_WRISTS"], 1, "Did you mean 'XR_WRIST'?"),
        (["s", "--where", "anatomi=XR_WRIST"], 2, "Did you mean 'anatomy'?"),
        (["MURA-v1.1", "--where", "anatomy=XR_WRIST"], 2, "choose among the rows of a store"),
        (["s", "MURA-v1.1"], 2, "s is a store; give it alone"),
        (["s", "--prevalence", "5%%"], 2, "or a percentage, or em; found '5%%'"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert run([*PREDICT, *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_percentage_is_a_share_and_json_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for share in (["5%"], ["0.05"], [" 5 % ", "--json"]):
        assert run([*PREDICT, "s", "--prevalence", *share]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] == said[2]
    prevalence = answers(said[0])[0]["targets"]["abnormal"]["prevalence"]
    assert prevalence["assumed"] == {"normal": 0.95, "abnormal": 0.05}
    assert "training" in prevalence


def test_a_prevalence_that_is_that_of_training_is_stated_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PREDICT, "s"]) == 0
    prevalence = answers(capsys.readouterr().out)[0]["targets"]["abnormal"]["prevalence"]
    assert set(prevalence) == {"source", "assumed"}


def test_an_estimated_prevalence_rests_on_all_files_though_they_come_in_batches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = []
    for source in ("s", "MURA-v1.1"):
        assert run([*PREDICT, source, "--prevalence", "em"]) == 0
        both.append({answer["unit_id"]: answer["targets"] for answer in answers(capsys.readouterr().out)})
    assert both[0] == both[1]
    assert len(both[0]) >= 50


def test_a_modality_that_was_never_learned_from_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(pydicom_file("MR_small.dcm"), tmp_path / "a.dcm")
    assert run([*PREDICT, str(tmp_path)]) == 0
    printed = capsys.readouterr()
    (answer,) = answers(printed.out)
    assert answer["kinds_unseen"] == {"modality": ["MR"]}
    assert answer["unlike_training"] is True
    assert "modality MR: 1 of 1 units; the run learned from CR only" in printed.err
    assert "1 of 1 units are unlike those that the run learned from (unlike_training)" in printed.err
    assert run([*PREDICT, "MURA-v1.1/valid"]) == 0
    printed = capsys.readouterr()
    assert not any("kinds_unseen" in answer for answer in answers(printed.out))
    assert "unlike" not in printed.err


def test_a_copy_of_a_study_elsewhere_is_known_by_its_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next(
        path for path in sorted(Path("MURA-v1.1/valid").glob("*/*/*")) if len(list(path.iterdir())) > 1
    )
    assert run([*PREDICT, str(source)]) == 0
    (own,) = answers(capsys.readouterr().out)
    for number, picture in enumerate(sorted(source.iterdir(), reverse=True)):
        Image.open(picture).save(tmp_path / f"{number}.bmp")
    assert run([*PREDICT, str(tmp_path), "--store", "s"]) == 0
    (copy,) = answers(capsys.readouterr().out)
    assert copy["unit_id"] == own["unit_id"]
    assert copy["targets"] == own["targets"]
    assert copy["image_id"].startswith(own["unit_id"])
    assert Path(copy["path"]).parent == tmp_path
    (tmp_path / "0.bmp").unlink()
    assert run([*PREDICT, str(tmp_path), "--store", "s"]) == 0
    printed = capsys.readouterr()
    assert answers(printed.out)[0]["partial"] is True
    assert "answered from a part of their images" in printed.err


def test_a_file_that_was_replaced_since_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = next(iter(sorted((made / "MURA-v1.1/valid").glob("*/*/*")))).relative_to(made)
    shutil.copytree(made / study, study)
    extract = ["extract", "--dataset", "mura", "--root", "MURA-v1.1", "--encoder", "hog", "--store", "own"]
    assert run(extract) == 0
    Image.open(study / "image1.png").rotate(180).save(study / "image1.png")
    capsys.readouterr()
    assert (
        run(["predict", "--probe", str(made / "run"), str(study), "--store", "own", "--neighbors", "0"]) == 0
    )
    assert (
        f"files with other pixels than the store holds of them: {study}/image1.png" in capsys.readouterr().err
    )


def test_answers_come_while_others_are_computed_and_ctrl_c_keeps_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chunk = FileUnits._chunk

    def interrupted(self: FileUnits, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return chunk(self, *arguments)

    monkeypatch.setattr(FileUnits, "_chunk", interrupted)
    out = tmp_path / "answers.csv"
    assert run([*PREDICT, "MURA-v1.1", "--out", str(out)]) == 130
    printed = capsys.readouterr()
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert 0 < len(rows) < 50
    assert f"answers so far are written to {out} (again to stop at once)" in printed.err
    assert re.search(rf"stopped: {len(rows)} of \d+ units answered", printed.err)


def test_the_last_line_says_how_many_images_and_how_fast(capsys: pytest.CaptureFixture[str]) -> None:
    study = next(iter(sorted(Path("MURA-v1.1/valid").glob("*/*/*"))))
    count = len(list(study.iterdir()))
    assert run([*PREDICT, str(study), str(study)]) == 0
    first, last = capsys.readouterr().err.splitlines()
    assert first == f"{count} file{'s are' if count > 1 else ' is'} given twice; each is taken once"
    assert re.fullmatch(rf"{count} images? in \d+\.\d s, \d+\.\d images/s", last)


def test_lists_of_many_end_with_a_count() -> None:
    assert answer_units._first(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert answer_units._first(["a"]) == "a"
