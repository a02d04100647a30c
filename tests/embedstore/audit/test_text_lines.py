"""Letters in pictures, and what is none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from embedstore.audit.text_lines import letters_in_line


def picture_with(text: str, *, height_px: int = 14, fill: int = 255) -> np.ndarray:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    image = Image.fromarray((60 + 20 * rng.random((512, 512))).astype(np.uint8))
    ImageDraw.Draw(image).text((40, 60), text, fill=fill, font=ImageFont.load_default(height_px))
    return np.asarray(image)


@pytest.mark.parametrize("height_px", [12, 20, 30])
def test_a_line_of_letters_is_seen(height_px: int) -> None:
    assert letters_in_line(picture_with("MUSTERMANN 1970", height_px=height_px)) >= 5


def test_a_marker_grain_and_dark_letters_are_none() -> None:
    assert letters_in_line(picture_with("L")) < 2
    assert letters_in_line(picture_with("")) == 0
    assert letters_in_line(picture_with("MUSTERMANN", fill=90)) == 0
    assert letters_in_line(np.zeros((512, 512), np.uint8)) == 0
