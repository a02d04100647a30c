"""Errors in millimetres and names, by hand and against plain NumPy."""

import numpy as np
import pytest

from heads.localising.localising_errors import compare_points, summarise


def spines(n=1):
    """Discs 30 mm apart; every structure at the same place."""
    points = np.zeros((n, 5, 5, 3))
    points[..., 2] = -30.0 * np.arange(5)
    return points


def test_a_shift_by_a_level_leaves_no_name_right():
    true = spines()
    predicted = true + np.array([0, 0, -30.0])
    found = compare_points(predicted, true)
    assert (found.errors_mm == 30).all()
    # Each lies on the next level; the last one beyond its own reach of 20 mm.
    assert not found.right.any()
    assert found.all_right()[0].tolist() == [False]


def test_a_point_is_right_while_its_own_level_is_the_nearest():
    true = spines()
    predicted = true.copy()
    predicted[0, 0, :, 2] += [14.9, 15.1, -14.9, -15.1, -19.9]
    found = compare_points(predicted, true)
    assert found.right[0, 0].tolist() == [True, False, True, False, True]
    predicted[0, 0, 4, 2] -= 0.2
    assert not compare_points(predicted, true).right[0, 0, 4]


def test_what_was_not_found_is_infinitely_far_and_what_readers_left_out_is_not_judged():
    true, predicted = spines(2), spines(2)
    predicted[0, 0, 1] = np.nan
    true[1, 0] = np.nan
    found = compare_points(predicted, true)
    assert np.isinf(found.errors_mm[0, 0, 1])
    assert not found.right[0, 0, 1]
    assert np.isnan(found.errors_mm[1, 0]).all()
    all_right, judged = found.all_right()
    # Without canal points the foramina speak.
    assert all_right.tolist() == [False, True]
    assert judged.tolist() == [True, True]
    true[1] = np.nan
    assert compare_points(predicted, true).all_right()[1].tolist() == [True, False]


def test_the_summary_holds_what_numpy_says():
    chance = np.random.default_rng(0)
    true = spines(40)
    predicted = true + chance.normal(0, 4, true.shape)
    patients = [f"p{number // 2}" for number in range(40)]
    compared = compare_points(predicted, true)
    found = summarise(compared, patients, draws=200, seed=0)
    errors = np.linalg.norm(predicted - true, axis=-1)
    for group, places in (("canal", [0]), ("foramen", [1, 2]), ("subarticular", [3, 4])):
        own = np.sort(errors[:, places].ravel())
        assert found[group]["median_mm"].value == own[len(own) // 2 - 1]
        assert found[group]["p95_mm"].value == own[int(np.ceil(0.95 * len(own))) - 1]
        assert found[group]["within_5_mm"].value == pytest.approx((own <= 5).mean())
        assert found[group]["level_accuracy"].value == pytest.approx(compared.right[:, places].mean())
        assert found[group]["median_mm"].n == len(own)
        assert (
            found[group]["median_mm"].low < found[group]["median_mm"].value < found[group]["median_mm"].high
        )
    assert found["canal"]["level_accuracy_l3_l4"].value == pytest.approx(compared.right[:, 0, 2].mean())
    assert found["canal"]["all_levels_right"].n == 40


def test_intervals_are_by_patient():
    """One patient with many studies: drawing studies would look far more certain."""
    true = spines(60)
    predicted = true.copy()
    predicted[:30] += 9.0
    together = summarise(compare_points(predicted, true), ["a"] * 30 + ["b"] * 30, draws=400, seed=1)[
        "canal"
    ]["within_5_mm"]
    apart = summarise(
        compare_points(predicted, true), [str(number) for number in range(60)], draws=400, seed=1
    )["canal"]["within_5_mm"]
    assert together.value == apart.value == 0.5
    assert (together.low, together.high) == (0, 1)
    assert apart.high - apart.low < 0.4


def test_a_group_without_points_is_left_out():
    true = spines(3)
    true[:, 1:] = np.nan
    assert list(summarise(compare_points(spines(3), true), ["a", "b", "c"], draws=20, seed=0)) == ["canal"]
