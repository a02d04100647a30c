"""A store of phantom radiographs for jobs that are called from Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import run
from embedstore.phantoms.mura import write_phantom_mura


@pytest.fixture(scope="package")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images (MURA-v1.1) and their store (mura.store); nobody writes into it."""
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom_mura(folder, patients=40, seed=0)
    arguments = ["extract", "--dataset", "mura", "--root", str(folder / "MURA-v1.1"), "--encoder", "hog"]
    assert run([*arguments, "--store", str(folder / "mura.store")]) == 0
    return folder


@pytest.fixture
def store(phantom: Path) -> Path:
    return phantom / "mura.store"
