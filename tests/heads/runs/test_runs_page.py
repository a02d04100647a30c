"""docs/runs.md against the code: every file, key, column, array and type of a run folder stands there, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from heads.blending.blend import blend
from heads.protocol.options import ProbeOptions
from heads.protocol.predictions import schema
from heads.reporting.page import REPORT_FILE, save_report
from heads.runs.run import Run
from heads.runs.run_files import ESCALATION_FILE, save_run
from tests.paths import PROJECT
from tests.views import make_view, probed

PAGE = (PROJECT / "docs/runs.md").read_text()


def rows(begins: str) -> list[list[str]]:
    """Return the cells of the first table behind a piece of text."""
    table = re.search(r"^\|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.partition(begins)[2], re.MULTILINE)
    assert table, begins
    return [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in table[1].splitlines()]


def named(begins: str) -> dict[str, str]:
    """Return name -> second cell; a row may name several."""
    return {name: row[1] for row in rows(begins) for name in re.findall(r"`([^`]+)`", row[0])}


def kind_of(value: object) -> set[str]:
    kinds = {str: {"text"}, dict: {"object"}, bool: {"true, false or null"}, int: {"integer", "number"}}
    if isinstance(value, list):
        return {"list"} | ({"list of numbers"} if all(isinstance(entry, float) for entry in value) else set())
    return kinds.get(type(value), {"number"})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    result = probed(make_view(), draws=20, learning_curve=True)
    run = save_run(tmp_path_factory.mktemp("runs") / "run", result)
    save_report(run.folder / REPORT_FILE, [run])
    return run


@pytest.fixture(scope="module")
def blended(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A cross-validated blend of one head, whose run lies beside it."""
    view, folder = make_view(patients=60, valid_share=0), tmp_path_factory.mktemp("blended")
    options = {"draws": 20, "folds": 2, "final": "ensemble", "repeats": 2}
    part = save_run(folder / "part", probed(view, **options))
    return save_run(folder / "blend", blend(view, [part], ProbeOptions(**options)))


def test_every_file_of_a_run_is_listed(run: Run, blended: Run) -> None:
    of_part = {path.name for path in (blended.folder.parent / "part").iterdir()}
    later = {ESCALATION_FILE}
    assert set(named("# A run folder")) == {path.name for path in run.folder.iterdir()} | of_part | later


def test_every_key_of_a_part_is_listed(blended: Run) -> None:
    parts = blended.document["parts"]
    assert named("Each entry of `parts`").keys() == parts[0].keys()
    of_heads = rows("Each entry of `parts`")[-1][2]
    assert set(re.findall(r"`([^`]+)`", of_heads)) == parts[0]["heads"][0].keys()
    arrays = safetensors.numpy.load_file(blended.folder.parent / "part" / "evidence.safetensors")
    assert {name: array.dtype.name for name, array in arrays.items()} == named("`evidence.safetensors`, log")


@pytest.mark.parametrize(
    ("begins", "part"),
    [
        ("## `run.json`", lambda run: run),
        ("`settings`:", lambda run: run["settings"]),
        ("Each entry of `heads`:", lambda run: run["heads"][0]),
    ],
)
def test_every_key_of_run_json_is_listed_with_its_type(run: Run, begins: str, part) -> None:
    found = part(json.loads((run.folder / "run.json").read_text()))
    listed = named(begins)
    of_blend = {"parts": []} if begins == "## `run.json`" else {}
    found = {**found, **of_blend}
    assert listed.keys() == found.keys()
    for key, value in found.items():
        assert kind_of(value) & {*listed[key].split(", "), listed[key]}, (key, listed[key])


def test_every_key_of_timing_json_is_listed(run: Run) -> None:
    assert named("## `timing.json`").keys() == json.loads((run.folder / "timing.json").read_text()).keys()


def columns_of(found: pa.Schema) -> dict[str, str]:
    """Return column -> type, with the classes' own columns under one name."""
    types = {pa.string(): "string", pa.int64(): "int64", pa.float64(): "double"}
    return {
        re.sub(r"^(prob|score)_(normal|abnormal)$", r"\1_CLASS", field.name).replace(
            "_anatomy", "_COLUMN"
        ): types.get(field.type, "list of string")
        for field in found
    }


@pytest.mark.parametrize("name", ["predictions.parquet", "label_noise.parquet", "units.parquet"])
def test_every_column_is_listed_with_its_type(run: Run, name: str) -> None:
    written = columns_of(pq.read_schema(run.folder / name))
    listed = named(f"## `{name}`")
    listed.pop("score_CLASS", None)
    assert listed == written


def test_with_more_classes_each_has_a_score_of_its_own_as_the_page_says() -> None:
    names = [field.name for field in schema(("mild", "moderate", "severe"))]
    assert [name for name in names if name.startswith("score")] == [
        "score_mild",
        "score_moderate",
        "score_severe",
    ]
    assert "`score_CLASS`" in PAGE


@pytest.mark.parametrize("name", ["outliers.safetensors", "learned.safetensors"])
def test_every_array_is_listed_with_its_type(run: Run, name: str) -> None:
    arrays = safetensors.numpy.load_file(run.folder / name)
    assert named(f"`{name}`:") == {key: str(array.dtype) for key, array in arrays.items()}


def test_the_words_of_roles_and_modes_are_those_that_are_written(run: Run) -> None:
    table = pq.read_table(run.folder / "predictions.parquet")
    for word in {*table.column("role").to_pylist(), *table.column("split").to_pylist()}:
        assert f"`{word}`" in PAGE
    assert f"`{run.document['settings']['mode']}`" in PAGE


def test_the_page_names_the_version_that_is_written(run: Run) -> None:
    assert f"| `format_version` | integer | {run.document['format_version']} |" in PAGE


def test_there_is_nothing_in_a_run_that_the_page_does_not_open(run: Run) -> None:
    endings = {Path(name).suffix for name in named("# A run folder")}
    assert endings == {".json", ".parquet", ".safetensors", ".html"}
