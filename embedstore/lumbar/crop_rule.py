"""By which rule crops are cut around level points: what an identity says of them, and what two stores never mix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedstore.errors import DataError, UsageError
from embedstore.lumbar.level_points import ORIGINS

ORACLE, LOCALISED = ORIGINS
DEFAULT_SIZE_MM = 50.0  # 40 to 60 mm in the competition's winning solutions
DEFAULT_NEIGHBOURS = 1
# A slice that lies farther from the point shows another place (adamnarai, 9th place of the competition).
WITHIN_MM = 5.0
# From one slice to the next: beyond it the next slab of an axial series begins.
STEP_WITHIN_MM = 10.0
_RULES = 1
_SIZES_MM = (10.0, 300.0)


@dataclass(frozen=True)
class CropRule:
    """Size and number of the crops, and where their points come from.

    Parameters
    ----------
    size_mm
        Side of the square, in the patient.
    neighbours
        Slices on each side of the nearest one.
    points
        ``oracle`` or ``localised``, as `embedstore.lumbar.level_points.LevelPoints.origin`.
    localiser_sha256
        Digest of the localiser's run; empty for oracle points. Crops of two localisers never mix, whereas a table of
        coordinates may grow, or be mended: crops whose place changed are then computed again.

    Raises
    ------
    UsageError
        If the size is not from 10 to 300 mm, the number is negative, or the origin is unknown.
    """

    size_mm: float = DEFAULT_SIZE_MM
    neighbours: int = DEFAULT_NEIGHBOURS
    points: str = ORACLE
    localiser_sha256: str = ""

    def __post_init__(self) -> None:
        low, high = _SIZES_MM
        if not (math.isfinite(self.size_mm) and low <= self.size_mm <= high):
            raise UsageError(f"`crop_mm` must be from {low:g} to {high:g} mm; found {self.size_mm:g}")
        if self.neighbours < 0:
            raise UsageError(f"`crop_neighbours` must be 0 or more; found {self.neighbours}")
        if self.points not in ORIGINS:
            raise UsageError(f"points must be one of {', '.join(ORIGINS)}; found {self.points!r}")

    def to_json(self) -> dict[str, Any]:
        """Return the rule as plain JSON values, spelled out."""
        document: dict[str, Any] = {
            "rules": _RULES,
            "size_mm": float(self.size_mm),
            "neighbours": self.neighbours,
            "slice_within_mm": WITHIN_MM,
            "neighbour_within_mm": STEP_WITHIN_MM,
            "centre": "the point; axial: subarticular, else canal",
            "placement": "box at fractions of a pixel, turned to the patient's axes; black outside",
            "sides": "right mirrored onto left",
            "points": self.points,
        }
        return document | ({"localiser_sha256": self.localiser_sha256} if self.localiser_sha256 else {})


def rule_from_json(document: Mapping[str, Any], *, source: str) -> CropRule:
    """Build a rule from what an identity says of it.

    Raises
    ------
    DataError
        If a part is missing, or the rule is another one than this version's; with `source`.
    """
    try:
        rule = CropRule(
            float(document["size_mm"]),
            int(document["neighbours"]),
            str(document["points"]),
            str(document.get("localiser_sha256", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source}: not a rule for crops ({error}); found {dict(document)}") from error
    if rule.to_json() != dict(document):
        raise DataError(
            f"{source}: its crops were cut by another rule than this version's; found {dict(document)}"
        )
    return rule
