"""Grids are laid the same way up whatever way they were taken, and each token keeps its place in the patient."""

import numpy as np
import pytest

from embedstore.errors import DataError
from embedstore.lumbar.series_grid import SeriesGrid, kind_of_series, study_grids, upright
from embedstore.slices.planes import SlicePlanes

SHAPE = (3, 4, 5)


def grid(orientation=(0, 1, 0, 0, 0, -1), *, shape=SHAPE, x=(-5.0, 0.0, 5.0)):
    """Tokens that hold their own place."""
    n = shape[0]
    planes = SlicePlanes(
        np.tile(np.array(orientation, float), (n, 1)),
        np.stack([np.array(x), np.full(n, -40.0), np.full(n, 70.0)], axis=1),
        np.tile([9.0, 7.0], (n, 1)),
        np.tile(np.array(shape[1:], float), (n, 1)),
    )
    blank = SeriesGrid("1", "T2", np.zeros((*shape, 1)), planes)
    return SeriesGrid("1", "T2", blank.centres_mm(), planes)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        ((0, 1, 0, 0, 0, -1), False),
        ((0, 1, 0, 0, 0, 1), True),  # upside down
        ((0, -1, 0, 0, 0, -1), True),  # mirrored
        ((0, -1, 0, 0, 0, 1), True),  # both
        ((0, 0, -1, 0, 1, 0), True),  # lying
        ((0, 0, 1, 0, -1, 0), True),
        ((0.05, 0.99875, 0, 0, 0, -1), False),
    ],
)
def test_rows_grow_to_the_feet_columns_to_the_back_and_slices_to_the_left(orientation, turned):
    found, was_turned = upright(grid(orientation, x=(5.0, -5.0, 0.0)))
    assert was_turned is turned
    # What a token holds is its place: both moved together.
    np.testing.assert_allclose(found.tokens, found.centres_mm(), atol=1e-9)
    assert (np.diff(found.tokens[..., 2], axis=1) < 0).all()
    assert (np.diff(found.tokens[..., 1], axis=2) > 0).all()
    assert (np.diff(found.tokens[..., 0], axis=0) > 0).all()
    assert (found.planes.shapes_px == found.tokens.shape[1:3]).all()


def test_a_study_says_that_a_picture_was_turned():
    assert not study_grids("s", (grid(), grid())).turned
    assert study_grids("s", (grid(), grid((0, 1, 0, 0, 0, 1)))).turned


@pytest.mark.parametrize(
    ("description", "echo_ms", "kind"),
    [
        ("Sagittal T1", None, "T1"),
        ("Sagittal T2/STIR", None, "T2"),
        ("SAG STIR", 60.0, "T2"),
        ("t1_tse_sag", 100.0, "T1"),
        ("T1 and T2", 10.0, None),
        (None, 9.0, "T1"),
        (None, 100.0, "T2"),
        (None, 40.0, None),
        ("localiser", None, None),
        (None, None, None),
    ],
)
def test_the_kind_of_a_series(description, echo_ms, kind):
    assert kind_of_series(description, echo_ms) == kind


def test_grids_that_do_not_fit_are_refused():
    whole = grid()
    with pytest.raises(DataError, match=r"kind must be one of .* found 'PD'"):
        SeriesGrid("1", "PD", whole.tokens, whole.planes)
    with pytest.raises(DataError, match=r"found .* and 3 planes"):
        SeriesGrid("1", "T1", whole.tokens[:2], whole.planes)
    lost = SlicePlanes(
        np.full((3, 6), np.nan), whole.planes.positions_mm, whole.planes.spacings_mm, whole.planes.shapes_px
    )
    with pytest.raises(DataError, match="known plane"):
        SeriesGrid("1", "T1", whole.tokens, lost)
