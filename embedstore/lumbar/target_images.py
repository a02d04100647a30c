"""Which images speak for which of the 25 targets: whole slices by plane and weighting, crops by what they show."""

from __future__ import annotations

from embedstore.lumbar.levels import LEVELS, SCORED_CONDITIONS, TARGETS, scored_condition
from embedstore.task import KEY_SEPARATOR, ImageRule

# Columns of a store of crops (`embedstore.crops`), side by side.
CROP = "crop,level,side"
# What readers look at, and the competition's labels were made from: `kinds_of_series` of the slices of each condition.
_SLICES = {
    "spinal": ("sagittal T2", "axial T2"),
    "foraminal": ("sagittal T1",),
    "subarticular": ("axial T2",),
}
_CROPS = {"spinal": "canal_sagittal_t2", "foraminal": "foramen_sagittal_t1", "subarticular": "axial_t2"}
_MIDDLE, _SIDES = "middle", ("left", "right")
# The targets of each condition, at all levels and on both sides: right sides are mirrored onto left ones in crops.
TARGETS_OF_CONDITIONS = tuple(
    tuple(target for target in TARGETS if scored_condition(target) == condition)
    for condition in SCORED_CONDITIONS
)


def level_of(target: str) -> str:
    """Return the disc level of one of `TARGETS`.

    Examples
    --------
    >>> level_of("left_neural_foraminal_narrowing_l4_l5")
    'l4_l5'
    """
    (level,) = (level for level in LEVELS if target.endswith(level))
    return level


def side_of(target: str) -> str:
    """Return ``left``, ``right``, or ``middle`` for the canal.

    Examples
    --------
    >>> side_of("right_subarticular_stenosis_l1_l2"), side_of("spinal_canal_stenosis_l1_l2")
    ('right', 'middle')
    """
    return next((side for side in _SIDES if target.startswith(side)), _MIDDLE)


def rules_of_slices() -> dict[str, ImageRule]:
    """Return, of each target, the whole slices that speak for it: by the derived column ``series_kind``."""
    return {target: ImageRule("series_kind", _SLICES[scored_condition(target)]) for target in TARGETS}


def rules_of_crops() -> dict[str, ImageRule]:
    """Return, of each target, the crops that speak for it: of its condition, level and side.

    Examples
    --------
    >>> rules_of_crops()["right_subarticular_stenosis_l5_s1"].values
    ('axial_t2|l5_s1|right',)
    """
    return {
        target: ImageRule(
            CROP,
            (KEY_SEPARATOR.join((_CROPS[scored_condition(target)], level_of(target), side_of(target))),),
        )
        for target in TARGETS
    }
