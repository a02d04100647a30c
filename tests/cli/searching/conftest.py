"""A store of phantom radiographs with a run, for jobs that search it; nobody writes into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import run
from embedstore.phantoms.mura import write_phantom_mura


@pytest.fixture(scope="package")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images (MURA-v1.1), their store (mura.store) and a run (run)."""
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom_mura(folder, patients=24, seed=0)
    arguments = ["extract", "--dataset", "mura", "--root", str(folder / "MURA-v1.1"), "--encoder", "hog"]
    assert run([*arguments, "--store", str(folder / "mura.store")]) == 0
    probe = [
        "probe",
        "--head",
        "mlp",
        "--draws",
        "20",
        "--folds",
        "2",
        "--final",
        "refit",
        "--out",
        str(folder / "run"),
    ]
    assert run([*probe, "--store", str(folder / "mura.store")]) == 0
    return folder


@pytest.fixture
def store(phantom: Path) -> Path:
    return phantom / "mura.store"


@pytest.fixture
def image(phantom: Path) -> Path:
    """A picture of the store."""
    return min((phantom / "MURA-v1.1/valid").glob("XR_*/patient*/study*/image*.png"))
