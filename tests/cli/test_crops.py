"""Crops on the command line: made, continued, described, refused and handed on."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from cli.main import run
from embedstore.store.reader import open_store
from tests.lumbar_studies import DIGEST, blobs, usual_points, usual_series, write_study

BALLS = np.random.default_rng(5).uniform((-30, -25, -40), (30, 35, 45), (25, 3))


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A study and a localiser's run: the command that makes crops of them, and its store."""
    folder = tmp_path_factory.mktemp("crops")
    write_study(folder / "rsna", "1", usual_series(shape=(48, 40)), blobs(BALLS, width_mm=5.0))
    usual_points("1").save(folder / "run" / "levels.parquet")
    store = str(folder / "crops.store")
    given = ["extract", "--dataset", "rsna-lumbar", "--root", str(folder / "rsna"), "--store", store]
    return [*given, "--crops", str(folder / "run")], store


def test_crops_are_planned_made_described_handed_on_and_kept_apart(command, capsys, tmp_path):
    crops, store = command
    chosen = [*crops, "--crop-mm", "40", "--where", "offset=0"]
    assert run(chosen) == 0
    said = capsys.readouterr().out
    assert f"localised by {DIGEST[:12]}" in said
    assert "axial_t2 12, canal_sagittal_t2 6, foramen_sagittal_t1 12" in said
    assert "10 of 10 images have a vector" in said
    # The store's own size holds for what is added.
    assert run([*crops, "--where", "crop=canal_sagittal_t2"]) == 0
    table = open_store(store).table
    assert table.num_rows == 14
    assert set(table.column("crop_width_px").to_pylist()) == {32.0}
    capsys.readouterr()
    assert run(["info", store]) == 0
    said = capsys.readouterr().out
    assert f"crops       40 mm, 1 neighbour on each side, around points of localiser {DIGEST[:12]}" in said
    assert "crop        axial_t2 4, canal_sagittal_t2 6, foramen_sagittal_t1 4" in said
    assert "points      localised 14" in said
    assert run(["export", store, str(tmp_path / "crops.h5")]) == 0
    with h5py.File(tmp_path / "crops.h5") as file:
        assert file["vectors"].shape == (14, 1152)
        assert set(file["manifest/mirrored"][:].tolist()) == {False, True}

    capsys.readouterr()
    for arguments, message in [
        (crops[:-2], "holds vectors of crops around level points, and those of whole images were asked for"),
        ([*crops[:-1], "oracle"], "--crops oracle needs a table of coordinates"),
    ]:
        assert run(arguments) in (1, 2)
        assert message in capsys.readouterr().err.splitlines()[-1]
    slice_file = next(path for path in crops if path.endswith("rsna"))
    assert run(["search", f"{slice_file}/train_images/1/101/5.dcm", "--store", store]) == 2
    assert "these vectors are of crops around level points" in capsys.readouterr().err
