"""Where the tokens of a picture lie in the patient: preprocess, turned round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.geometry import FloatArray, pixel_to_patient_mm
from embedstore.images.preprocess import PRESETS, PreprocessSpec, aspect_to_mend, padded_shape
from embedstore.slices.planes import SlicePlanes


def token_planes(
    planes: SlicePlanes, preprocess: Mapping[str, Any], grid_shape: tuple[int, int]
) -> SlicePlanes:
    """Return the planes of token grids: a grid is an image whose pixels are as large as tokens.

    The encoder's square picture is the image, padded (``pad``) or squashed (``eval``, ``hf``), and its tokens divide
    the square evenly. Token (0, 0) is the top left one; its place is its middle.

    Parameters
    ----------
    planes
        Of the images, as they are stored; a plane that is not known stays unknown.
    preprocess
        `embedstore.identity.Identity.preprocess` of their store.
    grid_shape
        Rows and columns of tokens.

    Raises
    ------
    DataError
        If the document is not one of this project's presets of whole images.
    """
    spec = _preset_of(preprocess)
    known = planes.known
    orientations, positions, spacings, shapes = (
        np.full_like(part, np.nan)
        for part in (planes.orientations, planes.positions_mm, planes.spacings_mm, planes.shapes_px)
    )
    chosen = planes.take(known)
    if len(chosen):
        squares, before = _squares(chosen, spec)
        token_px = squares / np.array(grid_shape)
        # Columns, then rows, of the middle of the first token; 0 is the middle of the first pixel.
        first_px = ((token_px - 1) / 2 - before)[:, ::-1]
        orientations[known] = chosen.orientations
        positions[known] = pixel_to_patient_mm(
            first_px, chosen.orientations, chosen.positions_mm, chosen.spacings_mm
        )
        spacings[known] = chosen.spacings_mm * token_px
        shapes[known] = np.array(grid_shape, float)
    return SlicePlanes(orientations, positions, spacings, shapes)


def _squares(
    planes: SlicePlanes, spec: PreprocessSpec
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the rows and columns, in stored pixels, of what the square shows, and how many lie before the image."""
    shapes = planes.shapes_px
    if spec.preset != "pad":
        return shapes, np.zeros_like(shapes)
    aspects = planes.spacings_mm[:, 0] / planes.spacings_mm[:, 1]
    squares = np.array(
        [
            padded_shape(int(height), int(width), aspect_to_mend(spec, float(aspect)))
            for (height, width), aspect in zip(shapes, aspects, strict=True)
        ],
        float,
    )
    before: FloatArray = (squares - shapes) // 2  # the smaller half lies before
    return squares, before


def _preset_of(document: Mapping[str, Any]) -> PreprocessSpec:
    preset, size_px = document.get("preset"), document.get("size_px")
    if preset not in PRESETS or not isinstance(size_px, int):
        raise DataError(
            f"where tokens lie is known of pictures made by the presets {', '.join(PRESETS)}; found preprocess "
            f"{preset!r}. Extract a store of whole images with one of them"
        )
    # Left out of identities from before there was the choice.
    return PreprocessSpec(preset, size_px=size_px, square_pixels=bool(document.get("square_pixels", False)))
