"""Decoded image -> encoder input, frozen as a specification that is part of the identity."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from embedstore.errors import UsageError

PRESETS = ("pad", "eval", "hf")
MRI_RANGES = ("percentile-1-99", "min-max")


@dataclass(frozen=True)
class PreprocessSpec:
    """How any decoded image becomes a square uint8 picture.

    Parameters
    ----------
    preset
        ``pad``: zero-pad to a square, antialiased bilinear; ``eval``: squash, bilinear without
        antialiasing, truncate; ``hf``: squash, antialiased bicubic.
    size_px
        Side of the square.
    mri_range
        Which values of an MR series become 0 and 255: ``percentile-1-99`` or ``min-max`` of the series.
    """

    preset: str = "pad"
    size_px: int = 448
    mri_range: str = "percentile-1-99"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"preprocess must be one of {', '.join(PRESETS)}; found {self.preset!r}")
        if self.size_px < 1:
            raise UsageError(f"size_px must be at least 1; found {self.size_px}")
        if self.mri_range not in MRI_RANGES:
            raise UsageError(f"mri_range must be one of {', '.join(MRI_RANGES)}; found {self.mri_range!r}")

    def to_json(self) -> dict[str, Any]:
        """Return the specification as plain JSON values, with the version of the rules behind it."""
        return asdict(self) | {"rules": 1}
