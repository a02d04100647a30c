"""A second look moves points to where crops show them, as far as that was right out of fold, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest

from embedstore.errors import DataError, IdentityMismatch
from embedstore.lumbar.level_points import points_from_rows
from heads.localising.cross_fit import cross_fit_localiser
from heads.localising.localiser_run import read_localiser, save_localiser
from heads.localising.localising_errors import summarise
from heads.localising.look_again import SECOND, _share, look_again
from heads.localising.recipe import Recipe
from heads.localising.second_look import moved
from tests.heads.localising.near_crops import NearCrops
from tests.heads.localising.spines import source_of, spine

QUICK = replace(SECOND, steps=120, batch=16, hidden=12)


def place_of(points):
    keys = zip(points.study_ids, points.structures, points.levels, strict=True)
    return dict(zip(keys, points.xyz_mm, strict=True))


@pytest.fixture(scope="module")
def source():
    found = source_of(16, seed=4)
    # A new study, of whose points the localiser is told nothing.
    found.add("new", spine(np.random.default_rng(7)), labelled=True)
    return found


@pytest.fixture(scope="module")
def known(source):
    """The readers' points without those of the new study."""
    return source.oracle.take(source.oracle.study_ids != "new")


@pytest.fixture(scope="module")
def first(source, known, tmp_path_factory):
    """A localiser, and levels as a first look may find them: every point is off by 3 mm along each axis."""
    recipe = Recipe(steps=40, batch=4, hidden=8, slices_t2=2, slices_t1=2)
    fit = cross_fit_localiser(source, known, folds=3, recipe=recipe)
    localiser, _ = save_localiser(
        tmp_path_factory.mktemp("first") / "levels", fit, report={"settings": {}}, seconds=1
    )
    chance = np.random.default_rng(1)
    rows = [
        row | {"xyz_mm": row["xyz_mm"] + chance.normal(0.0, 3.0, 3), "series_id": "seen", "confidence": 0.9}
        for row in source.oracle.to_rows()
    ]
    return localiser, points_from_rows(rows, origin="localised", digest=localiser.digest, left_out={})


@pytest.fixture(scope="module")
def looked(first, source, known):
    localiser, found = first
    crops = NearCrops(found, place_of(source.oracle))
    return look_again(localiser, found, crops, known, source.patients, recipe=QUICK), crops


def errors_of(points, true, axes):
    """Return the errors along some axes, by name."""
    return np.abs([point - true[key] for key, point in place_of(points).items()])[:, axes]


def test_points_move_to_where_crops_show_them_out_of_fold(looked, first, source):
    fit, _ = looked
    canal = {
        name: summarise(compared, fit.studies, draws=20, seed=0)["canal"]["median_mm"].value
        for name, compared in (("first", fit.baseline), ("second", fit.compared))
    }
    # What lies across a slice (3 mm) stays: a crop says nothing of it.
    assert canal["second"] < 0.75 * canal["first"]
    better = points_from_rows(fit.rows, origin="localised", digest="", left_out={})
    true = place_of(source.oracle)
    along = {"canal": [1, 2], "foramen": [1, 2], "subarticular": [0, 1, 2]}
    for kind, axes in along.items():
        rows = np.array([name.endswith(kind) for name in better.structures])
        before = np.median(errors_of(first[1].take(rows), true, axes))
        after = np.median(errors_of(better.take(rows), true, axes))
        assert after < (0.6 if kind != "subarticular" else 0.9) * before, kind
    assert all(view.share > 0.8 for view in fit.localiser.second.views.values())
    assert set(better.studies) == set(first[1].studies)


def test_a_study_that_was_not_learned_from_is_moved_by_all_networks_as_when_it_is_new(looked, first):
    fit, crops = looked
    own = np.flatnonzero(first[1].study_ids == "new")
    alone = first[1].take(own)
    looks = NearCrops(alone, crops.true).looks
    found = fit.localiser.second.refine(alone, looks, crops.tokens[own], crops.identity)
    better = points_from_rows(fit.rows, origin="localised", digest="", left_out={})
    np.testing.assert_allclose(found.xyz_mm, better.of_study("new").xyz_mm, atol=1e-6)


def test_the_networks_of_a_fold_do_not_depend_on_its_points(looked, first, source, known):
    fit, crops = looked
    fold = int(fit.folds[fit.studies.index("s3")])
    moved_points = known.xyz_mm.copy()
    moved_points[known.study_ids == "s3"] += [0.0, 4.0, 0.0]
    other = look_again(
        first[0], first[1], crops, replace(known, xyz_mm=moved_points), source.patients, recipe=QUICK
    )
    for kind, view in fit.localiser.second.views.items():
        again = other.localiser.second.views[kind]
        for number, (one, two) in enumerate(zip(view.networks, again.networks, strict=True)):
            same = all(
                np.array_equal(a, b)
                for a, b in zip(one.arrays().values(), two.arrays().values(), strict=True)
            )
            assert same == (number == fold), (kind, number)


