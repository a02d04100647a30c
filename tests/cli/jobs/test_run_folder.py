"""Where a probe leaves its run: names that tell options apart, and places that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.jobs.run_folder import existing_run, require_own_run, require_run_folder, run_suffix
from embedstore.errors import UsageError
from heads.protocol.options import ProbeOptions


def test_without_options_nothing_stands_behind_task_and_head():
    assert run_suffix(ProbeOptions()) == ""
    assert run_suffix(ProbeOptions(head="mlp", preset="mura-mlp", draws=5, device="cuda")) == ""


@pytest.mark.parametrize(
    ("options", "around", "suffix"),
    [
        ({"with_columns": ["anatomy"], "select_inputs": True}, {}, "-with-anatomy-select"),
        ({"cross_validate": True}, {}, "-cv"),
        (
            {"with_columns": ["anatomy", "modality"], "cross_validate": True},
            {},
            "-with-anatomy+modality-cv",
        ),
        (
            {"targets": ["spinal_l4_l5"], "pooling": "mean-vector"},
            {},
            "-target-spinal_l4_l5-pool-mean-vector",
        ),
        (
            {"class_weights": "balanced", "folds": 3},
            {"stores": ["a", "b"]},
            "-on-a+b-weights-balanced-folds-3",
        ),
        ({"coverage": 0.8, "seed": 7, "learning_curve": True}, {}, "-curve-coverage-0.8-seed-7"),
        ({"final": "refit"}, {}, "-final-refit"),
        ({"head": "mlp", "repeats": 3}, {}, "-repeats-3"),
        ({}, {"prompts": "mine"}, "-prompts-mine"),
        ({"shots": 48}, {}, "-shots-48"),
        ({"shots": 48, "preset": "google-lr"}, {}, "-shots-48"),
        ({"shots": 48, "preset": "fewshot-48"}, {}, ""),
    ],
)
def test_options_are_readable_in_the_name(options, around, suffix):
    assert run_suffix(ProbeOptions(**options), **around) == suffix


@pytest.mark.parametrize(
    ("one", "other"),
    [(["L4/L5"], ["L4-L5"]), (["a", "b"], ["a+b"]), (["x" * 70 + "1"], ["x" * 70 + "2"])],
)
def test_names_that_a_file_name_cannot_hold_stay_apart(one, other):
    suffixes = {run_suffix(ProbeOptions(targets=names)) for names in (one, other)}
    assert len(suffixes) == 2
    assert all(len(suffix) < 100 and "/" not in suffix for suffix in suffixes)


def test_a_file_and_a_place_below_a_file_are_refused(tmp_path):
    (tmp_path / "embed.toml").touch()
    with pytest.raises(UsageError, match=r"--out: embed.toml must be a folder; found a file"):
        require_run_folder(Path("embed.toml"))
    (tmp_path / "below").touch()
    with pytest.raises(UsageError, match=r"below/run must be a folder, and .*below above it is a file"):
        require_run_folder(Path("below/run"))


def test_a_folder_of_other_files_is_refused_with_their_names(tmp_path):
    for name in "dbcae":
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=r"it holds a, b, c and 2 more and no run.json"):
        require_run_folder(tmp_path)


def test_new_empty_and_half_written_folders_and_runs_are_taken(tmp_path):
    require_run_folder(tmp_path / "new" / "run")
    require_run_folder(tmp_path)
    (tmp_path / "head.safetensors").touch()
    (tmp_path / "report.html").touch()
    (tmp_path / "run.json.0123abcd.tmp").touch()
    require_run_folder(tmp_path)
    (tmp_path / "run.json").touch()
    (tmp_path / "notes.txt").touch()
    require_run_folder(tmp_path)


def test_a_run_that_is_there_is_named_with_its_date(tmp_path):
    assert existing_run(tmp_path) is None
    (tmp_path / "run.json").write_text("{}")
    assert existing_run(tmp_path) == "the run in ."
    (tmp_path / "timing.json").write_text(json.dumps({"created": "2026-08-02T09:05:00+00:00"}))
    assert existing_run(tmp_path) == "the run of 2026-08-02 09:05 UTC in ."
    (tmp_path / "run.json").write_text(json.dumps({"created": "2026-07-01T14:30:00+02:00"}))
    assert existing_run(tmp_path) == "the run of 2026-07-01 12:30 UTC in ."
    (tmp_path / "run.json").write_text("[]")
    assert existing_run(tmp_path) == "a run that cannot be read in ."


@pytest.mark.parametrize("text", [None, "{}", "[]", "no json", '{"sources": [{"store": "a.store"}]}'])
def test_a_run_of_the_same_store_or_none_may_be_replaced(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    require_own_run(tmp_path, {"a.store"})


def test_a_run_of_another_store_is_not_replaced_by_default(tmp_path):
    (tmp_path / "run.json").write_text('{"sources": [{"store": "a.store"}]}')
    with pytest.raises(
        UsageError, match=r"holds a run of a.store, this one is of b.store; name another .* --out"
    ):
        require_own_run(tmp_path, {"b.store"})
