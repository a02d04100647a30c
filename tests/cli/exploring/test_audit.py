"""``embed audit``: what it prints and leaves, and what its list does to the commands after it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from cli.main import run
from tests.audited_store import make_audited_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_audited_store(tmp_path_factory.mktemp("audited")).parent


def test_an_audit_fails_on_what_it_is_told_and_leaves_a_page_and_a_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    command = ["audit", "s.store", "--workers", "1"]
    assert (
        run([*command, "--out", "audit.html", "--keep", "keep.csv", "--fail-on", "leakage,duplicates"]) == 1
    )
    printed = capsys.readouterr()
    assert "patients-across-splits       1  a patient has images in several splits" in printed.out
    assert "i0.png, copy.png: 2 images have the same pixels (2 patients; splits train, valid)" in printed.out
    assert "images to leave out" in printed.err
    page = Path("audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") > 10
    assert 'id="identical-pixels"' in page
    assert "This page shows patients' images and ids" in page

    # Without pictures negatives are not seen: nothing is known of them, which is no "none".
    blind = ["audit", "s.store", "--no-pictures"]
    assert run([*blind, "--fail-on", "inverted,rotated"]) == 1
    printed = capsys.readouterr()
    assert "--fail-on inverted,rotated: of 63 images the pixels of 0 were looked at" in printed.err
    assert (
        "inverted                     ?  an image is the negative of its kind (not looked at)" in printed.out
    )
    assert run([*blind, "--json", "--fail-on", "two-patients"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["unseen"] == ["blank", "inverted", "rotated", "burned-in-text"]
    assert document["counts"]["identical-pixels"] == 1
    assert run([*blind, "--out", "audit.pdf"]) == 2
    assert "audit.pdf must end in .html" in capsys.readouterr().err
    assert run([*blind, "--fail-on", "dupes"]) == 2
    assert "must be one of leakage, duplicates, all, " in capsys.readouterr().err

    # A list that was edited stays.
    assert run([*blind, "--keep", "keep.csv"]) == 2
    assert "keep.csv exists and may have been edited; --force replaces it" in capsys.readouterr().err
    with Path("keep.csv").open(newline="") as file:
        left_out = {row["image_id"] for row in csv.DictReader(file) if row["keep"] == "no"}
    assert {"i0.png", "i16.png", "blank.png"} <= left_out
    table = ["--dataset", "table", "--root", "t.csv", "--label", "finding", "--keep-list", "keep.csv"]
    assert run(["extract", *table, "--store", "kept.store", "--dry-run"]) == 0
    assert f"left out by keep.csv {len(left_out)} " in " ".join(capsys.readouterr().out.split())
    probe = [
        "probe",
        "--store",
        "s.store",
        "--head",
        "knn",
        "--draws",
        "10",
        "--folds",
        "2",
        "--keep-list",
        "keep.csv",
    ]
    assert run([*probe, "--json"]) == 0
    run_document = json.loads(capsys.readouterr().out)
    assert run_document["run"].endswith("-keep")
    assert run_document["excluded"]["left out"] == len(left_out)
    Path("other.csv").write_text("image_id,keep\nnowhere.png,no\n")
    assert run([*probe[:-1], "other.csv"]) == 1
    assert "none of its 1 images is in what the task labels" in capsys.readouterr().err
