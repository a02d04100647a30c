"""docs/interop.md: its commands and snippets run as they stand, with the versions that it names."""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import h5py
import pytest

import embedstore as es
from cli.main import run
from tests.paths import PROJECT

PAGE = (PROJECT / "docs/interop.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
# Heading of a recipe -> the package that it needs, and the module by which that is imported.
NEEDED = {
    "pandas": ("pandas", "pandas"),
    "Polars": ("polars", "polars"),
    "DuckDB": ("duckdb", "duckdb"),
    "Lance": ("pylance", "lance"),
    "xarray": ("xarray", "xarray"),
    "FAISS": ("faiss-cpu", "faiss"),
    "HDF5 in Python": ("h5py", "h5py"),
}
# A folder with h5wasm installed by npm; the browser's recipe is run where it is named.
NODE_FOLDER = os.environ.get("EMBEDSTORE_NODE_FOLDER", "")


def section_of(name: str) -> tuple[str, str]:
    """Return heading and text of a recipe."""
    return next((heading, text) for heading, text in SECTIONS.items() if heading.startswith(name))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A phantom store, and the exports that the page makes of it."""
    folder = tmp_path_factory.mktemp("interop")
    before = Path.cwd()
    os.chdir(folder)
    try:
        es.write_phantom_mura(".", patients=20)
        es.extract("mura", "mura.store", root="MURA-v1.1")
        commands = re.findall(r"^\$ embed (export .+)$", PAGE, re.MULTILINE)
        assert len(commands) == 5
        for command in commands:
            assert run(shlex.split(command)) == 0, command
    finally:
        os.chdir(before)
    return folder


@pytest.mark.parametrize("name", NEEDED)
def test_a_recipe_prints_what_the_page_shows(name, exported, monkeypatch, capsys):
    package, module = NEEDED[name]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{package} is not installed: pip install 'embedstore[interop]'")
    if name == "xarray" and importlib.util.find_spec("netCDF4") is None:
        pytest.skip("netcdf4 is not installed: pip install 'embedstore[interop]'")
    monkeypatch.chdir(exported)
    shutil.rmtree("mura.lance", ignore_errors=True)
    heading, text = section_of(name)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks, heading
    runner = doctest.DocTestRunner()
    for block in blocks:
        runner.run(doctest.DocTestParser().get_doctest(block, {}, heading, heading, 0))
    assert not runner.failures, capsys.readouterr().out


@pytest.mark.parametrize("name", NEEDED)
def test_the_page_names_the_versions_that_are_tested(name):
    pinned = dict(
        line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    heading, _ = section_of(name)
    assert pinned[NEEDED[name][0]] in heading


def test_exports_are_what_every_reader_of_hdf5_knows(exported):
    with h5py.File(exported / "mura.h5") as file:
        found = {}
        file.visititems(
            lambda name, item: (
                found.update({name: item.dtype.kind + str(item.dtype.itemsize)})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
        assert file["vectors"].chunks is None
    assert found["vectors"] == "f4"
    assert "f2" not in found.values()


@pytest.mark.skipif(
    not NODE_FOLDER or shutil.which("node") is None, reason="EMBEDSTORE_NODE_FOLDER names no h5wasm"
)
def test_the_browsers_recipe_reads_an_export(exported, tmp_path):
    (tmp_path / "node_modules").symlink_to(Path(NODE_FOLDER) / "node_modules")
    (tmp_path / "mura.h5").symlink_to(exported / "mura.h5")
    script = re.search(r"```javascript\n(.*?)```", PAGE, re.DOTALL).group(1)
    (tmp_path / "recipe.mjs").write_text(script)
    done = subprocess.run(
        ["node", "recipe.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["49 x 1152 Float32Array", "hog"]
