"""The localiser of a run over crops: found by its digest, refused where it is another or of another encoder."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.studying import find_localiser
from cli.studying.find_localiser import crop_rule_of, localiser_of_run
from embedstore.encoders.registry import image_encoder
from embedstore.errors import DataError, IdentityMismatch, UsageError
from embedstore.identity import Identity
from embedstore.lumbar.crop_rule import CropRule
from tests.lumbar_stores import LOCALISER

TOKENS = image_encoder("hog", tokens=8).identity
CROPS = image_encoder("hog").identity.with_crop(
    CropRule(points="localised", localiser_sha256=LOCALISER).to_json()
)


def run_of(folder: Path, identity: Identity = CROPS) -> Any:
    return SimpleNamespace(folder=folder, identity=identity)


def write_localiser(folder: Path, digest: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "localiser.json").write_text(json.dumps({"digest": digest}))
    return folder


@pytest.fixture(autouse=True)
def tokens(monkeypatch: pytest.MonkeyPatch) -> dict[str, Identity]:
    """Identity of the tokens of what is read; what `read_localiser` checks is tested where it is."""
    held = {"identity": TOKENS}

    def reads(folder: Path) -> Any:
        digest = json.loads((Path(folder) / "localiser.json").read_text())["digest"]
        return SimpleNamespace(identity=held["identity"], digest=digest, folder=Path(folder))

    monkeypatch.setattr(find_localiser, "read_localiser", reads)
    return held


def test_it_is_found_beside_the_run_among_others(tmp_path: Path) -> None:
    write_localiser(tmp_path / "runs" / "another", "f" * 64)
    own = write_localiser(tmp_path / "runs" / "levels", LOCALISER)
    (tmp_path / "runs" / "file.txt").write_text("no run")
    assert localiser_of_run(run_of(tmp_path / "runs" / "crops")).folder == own


@pytest.mark.parametrize("place", ["elsewhere", "elsewhere/levels"])
def test_it_is_found_in_further_places_by_name_or_among_runs(tmp_path: Path, place: str) -> None:
    own = write_localiser(tmp_path / "elsewhere" / "levels", LOCALISER)
    found = localiser_of_run(run_of(tmp_path / "runs" / "crops"), places=[tmp_path / place])
    assert found.folder == own


def test_the_named_one_is_taken_with_tokens_of_any_width(tmp_path: Path, tokens: dict[str, Identity]) -> None:
    own = write_localiser(tmp_path / "levels", LOCALISER)
    tokens["identity"] = image_encoder("hog", tokens=4).identity
    assert localiser_of_run(run_of(tmp_path / "crops"), named=own).folder == own


def test_another_localiser_is_refused_in_one_line(tmp_path: Path) -> None:
    other = write_localiser(tmp_path / "other", "f" * 64)
    with pytest.raises(
        IdentityMismatch, match=f"of localiser {LOCALISER[:12]}.* is f{{12}}: its levels"
    ) as caught:
        localiser_of_run(run_of(tmp_path / "crops"), named=other)
    assert "\n" not in str(caught.value)


def test_a_localiser_of_another_encoder_is_refused_with_what_differs(
    tmp_path: Path, tokens: dict[str, Identity]
) -> None:
    write_localiser(tmp_path / "levels", LOCALISER)
    tokens["identity"] = image_encoder("hog", preset="eval", tokens=8).identity
    with pytest.raises(IdentityMismatch, match=r"preprocess\.preset: 'pad' there, 'eval' asked") as caught:
        localiser_of_run(run_of(tmp_path / "crops"))
    assert "\n" not in str(caught.value)


def test_where_it_was_looked_for_is_said_if_there_is_none(tmp_path: Path) -> None:
    write_localiser(tmp_path / "runs" / "other", "f" * 64)
    with pytest.raises(
        UsageError, match=f"localiser {LOCALISER[:12]}, which is not in .*runs.*name its folder"
    ):
        localiser_of_run(run_of(tmp_path / "runs" / "crops"))


def test_crops_around_true_coordinates_are_not_for_new_studies(tmp_path: Path) -> None:
    oracle = replace(CROPS, preprocess={**CROPS.preprocess, "crop": CropRule().to_json()})
    with pytest.raises(UsageError, match="around oracle points, placed by readers who saw these images"):
        localiser_of_run(run_of(tmp_path, oracle))


def test_crops_of_another_rule_are_refused(tmp_path: Path) -> None:
    rule = {**(CROPS.crop or {}), "sides": "as they are"}
    with pytest.raises(DataError, match=re.escape("cut by another rule")):
        crop_rule_of(run_of(tmp_path, CROPS.with_crop(rule)))
