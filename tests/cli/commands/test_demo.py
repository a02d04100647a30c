"""The demo's lumbar steps: all the way from 12 studies on, named so that each finds what the one before left."""

from pathlib import Path

import pytest

from cli.commands.demo import _FEWEST_LUMBAR_STUDIES, _LUMBAR_RUN, _lumbar_steps
from heads.localising.cross_fit import FEWEST_PATIENTS


@pytest.fixture
def lumbar(tmp_path):
    (tmp_path / "test_images" / "77").mkdir(parents=True)
    return tmp_path


def words(lumbar: Path, studies: int) -> list[str]:
    return [line.split()[1] for line in _lumbar_steps(lumbar, studies=studies)]


def test_few_studies_are_extracted_only(lumbar):
    assert words(lumbar, _FEWEST_LUMBAR_STUDIES - 1) == ["extract"]
    assert _FEWEST_LUMBAR_STUDIES >= FEWEST_PATIENTS


def test_more_go_from_slices_to_a_comparison(lumbar):
    steps = list(_lumbar_steps(lumbar, studies=_FEWEST_LUMBAR_STUDIES))
    assert [line.split()[1] for line in steps] == [
        "extract",
        "localise",
        "extract",
        "localise",
        "extract",
        "probe",
        "predict",
        "compare",
    ]
    assert all(_LUMBAR_RUN in line.split() for line in steps[-2:])
