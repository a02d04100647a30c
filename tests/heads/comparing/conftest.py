"""Two encoders' runs of the same studies, made once."""

from __future__ import annotations

import pytest

from heads.runs.run import Run
from tests.heads.comparing.encoder_runs import run_of, view_by


@pytest.fixture(scope="package")
def sharp(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_of(view_by("sharp"), tmp_path_factory.mktemp("runs") / "sharp-logistic")


@pytest.fixture(scope="package")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_of(view_by("blurred", noise=2.0), tmp_path_factory.mktemp("runs") / "blurred-logistic")
