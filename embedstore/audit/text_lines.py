"""Letters burned into a picture: small bright shapes of one height, side by side.

A side marker is one letter, and the edge of a plate no letter; names, dates and scanner settings are lines of many.
What this cannot see: letters of less than a hundredth of the picture's height, dark or transparent ones, handwriting.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

# A letter in a picture of 512 pixels.
_HEIGHTS_PX, _WIDTHS_PX = (5, 36), (1, 40)
_AREA_SHARE = (0.15, 0.95)
_STROKE_PX = 9
_BRIGHT_SHARE = 0.45  # of the brightest stroke: thin ones are smoothed
_CONTRAST_GREY = 60
_GAP_HEIGHTS, _LIKE_HEIGHT, _LIKE_PLACE = 1.5, 0.25, 0.35
_MOST_SHAPES = 4000  # grain; a page of text has fewer


def letters_in_line(grey: npt.NDArray[np.uint8]) -> int:
    """Return how many shapes stand in the longest line of what looks like letters, 0 for none.

    Parameters
    ----------
    grey
        (side, side) uint8, a side of about 512.
    """
    # What is brighter than all around it within a stroke's width, on bone as on air.
    strokes = grey - ndimage.grey_opening(grey, (_STROKE_PX, _STROKE_PX))
    high = int(strokes.max())
    if high < _CONTRAST_GREY:
        return 0
    labels, count = ndimage.label(strokes >= _BRIGHT_SHARE * high)
    if not 0 < count <= _MOST_SHAPES:
        return 0
    boxes = np.array(
        [(box[0].start, box[0].stop, box[1].start, box[1].stop) for box in ndimage.find_objects(labels)]
    )
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:] / (heights * widths)
    small = (
        (heights >= _HEIGHTS_PX[0])
        & (heights <= _HEIGHTS_PX[1])
        & (widths >= _WIDTHS_PX[0])
        & (widths <= _WIDTHS_PX[1])
        & (areas >= _AREA_SHARE[0])
        & (areas <= _AREA_SHARE[1])
    )
    return _longest_line(boxes[small])


def _longest_line(boxes: npt.NDArray[np.int64]) -> int:
    """Return the size of the largest run of boxes of one height on one line, from left to right."""
    boxes = boxes[np.argsort(boxes[:, 2], kind="stable")]
    longest = np.ones(len(boxes), np.int64)
    for at in range(len(boxes)):
        top, bottom, left, _ = boxes[at]
        height = bottom - top
        earlier = boxes[:at]
        own = earlier[:, 1] - earlier[:, 0]
        gap = left - earlier[:, 3]
        follows = (
            (np.abs(own - height) <= np.maximum(1, _LIKE_HEIGHT * height))
            & (np.abs(earlier[:, 1] - bottom) <= np.maximum(1, _LIKE_PLACE * height))
            & (gap >= 0)
            & (gap <= _GAP_HEIGHTS * height)
        )
        if follows.any():
            longest[at] = 1 + int(longest[:at][follows].max())
    return int(longest.max(initial=0))
