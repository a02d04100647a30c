"""Options that only one reader or encoder has, on the command line and in embed.toml."""

from __future__ import annotations

import datetime
import json
import tomllib

import pytest

from cli.main import run
from cli.own_options import encoder_options_of, named_values
from embedstore.errors import UsageError
from embedstore.plugins import ENCODERS
from embedstore.store.reader import open_store
from tests.pictures import write_pictures
from tests.plugin_packages import install

SOURCE = """
    from embedstore.identity import Identity
    from tests.stores import MeanEncoder

    class Scaled(MeanEncoder):
        name = "scaled"

        def __init__(self, *, preset=None, device="auto", dtype="auto", factor=1):
            super().__init__(preset=preset)
            self.factor = factor

        @property
        def identity(self):
            spec = self.preprocess.to_json()
            return Identity(self.name, "1", "none", spec, "none", "float32", 4, options={"factor": self.factor})

        def encode(self, pixels):
            return super().encode(pixels) * self.factor
    """


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a table of four images, and an encoder with an option of its own."""
    install(
        tmp_path / "packages",
        "scaled-encoder",
        {ENCODERS: {"scaled": "own_scaled:Scaled"}},
        {"own_scaled": SOURCE},
    )
    monkeypatch.syspath_prepend(tmp_path / "packages")
    write_pictures(tmp_path, range(4))
    rows = ["path,person,finding", *(f"image{number}.png,p{number},{number % 2}" for number in range(4))]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("0.5", 0.5),
        ("true", True),
        ("True", "True"),
        ('"16"', "16"),
        (".png", ".png"),
        ("", ""),
        ("a=b", "a=b"),
        ('["a", "b"]', ["a", "b"]),
        ("[1, nan]", "[1, nan]"),
        ("inf", "inf"),
        ("2024-01-02", "2024-01-02"),
        ("1\nother = 2", "1\nother = 2"),
        ("{a = 1}", "{a = 1}"),
    ],
)
def test_a_value_is_toml_or_else_text(text, value):
    found = named_values([f"name={text}"], "--reader-option")["name"]
    assert found == value
    assert type(found) is type(value)
    assert not isinstance(found, datetime.date)


def test_what_is_no_name_and_value_is_refused():
    assert named_values(["two-words=1"], "--encoder-option") == {"two_words": 1}
    for text in ("factor", "=3"):
        with pytest.raises(UsageError, match="--encoder-option takes NAME=VALUE; found"):
            named_values([text], "--encoder-option")
    with pytest.raises(UsageError, match="--encoder-option factor is given twice"):
        named_values(["factor=1", "factor=2"], "--encoder-option")


def test_options_in_the_file_belong_to_the_encoder_there():
    settings = {"encoder": "scaled", "encoder_options": {"factor": 3}}
    assert encoder_options_of("scaled", (), settings) == {"factor": 3}
    assert encoder_options_of("scaled", ("factor=4",), settings) == {"factor": 4}
    assert encoder_options_of("hog", (), settings) == {}
    assert encoder_options_of("hog", (), {"encoder_options": {"cells": 8}}) == {"cells": 8}


def test_a_store_remembers_the_option_and_refuses_another(project, capsys):
    extract = [
        "extract",
        "--dataset",
        "table",
        "--root",
        "table.csv",
        "--store",
        "s.store",
        "--encoder",
        "scaled",
    ]
    assert run([*extract, "--encoder-option", "factor=2", "--reader-option", "label=['finding']"]) == 0
    store = open_store(project / "s.store")
    assert store.identity.options == {"factor": 2}
    assert [path.name for path in (project / "s.store" / "tasks").iterdir()] == ["finding"]
    capsys.readouterr()
    assert run([*extract, "--encoder-option", "factor=3"]) == 1
    assert "options.factor: 2 there, 3 asked" in capsys.readouterr().err
    # A search builds the encoder with the options of the store.
    assert run(["search", "--store", "s.store", "image1.png", "--same-patient", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["cosine"] == pytest.approx(1, abs=1e-3)


def test_unknown_options_are_refused_with_those_that_there_are(project, capsys):
    extract = [
        "extract",
        "--dataset",
        "table",
        "--root",
        "table.csv",
        "--store",
        "s.store",
        "--encoder",
        "scaled",
    ]
    assert run([*extract, "--encoder-option", "faktor=2"]) == 2
    assert "encoder 'scaled' has no option 'faktor'; it takes factor. Did you mean" in capsys.readouterr().err
    assert run([*extract, "--reader-option", "lable=x"]) == 2
    assert "dataset 'table' has no option 'lable'; it takes as_written, columns, " in capsys.readouterr().err


def test_init_writes_own_options_as_tables_and_extract_reads_them(project, capsys):
    init = ["init", "--dataset", "table", "--root", "table.csv", "--encoder", "scaled", "--store", "s.store"]
    assert run([*init, "--encoder-option", "faktor=2"]) == 2
    assert "no option 'faktor'" in capsys.readouterr().err
    assert not (project / "embed.toml").exists()
    assert run([*init, "--encoder-option", "factor=2", "--reader-option", "label=['finding']"]) == 0
    written = tomllib.loads((project / "embed.toml").read_text())
    assert written["options"] == {"label": ["finding"]}
    assert written["encoder_options"] == {"factor": 2}
    assert run(["extract"]) == 0
    assert open_store(project / "s.store").identity.options == {"factor": 2}