def test_crops_that_show_nothing_move_nothing(first, source, known):
    blind = NearCrops(first[1], place_of(source.oracle), noise=0.0)
    blind.tokens = np.random.default_rng(0).normal(size=blind.tokens.shape).astype(np.float16)
    fit = look_again(first[0], first[1], blind, known, source.patients, recipe=replace(QUICK, steps=40))
    value = {
        name: summarise(compared, fit.studies, draws=20, seed=0)["canal"]["median_mm"].value
        for name, compared in (("first", fit.baseline), ("second", fit.compared))
    }
    assert value["second"] < 1.05 * value["first"]
    better = points_from_rows(fit.rows, origin="localised", digest="", left_out={})
    way = np.linalg.norm(better.xyz_mm - first[1].xyz_mm, axis=1)
    assert np.median(way) < 0.5  # of errors of 5 mm


def test_what_is_said_is_believed_as_far_as_it_was_right():
    chance = np.random.default_rng(3)
    wanted = chance.normal(0.0, 2.0, (400, 2))
    assert _share(wanted, wanted) == pytest.approx(1.0, abs=1e-6)
    assert _share(2 * wanted, wanted) == pytest.approx(0.5, abs=1e-6)
    assert _share(0.5 * wanted, wanted) == 1.0  # never more than was said
    assert _share(-wanted, wanted) == _share(np.zeros_like(wanted), wanted) == 0.0
    # Half of what is said is noise of the same size: half is believed.
    assert _share(wanted + chance.normal(0.0, 2.0, wanted.shape), wanted) == pytest.approx(0.5, abs=0.06)
    assert np.mean([_share(chance.normal(0.0, 2.0, wanted.shape), wanted) for _ in range(50)]) < 0.03


def test_a_point_without_a_crop_follows_its_canal_only_if_it_was_not_seen_itself(first, source):
    rows = [row for row in first[1].to_rows() if row["study_id"] == "s0" and row["level"] == "l3_l4"]
    for row in rows:
        row["series_id"] = "seen" if row["structure"] in ("canal", "left_foramen") else ""
    points = points_from_rows(rows, origin="localised", digest="", left_out={})
    looks = NearCrops(points, place_of(source.oracle)).looks
    shifts = np.full((len(looks), 2), np.nan)
    shifts[points.structures.tolist().index("canal")] = [2.0, -1.0]  # to the back, to the head
    by = dict(zip(points.structures, moved(points, looks, shifts).xyz_mm - points.xyz_mm, strict=True))
    assert by["canal"].tolist() == [0, 2, 1]
    assert by["left_foramen"].tolist() == [0, 0, 0]
    assert by["right_foramen"].tolist() == by["left_subarticular"].tolist() == [0, 2, 1]
    # An axial crop says where a recess lies in its plane; the canal, how high.
    shifts[points.structures.tolist().index("right_subarticular")] = [1.0, 0.5]
    found = moved(points, looks, shifts)
    at = points.structures.tolist().index("right_subarticular")
    np.testing.assert_allclose(found.xyz_mm[at] - points.xyz_mm[at], [-1.0, 0.5, 1.0])
    assert found.series_ids[at] == "series of subarticular"


def test_both_looks_come_back_from_a_run_and_every_file_is_checked(looked, first, tmp_path):
    fit, crops = looked
    folder = tmp_path / "near"
    written, levels = save_localiser(folder, fit, report={"settings": {"seed": 0}}, seconds=2)
    assert written.document["format_version"] == 3
    assert levels.digest == written.digest != first[0].digest
    found = read_localiser(folder)
    assert found.second.identity == crops.identity
    own = np.flatnonzero(first[1].study_ids == "s1")
    alone = first[1].take(own)
    asked = (alone, NearCrops(alone, crops.true).looks, crops.tokens[own], crops.identity)
    np.testing.assert_array_equal(
        found.second.refine(*asked).xyz_mm, fit.localiser.second.refine(*asked).xyz_mm
    )
    payload = bytearray((folder / "second.safetensors").read_bytes())
    payload[-1] ^= 1
    (folder / "second.safetensors").write_bytes(payload)
    with pytest.raises(DataError, match=r"second\.safetensors was changed"):
        read_localiser(folder)
    # The next run there may have one look only: nothing of the second stays.
    save_localiser(folder, replace(fit, localiser=first[0]), report={"settings": {}}, seconds=1)
    assert not (folder / "second.safetensors").exists()
    assert read_localiser(folder).second is None


def test_tokens_of_other_crops_or_another_encoder_and_too_few_points_are_refused(
    looked, first, source, known
):
    fit, crops = looked
    other = replace(crops.identity, revision="2")
    with pytest.raises(IdentityMismatch, match="second look"):
        fit.localiser.second.refine(first[1], crops.looks, crops.tokens, other)
    with pytest.raises(IdentityMismatch):
        look_again(
            replace(first[0], identity=replace(first[0].identity, revision="2")),
            first[1],
            crops,
            known,
            source.patients,
            recipe=QUICK,
        )
    fewer = {study: patient for study, patient in source.patients.items() if study != "s3"}
    with pytest.raises(DataError, match="whose patients are not known: s3"):
        look_again(first[0], first[1], crops, known, fewer, recipe=QUICK)
    far = replace(known, xyz_mm=known.xyz_mm + 200.0)
    with pytest.raises(DataError, match="needs 40 crops of a kind with a reader's point in them"):
        look_again(first[0], first[1], crops, far, source.patients, recipe=QUICK)
