"""A task of the levels of studies whose targets have images of their own, from the labels to the predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.main import run
from embedstore.manifest import manifest_from_columns
from embedstore.store.commit import ChunkResult
from embedstore.store.tasks import read_task, write_task
from embedstore.store.writer import open_writer
from embedstore.task import ImageRule, Task
from heads.runs.run_files import load_run
from tests.stores import IDENTITY, content_of

STUDIES = 60
LEVELS, PLANES = ("l4", "l5"), ("sagittal", "axial", "coronal")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of studies with a sagittal, an axial and a coronal image of two levels each, and its task ``spine``.

    The sagittal vector is high where the canal is narrow, the axial one where the left side is; the coronal one is
    noise.
    Every tenth study has no axial image.
    """
    folder = tmp_path_factory.mktemp("units")
    generator = np.random.default_rng(0)
    images, labels = [], []
    for study in range(STUDIES):
        for level in LEVELS:
            canal, left = generator.integers(0, 2, 2)
            labels.append({"study_id": f"s{study:02d}", "level": level, "canal": canal, "left": left})
            signal = {"sagittal": canal, "axial": left, "coronal": 0}
            images += [
                {"study_id": f"s{study:02d}", "level": level, "plane": plane, "signal": 2 * signal[plane]}
                for plane in PLANES
                if plane != "axial" or study % 10
            ]
    columns = {name: [image[name] for image in images] for name in ("study_id", "level", "plane")}
    ids = [f"{image['study_id']}/{image['level']}/{image['plane']}.png" for image in images]
    split = ["train" if int(image["study_id"][1:]) < 40 else "valid" for image in images]
    manifest = manifest_from_columns(
        {"image_id": ids, "path": ids, "patient_id": columns["study_id"], "split": split, **columns},
        source="test",
    )
    vectors = generator.normal(size=(len(images), IDENTITY.dim)).astype(np.float32)
    vectors[:, 0] += [image["signal"] for image in images]
    with open_writer(folder / "s", IDENTITY, say=lambda line: None) as writer:
        plan = writer.plan_part(manifest, dataset="t", data_root="r", chunk_rows=len(images), dtype="float16")
        writer.commit(plan, 0, ChunkResult(vectors, content_of(0, len(images))))
    table = pa.Table.from_pylist(
        [
            {
                name: ("no", "yes")[value] if name in ("canal", "left") else value
                for name, value in row.items()
            }
            for row in labels
        ]
    )
    rules = {"canal": ImageRule("plane", ("sagittal",)), "left": ImageRule("plane", ("axial",))}
    task = Task("spine", "study_id,level", ("canal", "left"), ("no", "yes"), table, images_of_target=rules)
    write_task(folder / "s", task)
    return folder


@pytest.fixture
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


PROBE = ["probe", "--store", "s", "--task", "spine", "--preset", "google-lr", "--draws", "20", "--folds", "3"]


@pytest.fixture(scope="module")
def probed(folder: Path) -> Path:
    arguments = [str(folder / entry) if entry == "s" else entry for entry in PROBE]
    assert run([*arguments, "--out", str(folder / "run"), "--no-thumbnails"]) == 0
    return folder / "run"


def test_a_task_is_read_as_it_was_written(folder: Path) -> None:
    task = read_task(folder / "s", "spine")
    assert task.unit_key == ("study_id", "level")
    assert len(task.unit_ids) == len(set(task.unit_ids)) == 2 * STUDIES
    assert task.image_rules == (ImageRule("plane", ("sagittal",)), ImageRule("plane", ("axial",)))


def test_a_run_says_what_was_left_out_and_answers_by_level(probed: Path) -> None:
    loaded = load_run(probed)
    assert loaded.document["excluded"] == {
        "image for no target of task spine": 2 * STUDIES,
        "label without an image for its target": 2 * STUDIES // 10,
    }
    assert loaded.document["metrics"]["auroc"]["value"] > 0.8
    rows = [row for row in loaded.predictions.to_pylist() if row["role"] == "evaluation"]
    silent = {row["unit_id"] for row in rows if row["prob_yes"] is None}
    assert silent == {f"s{study}|{level}" for study in (40, 50) for level in LEVELS}
    assert all(
        row["score"] is None and row["conformal_set"] is None for row in rows if row["prob_yes"] is None
    )


def test_predicting_the_store_again_gives_the_run_to_the_bit(
    in_folder: Path, probed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated = {
        (row["unit_id"], row["target"]): row["prob_yes"]
        for row in load_run(probed).predictions.to_pylist()
        if row["role"] == "evaluation"
    }
    assert run(["predict", "--probe", "run", "s", "--out", "again.parquet"]) == 0
    again = {
        (row["unit_id"], row["target"]): row["prob_yes"] for row in pq.read_table("again.parquet").to_pylist()
    }
    assert len(evaluated) == 2 * 2 * 20
    assert {key: again[key] for key in evaluated} == evaluated
    capsys.readouterr()
    assert run(["predict", "--probe", "run", "s"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    answer = next(line for line in lines if line["unit_id"] == "s50|l4")["targets"]["left"]
    assert (answer["probabilities"], answer["decision"], answer["conformal_set"]) == (None, None, None)


def test_files_cannot_say_what_the_run_needs_to_know(
    in_folder: Path, probed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("image.png").write_bytes(b"never read")
    assert run(["predict", "--probe", "run", "image.png"]) == 2
    assert (
        "needs the columns level, plane of every image, which these files do not bring"
        in capsys.readouterr().err
    )


def test_nearest_cases_are_levels_too(
    in_folder: Path, probed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", "--probe", "run", "s", "--store", "s", "--neighbors", "2"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    labels = dict(zip(read_task(in_folder / "s", "spine").unit_ids, range(2 * STUDIES), strict=True))
    cases = first["neighbors"]
    assert len(cases) == 2
    assert all(case["unit_id"] in labels and not case["unit_id"].startswith("s00") for case in cases)
    assert set(cases[0]["labels"]) == {"canal", "left"}
