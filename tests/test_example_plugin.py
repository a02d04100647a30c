"""The example package of docs/plugins.md is installed by pip and does its work in commands of their own."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.paths import PROJECT

EXAMPLE = PROJECT / "examples" / "embedstore-plugin"
EMBED = [sys.executable, "-m", "cli.main"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment in which the example is installed, by pip and without a network."""
    pytest.importorskip("setuptools", reason="the example is built by setuptools")
    folder = tmp_path_factory.mktemp("installed")
    # A copy, because building leaves its traces beside the sources.
    source = shutil.copytree(EXAMPLE, folder / "source")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"),
            *("--no-deps", "--no-build-isolation", "--target", str(folder / "site"), str(source)),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    path = os.pathsep.join([str(folder / "site"), str(PROJECT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Stripes that lie or stand, under noise: 12 patients of each, three images a patient."""
    root = tmp_path_factory.mktemp("work") / "stripes"
    generator = np.random.default_rng(0)
    wave = np.sin(2 * np.pi * np.arange(64) / 6)
    for kind in ("lying", "standing"):
        for patient in range(12):
            folder = root / kind / f"{kind}-{patient:02d}"
            folder.mkdir(parents=True)
            for number in range(3):
                stripes = np.tile(wave, (64, 1)) if kind == "standing" else np.tile(wave[:, None], (1, 64))
                noisy = 127 + 12 * stripes + generator.normal(0, 30, (64, 64))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return root


def embed(*arguments, environment, folder):
    done = subprocess.run(
        [*EMBED, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_images_become_a_run_with_reader_encoder_and_head_of_the_package(installed, images):
    work = {"environment": installed, "folder": images.parent}
    embed(
        *("extract", "--dataset", "class-folders", "--root", "stripes", "--reader-option", "suffix=.png"),
        *("--store", "s.store", "--encoder", "oriented-energy", "--encoder-option", "orientations=4"),
        *("--device", "cpu"),
        **work,
    )
    identity = json.loads((images.parent / "s.store" / "store.json").read_text())["identity"]
    assert (identity["encoder"], identity["options"], identity["dim"]) == (
        "oriented-energy",
        {"orientations": 4},
        64,
    )
    found = json.loads(
        embed("probe", "--store", "s.store", "--task", "class", "--head", "diagonal", "--json", **work)
    )
    run = images.parent / "runs" / "class-diagonal"
    document = json.loads((run / "run.json").read_text())
    assert document["heads"][0]["params"].keys() == {"shrinkage"}
    assert document["versions"]["embedstore-example"] == "0.1.0"
    assert document["identity"] == identity
    assert found
    # A file is encoded with the options that the store's identity holds.
    lines = embed("predict", "--probe", str(run), "stripes/standing/standing-03/1.png", **work).splitlines()
    target = json.loads(lines[0])["targets"]["class"]
    assert target["probabilities"]["standing"] > 0.9


@pytest.mark.slow
def test_the_doctor_lists_the_package(installed, tmp_path):
    findings = json.loads(embed("doctor", "--json", environment=installed, folder=tmp_path))["findings"]
    listed = {
        (entry["group"], entry["name"]): (entry["package"], entry["version"], entry["loads"])
        for entry in findings
        if "group" in entry
    }
    sound = ("embedstore-example", "0.1.0", True)
    assert listed == {
        ("embedstore.encoders", "oriented-energy"): sound,
        ("embedstore.datasets", "class-folders"): sound,
        ("embedstore.heads", "diagonal"): sound,
    }


@pytest.mark.slow
def test_the_tests_of_the_package_pass(installed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")],
        cwd=tmp_path,
        env=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b[5-9]\d passed", done.stdout)


def meaning(node):
    """Return code without its indentation, which the page leaves out."""
    return " ".join(re.sub(r"\\n", " ", ast.dump(node)).split())


def test_the_page_shows_the_files_of_the_package_as_they_are():
    page = (PROJECT / "docs" / "plugins.md").read_text()
    for name in ("encoder.py", "dataset.py", "head.py"):
        tree = ast.parse((EXAMPLE / "embedstore_example" / name).read_text())
        there = {meaning(node) for node in ast.walk(tree)}
        shown = re.findall(rf"<!-- {re.escape(name)} -->\n```python\n(.*?)```", page, re.DOTALL)
        assert shown, name
        for excerpt in shown:
            assert {meaning(node) for node in ast.parse(excerpt).body} <= there, excerpt
    settings = re.search(r"<!-- pyproject.toml -->\n```toml\n(.*?)```", page, re.DOTALL)
    assert settings
    assert settings.group(1) in (EXAMPLE / "pyproject.toml").read_text()
