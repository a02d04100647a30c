"""A real lumbar volume, written as DICOM, through localiser, crops and head of phantoms: geometry holds all the way.

What phantoms taught says little of a patient, so the answers may be bad; that they do not depend on how the series is
stored is what is tested.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.jobs import probe_store
from cli.main import run
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.lumbar.levels import CLASSES
from embedstore.phantoms.lumbar import FOLDER, write_phantom_lumbar
from tests.dicom_objects import dicom_object, save, with_pixels
from tests.paths import PROJECT

VOLUME = PROJECT.parent / "shared" / "data" / "t2_lumbar.nii.gz"
STUDY = "77"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not VOLUME.exists(), reason=f"the volume is not beside the repository: {VOLUME}"),
]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over crops of a few phantoms, beside its localiser."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantom_lumbar(folder, studies=12)
    _give_all_grades(folder / FOLDER / "train.csv")
    where, options = {"root": folder / FOLDER}, ExtractOptions(workers=1)
    extract("rsna-lumbar", folder / "tokens.store", "hog", tokens=8, options=options, **where)
    levels = folder / "runs" / "levels"
    words = ["localise", "--store", str(folder / "tokens.store"), "--out", str(levels)]
    assert run([*words, "--folds", "2", "--steps", "40", "--draws", "10"]) == 0
    extract("rsna-lumbar", folder / "crops.store", "hog", crops=levels, options=options, **where)
    words = [
        "probe",
        "--store",
        str(folder / "crops.store"),
        "--head",
        "knn",
        "--folds",
        "2",
        "--draws",
        "10",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_store, "save_report", lambda path, runs, **given: None)
        assert run([*words, "--out", str(folder / "runs" / "crops")]) == 0
    return folder / "runs" / "crops"


def _give_all_grades(table: Path) -> None:
    """Let the canals of so few studies have all grades, so that a head can be learned; of what does not matter."""
    head, *rows = (line.split(",") for line in table.read_text().splitlines())
    for at, row in enumerate(rows):
        for column, name in enumerate(head):
            if name.startswith("spinal_canal"):
                row[column] = CLASSES[at % 3]
    table.write_text("\n".join(",".join(row) for row in (head, *rows)) + "\n")


def write_series(folder: Path, *, reverse: bool = False, mirror: bool = False, numbers: int = 1) -> Path:
    """Write the volume as a sagittal T2 series, its slices or columns stored the other way round if asked."""
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.load(VOLUME)
    affine = np.diag([-1.0, -1, 1, 1]) @ image.affine  # of the patient, as DICOM counts
    across = int(np.argmax(np.abs(affine[0, :3])))
    down, right = sorted(
        (axis for axis in range(3) if axis != across), key=lambda axis: -abs(affine[2, axis])
    )
    voxels = np.asarray(image.dataobj).transpose(across, down, right).astype(np.uint16)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    along = affine[:3, :3] / steps
    target = folder / STUDY / "1"
    target.mkdir(parents=True)
    order = range(len(voxels))[::-1] if reverse else range(len(voxels))
    for number, place in enumerate(order):
        index, columns, pixels = np.zeros(3), along[:, right], voxels[place]
        index[across] = place
        if mirror:
            index[right], columns, pixels = pixels.shape[1] - 1, -columns, pixels[:, ::-1]
        corner = affine[:3, :3] @ index + affine[:3, 3]
        made = dicom_object(
            "1.2.840.10008.5.1.4.1.1.4", "MR", PatientID=STUDY, StudyInstanceUID=f"1.2.{STUDY}",
            SeriesInstanceUID=f"1.2.{STUDY}.1", SeriesDescription="Sagittal T2", InstanceNumber=numbers + number,
            ImagePositionPatient=[f"{value:.6f}" for value in corner],
            ImageOrientationPatient=[f"{value:.8f}" for value in (*columns, *along[:, down])],
            PixelSpacing=[f"{steps[down]:.6f}", f"{steps[right]:.6f}"],
        )  # fmt: skip
        with_pixels(made, np.ascontiguousarray(pixels)[None])
        save(made, target / f"{number}.dcm")
    return folder / STUDY


def answer_of(probe: Path, study: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["predict", "--probe", str(probe), str(study), "--workers", "1"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["localisation"]["points"] == "localised"
    return answer


def said(answer: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        name: own["probabilities"]
        for name, own in answer["targets"].items()
        if own["probabilities"] is not None
    }


def test_the_volume_is_answered_alike_however_its_slices_are_ordered(
    probe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    plain = said(answer_of(probe, write_series(tmp_path / "plain"), capsys))
    # There is neither T1 nor an axial series: the canal alone is shown.
    assert plain
    assert all(name.startswith("spinal_canal") for name in plain)
    other = said(answer_of(probe, write_series(tmp_path / "reversed", reverse=True, numbers=40), capsys))
    assert other.keys() == plain.keys()
    for name, own in other.items():
        assert own == pytest.approx(plain[name], abs=1e-6)


def test_a_mirrored_volume_is_answered_and_called_unsure(
    probe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The encoder saw another picture, so that the localiser may find other points; from equal points come equal crops.
    answer = answer_of(probe, write_series(tmp_path / "mirrored", mirror=True), capsys)
    assert said(answer)
    assert answer["level_unsure"]
