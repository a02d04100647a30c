"""What the maps are to say: targets of some samples, worked out by hand."""

import numpy as np
import pytest

from embedstore.errors import DataError, UsageError
from heads.localising.recipe import Recipe
from heads.localising.samples import SampleCollector, targets_of
from heads.localising.spine_prior import point_array
from tests.heads.localising.spines import GRID, TOKEN_MM, source_of


def collected(kind, recipe, change=lambda points: points):
    source = source_of(3, seed=2)
    points = change(point_array(source.oracle, list(source.patients)))
    collector = SampleCollector(points, kind=kind, recipe=recipe)
    studies = list(source.read(list(source.patients)))
    for row, study in enumerate(studies):
        collector.add(row, study)
    return collector.samples(), points, studies


@pytest.mark.parametrize(("kind", "structures"), [("T2", [0]), ("T1", [1, 2])])
def test_targets_are_gaussians_around_the_points(kind, structures):
    recipe = Recipe(slices_t2=7, slices_t1=7, sigma_tokens=0.8, sigma_slices_mm=4.0)
    samples, points, studies = collected(kind, recipe)
    targets = targets_of(samples, np.arange(3), recipe)
    for row, study in enumerate(studies):
        (grid,) = study.of_kind(kind)
        centres = grid.centres_mm()
        names = np.zeros((*centres.shape[:3], 5))
        for structure in structures:
            for level in range(5):
                apart = points[row, structure, level] - centres
                mass = np.exp(
                    -(apart[..., 1:] ** 2).sum(-1) / (2 * (0.8 * TOKEN_MM) ** 2)
                    - apart[..., 0] ** 2 / (2 * 4.0**2)
                )
                names[..., level] += mass / mass.sum() / len(structures)
        np.testing.assert_allclose(targets.names[row], names, atol=1e-5)
        np.testing.assert_allclose(targets.disc[row], names.mean(-1), atol=1e-5)
        np.testing.assert_allclose(targets.disc[row].sum(), 1, atol=1e-5)


def test_ways_lead_to_the_nearest_point():
    recipe = Recipe(slices_t2=7)
    samples, points, studies = collected("T2", recipe)
    ways = targets_of(samples, np.arange(3), recipe).ways.numpy()
    centres = studies[0].of_kind("T2")[0].centres_mm()
    # The token next to the third canal point, on the middle slice.
    apart = points[0, 0, 2] - centres[3]
    row, column = np.unravel_index((apart[..., 1:] ** 2).sum(-1).argmin(), (GRID, GRID))
    down, right = ways[0, 3, row, column]
    np.testing.assert_allclose([right * TOKEN_MM, -down * TOKEN_MM], apart[row, column, 1:], atol=1e-4)


def test_missing_points_have_no_target_and_studies_without_any_are_not_learned_from():
    def change(points):
        points[0] = np.nan
        points[1, 0, 3] = np.nan
        return points

    recipe = Recipe(slices_t2=7)
    samples, _, _ = collected("T2", recipe, change)
    assert samples.studies.tolist() == [1, 2]
    targets = targets_of(samples, np.arange(2), recipe)
    assert targets.named[0].tolist() == [True, True, True, False, True]
    assert float(targets.names[0, ..., 3].sum()) == 0
    assert float(targets.disc[0].sum()) == pytest.approx(1, abs=1e-5)


def test_slices_near_the_points_come_first_and_fewer_slices_leave_room():
    samples, _, studies = collected("T2", Recipe(slices_t2=3))
    # Two near the middle of seven slices 8 mm apart, and one of the others.
    x = samples.corners_mm[..., 0]
    assert (np.abs(x) <= 8).sum(axis=1).tolist() == [2, 2, 2]
    assert samples.there.all()
    samples, _, _ = collected("T2", Recipe(slices_t2=9))
    assert samples.there.sum(axis=1).tolist() == [7, 7, 7]
    assert not samples.tokens[:, 7:].any()
    targets = targets_of(samples, np.arange(3), Recipe(slices_t2=9))
    assert float(targets.disc[:, 7:].sum()) == 0
    assert len(studies) == 3


def test_a_recipe_comes_back_and_refuses_what_cannot_be():
    recipe = Recipe(steps=3, sure_from=0.5)
    assert Recipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(UsageError, match="`steps` must be above 0; found 0"):
        Recipe(steps=0)
    with pytest.raises(UsageError, match="`sure_from` must be below 1"):
        Recipe(sure_from=1.0)
    for wrong in ({"steps": -1}, {"layers": 3}):
        with pytest.raises(DataError, match="not the recipe of a localiser"):
            Recipe.from_json(wrong)
