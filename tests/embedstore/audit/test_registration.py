"""Likeness of pictures: 1 for the same, high for what was turned or cut, low for another grain."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from embedstore.audit.registration import SIDE_PX, Detail, likeness, moved_likeness
from tests.audited_store import film, grey


def detail(image: Image.Image) -> Detail:
    return Detail(grey(image, SIDE_PX))


def test_a_picture_is_like_itself_and_like_nothing_where_it_is_flat() -> None:
    assert likeness(detail(film(2)), detail(film(2))) == pytest.approx(1, abs=1e-4)
    assert likeness(detail(film(2)), Detail(np.full((SIDE_PX, SIDE_PX), 7, np.uint8))) == 0


@pytest.mark.parametrize("turn", [-3.0, 2.0, 4.0])
def test_a_turn_is_undone(turn: float) -> None:
    turned = detail(film(2).rotate(turn, Image.Resampling.BILINEAR))
    assert moved_likeness(detail(film(2)), turned) > 0.8
    assert likeness(detail(film(2)), turned) < 0.5


@pytest.mark.parametrize("upright", [True, False])
def test_a_turn_of_a_picture_that_is_no_square_is_undone(upright: bool) -> None:
    edge = SIDE_PX // 4
    box = (edge, 0, SIDE_PX - edge, SIDE_PX) if upright else (0, edge, SIDE_PX, SIDE_PX - edge)
    high = film(2).crop(box)
    turned = high.rotate(3, Image.Resampling.BILINEAR)
    aspect = high.width / high.height
    assert moved_likeness(Detail(grey(high, SIDE_PX), aspect), Detail(grey(turned, SIDE_PX), aspect)) > 0.8
    assert moved_likeness(detail(high), detail(turned)) < 0.8


def test_a_cut_is_undone_and_another_grain_stays_another() -> None:
    cut = film(2).crop((4, 4, SIDE_PX - 4, SIDE_PX - 4))
    assert moved_likeness(detail(film(2)), detail(cut)) > 0.8
    assert moved_likeness(detail(film(2)), detail(film(4))) < 0.4
