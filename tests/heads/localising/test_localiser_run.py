"""A localiser's folder: it comes back as it was, and whatever was changed is noticed."""

import json

import numpy as np
import pytest

from embedstore.errors import DataError, IdentityMismatch
from embedstore.files import sealed
from embedstore.identity import identity_from_json
from embedstore.lumbar.level_points import LevelPoints
from heads.localising.cross_fit import cross_fit_localiser
from heads.localising.localiser_run import read_levels, read_localiser, save_localiser
from heads.localising.recipe import Recipe
from tests.heads.localising.spines import source_of


@pytest.fixture(scope="module")
def source():
    return source_of(9)


@pytest.fixture(scope="module")
def fit(source):
    recipe = Recipe(steps=4, batch=4, hidden=8, slices_t2=2, slices_t1=2)
    return cross_fit_localiser(source, source.oracle, folds=2, recipe=recipe)


@pytest.fixture
def saved(fit, tmp_path):
    return save_localiser(tmp_path / "levels", fit, report={"settings": {"seed": 0}}, seconds=1.5)


def test_a_localiser_that_was_read_says_the_same(saved, source):
    written, _ = saved
    found = read_localiser(written.folder)
    for study in ("s0", "s5"):
        expected = written.locate(source.grids[study], source.identity)
        again = found.locate(source.grids[study], source.identity)
        np.testing.assert_array_equal(again.xyz_mm, expected.xyz_mm)
        np.testing.assert_array_equal(again.confidence, expected.confidence)
        assert again.digest == expected.digest == found.digest
    assert found.document["settings"] == {"seed": 0}
    assert json.loads((written.folder / "timing.json").read_text())["seconds"] == 1.5


def test_levels_come_back_with_the_digest_of_the_run(saved, fit):
    written, levels = saved
    found = read_levels(written.folder)
    assert found.origin == "localised"
    assert found.digest == written.digest
    assert len(found) == len(fit.rows) == len(levels)
    np.testing.assert_array_equal(found.xyz_mm, levels.xyz_mm)
    assert LevelPoints.load(written.folder / "levels.parquet").digest == written.digest


def test_two_fits_of_one_seed_have_one_digest_and_other_settings_another(fit, tmp_path):
    digests = [
        save_localiser(tmp_path / str(number), fit, report={"settings": {"seed": seed}}, seconds=number)[
            0
        ].digest
        for number, seed in enumerate((0, 0, 1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_tokens_of_another_identity_are_refused_by_the_run(saved, source):
    other = source.identity.to_json() | {"encoder": "other"}
    folder = saved[0].folder
    found = read_localiser(folder)
    with pytest.raises(IdentityMismatch, match=f"{folder} holds embeddings of another identity.*encoder"):
        found.locate(source.grids["s0"], identity_from_json(other, source="test"))


@pytest.mark.parametrize("name", ["localiser.safetensors", "levels.parquet"])
def test_changed_and_missing_files_are_named(saved, name):
    path = saved[0].folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for read in (read_localiser, read_levels):
        with pytest.raises(DataError, match=f"{name} was changed"):
            read(saved[0].folder)
    path.unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        read_localiser(saved[0].folder)


def test_folders_and_documents_of_something_else_are_refused(saved, tmp_path):
    with pytest.raises(DataError, match="is no localiser's run"):
        read_localiser(tmp_path)
    path = saved[0].folder / "localiser.json"
    document = json.loads(path.read_text())
    for changed, message in (
        (document | {"limits": {"4": 9.0, "6": 9.0}}, "was changed after"),
        (sealed(document | {"format_version": 1}), "format version must be 2 or 3; found 1"),
        (sealed(document | {"recipe": {"steps": 0}}), "steps"),
        (
            sealed({key: entry for key, entry in document.items() if key != "prior"}),
            "cannot be read: 'prior'",
        ),
        ([], "not the document"),
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(DataError, match=message):
            read_localiser(saved[0].folder)
