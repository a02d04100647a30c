"""What is wrong on the command line is refused before the data set is read; tokens beside vectors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import run
from embedstore.plugins import ENCODERS
from embedstore.store.reader import open_store
from tests.pictures import write_pictures
from tests.plugin_packages import install


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder", "hgo"], "--encoder must be one of"),
        (["--shard", "5/4"], "--shard must be i/n"),
        (["--shard", "half"], "--shard must be i/n"),
        (["--preprocess", "squash"], "--preprocess must be one of"),
        (["--dataset", "mur"], "--dataset must be one of"),
        (["--crops", "gone"], "--crops must be oracle or the folder of a localiser's run"),
        (["--crops", "oracle", "--crop-mm", "0"], "--crop-mm must be from 10 to 300 mm; found 0"),
        (["--crop-mm", "40"], "--crop-mm and --crop-neighbours are for crops; give --crops as well"),
    ],
)
def test_a_wrong_choice_is_refused_before_the_data_set_is_read(capsys, arguments, message):
    # The data set is missing, which only its reader would find.
    assert run(["extract", "--dataset", "mura", "--root", "gone", "--store", "s", *arguments]) == 2
    assert f"Error: {message}" in capsys.readouterr().err


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A table of four slices in two planes."""
    write_pictures(tmp_path, range(4))
    planes = ["sagittal", "axial"]
    rows = [
        "path,person,finding,plane",
        *(f"image{number}.png,p{number},{number % 2},{planes[number % 2]}" for number in range(4)),
    ]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    return [
        "extract",
        "--dataset",
        "table",
        "--root",
        "table.csv",
        "--column",
        "path=path",
        "--column",
        "patient_id=person",
    ]


def test_tokens_of_chosen_slices_are_announced_kept_and_continued(project, capsys):
    command = [*project, "--store", "s"]
    tokens = ["--tokens", "4", "--where", "plane=sagittal"]
    assert run([*command, *tokens, "--dry-run", "--json"]) == 0
    sizes = json.loads(capsys.readouterr().out)["array_bytes"]
    assert sizes == {"vectors": 2 * 1152 * 2, "tokens": 2 * 12 * 12 * 4 * 2}
    assert not Path("s").exists()
    assert run([*command, *tokens, "--dry-run"]) == 0
    assert "of which vectors 4.6 kB, tokens 2.3 kB" in capsys.readouterr().out
    assert run([*command, *tokens]) == 0
    assert "tokens: 12 x 12 x 4 numbers of float16, 1.2 kB an image" in capsys.readouterr().err
    assert open_store("s").tokens().values.shape == (2, 12, 12, 4)
    # Without --tokens the other slices get those of the store.
    assert run(command) == 0
    assert open_store("s").tokens().values.shape == (4, 12, 12, 4)
    capsys.readouterr()
    assert run(["search", "--store", "s", "image2.png", "-k", "1", "--same-patient", "--json"]) == 0
    (nearest,) = json.loads(capsys.readouterr().out)["hits"]
    assert nearest["cosine"] == pytest.approx(1, abs=1e-3)
    assert run([*command, "--tokens", "5"]) == 1
    error = capsys.readouterr().err
    assert "arrays.tokens.row_shape: [12, 12, 4] there, [12, 12, 5] asked" in error


def test_an_encoder_without_tokens_refuses_them_before_the_data_set_is_read(tmp_path, capsys, monkeypatch):
    source = """
        from tests.stores import MeanEncoder

        class Plain(MeanEncoder):
            name = "plain"

            def __init__(self, preset=None, device="auto", dtype="auto"):
                super().__init__(preset=preset)
        """
    install(tmp_path, "plain-encoder", {ENCODERS: {"plain": "own_plain:Plain"}}, {"own_plain": source})
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["extract", "--dataset", "mura", "--root", "gone", "--store", "s", "--encoder", "plain"]
    assert run([*arguments, "--tokens", "4"]) == 2
    assert "encoder 'plain' has no tokens; leave --tokens out" in capsys.readouterr().err
