"""Where the tokens of a picture lie in the patient: preprocess, turned round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.geometry import FloatArray, directions, pixel_to_patient_mm
from embedstore.images.crop import CropBox
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


def crop_token_planes(
    planes: SlicePlanes, boxes: Sequence[CropBox], grid_shape: tuple[int, int]
) -> SlicePlanes:
    """Return the planes of the token grids of crops, whatever the preset: each fills the square with its whole box.

    Columns and rows of tokens follow those of the crop: of a mirrored crop they grow against the image's, and of one
    whose axes are exchanged they change places.

    Parameters
    ----------
    planes
        Of the images that were cut, all known.
    boxes
        Of each image its crop.
    grid_shape
        Rows and columns of tokens.
    """
    along_columns, along_rows = directions(planes.orientations)
    sides = np.array([(box.left_px, box.top_px, box.width_px, box.height_px) for box in boxes]).reshape(-1, 4)
    across = along_columns * (planes.spacings_mm[:, 1] * sides[:, 2])[:, None]  # from edge to edge
    down = along_rows * (planes.spacings_mm[:, 0] * sides[:, 3])[:, None]
    # Edges are counted from the outer edge of the first pixel, places from its middle.
    corner = pixel_to_patient_mm(
        sides[:, :2] - 0.5, planes.orientations, planes.positions_mm, planes.spacings_mm
    )
    exchanged = np.array([box.axes[1] == "r" for box in boxes], bool)[:, None]
    across, down = np.where(exchanged, down, across), np.where(exchanged, across, down)
    leftwards, upwards = (
        np.array([box.axes[place] == "-" for box in boxes], bool)[:, None] for place in (0, 2)
    )
    corner = corner + np.where(leftwards, across, 0.0) + np.where(upwards, down, 0.0)
    across, down = np.where(leftwards, -across, across), np.where(upwards, -down, down)
    rows, columns = grid_shape
    lengths = np.stack([np.linalg.norm(down, axis=1), np.linalg.norm(across, axis=1)], axis=1)
    return SlicePlanes(
        np.concatenate([across / lengths[:, 1:], down / lengths[:, :1]], axis=1),
        corner + across / (2 * columns) + down / (2 * rows),
        lengths / np.array(grid_shape, float),
        np.tile(np.array(grid_shape, float), (len(boxes), 1)),
    )


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
