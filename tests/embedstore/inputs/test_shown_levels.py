"""What crops say of the levels that they show, by hand."""

import numpy as np
import pyarrow as pa

from embedstore.inputs.shown_levels import ShownLevels, crops_of_targets, shown_levels

# Of three units: one with a sixth lumbar vertebra, one of oracle points, one of whole images.
TABLE = pa.table(
    {
        "level": ["l6_s1", "l5_l6", "l4_l5", None],
        "side": ["left", "left", "middle", None],
        "offset": pa.array([0, 1, -1, None], pa.int32()),
        "distance_mm": [0.5, 4.5, 3.0, None],
        "points": ["localised", "localised", "oracle", None],
        "level_confidence": [0.5, 0.25, None, None],
        "level_unsure": [True, False, False, None],
    }
)
UNITS = np.array([0, 0, 1, 2])


def test_a_unit_is_as_sure_as_its_least_sure_crop_and_names_its_levels_downwards():
    assert shown_levels(TABLE, UNITS, 3) == [
        ShownLevels("localised", 0.25, True, ("l5_l6", "l6_s1")),
        ShownLevels("oracle", None, False, ("l4_l5",)),
        None,
    ]
    assert shown_levels(TABLE.drop_columns(["points"]), UNITS, 3) == [None, None, None]


def test_the_crops_of_a_target_are_those_that_speak_for_it_the_nearest_first():
    speaking = np.array([[True, True], [True, False], [False, True], [False, False]])
    order = [1, 0, 2, 3]
    found = crops_of_targets(TABLE.take(order), list("baxy"), UNITS, speaking[order], 3)
    near = {"image": "a", "level": "l6_s1", "side": "left", "offset": 0, "distance_mm": 0.5}
    far = {"image": "b", "level": "l5_l6", "side": "left", "offset": 1, "distance_mm": 4.5}
    canal = {"image": "x", "level": "l4_l5", "side": "middle", "offset": -1, "distance_mm": 3.0}
    assert found == [[[near, far], [near]], [[], [canal]], [[], []]]
    assert crops_of_targets(TABLE, list("abxy"), UNITS, None, 3) is None
    assert crops_of_targets(TABLE.select(["level"]), list("abxy"), UNITS, speaking, 3) is None
