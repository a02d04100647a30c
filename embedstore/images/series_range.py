"""The value range of an MR series: exact, mergeable, computed once and passed to every slice.

MR values have no unit, so one slice alone does not say how bright it is. The range that becomes 0 ... 255
belongs to the series, and a slice must encode the same alone or among its series.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.errors import ImageRefused, Reason, UsageError
from embedstore.images.stored_image import StoredImage
from embedstore.images.window import levels_of, to_modality

MAX_DISTINCT_VALUES = 1 << 16  # all that 16 bits can hold; what one slot of a decoding process is sized for


@dataclass(frozen=True, eq=False)
class ValueCounts:
    """How often each modality value occurs; two of them add up without loss.

    Parameters
    ----------
    values
        (k,) float64, ascending, distinct.
    counts
        (k,) int64, each at least 1.
    """

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]


def count_values(image: StoredImage) -> ValueCounts:
    """Count the modality values of one grey frame, padding left out.

    Raises
    ------
    ImageRefused
        With ``unsupported`` for a colour image or more than 65,536 distinct values; ``non-finite`` as
        `levels_of`.
    """
    if image.pixels.ndim != 2:
        raise ImageRefused(
            Reason.UNSUPPORTED, "a series with a value range must be grey; found colour pixels"
        )
    levels = levels_of(image.pixels, image.meaning)
    counts = np.bincount(levels.index.ravel(), minlength=len(levels.stored))
    present = (counts > 0) & ~levels.padding
    values = to_modality(levels.stored, image.meaning.modality)[present]
    if len(values) > MAX_DISTINCT_VALUES:
        raise ImageRefused(
            Reason.UNSUPPORTED,
            f"at most {MAX_DISTINCT_VALUES} distinct values are counted; found {len(values)}",
        )
    return _summed(values, counts[present])


def merge_counts(pieces: Iterable[ValueCounts]) -> ValueCounts:
    """Return the counts of all pieces together; their order does not matter."""
    merged = list(pieces)
    if not merged:
        return ValueCounts(np.zeros(0), np.zeros(0, np.int64))
    return _summed(
        np.concatenate([piece.values for piece in merged]), np.concatenate([piece.counts for piece in merged])
    )


def series_range(counts: ValueCounts, mri_range: str) -> tuple[float, float]:
    """Return the modality values of a series that become 0 and 255.

    Parameters
    ----------
    counts
        Of all slices of the series (`merge_counts`).
    mri_range
        ``percentile-1-99``: as ``numpy.percentile`` with linear interpolation over all pixels;
        ``min-max``: the extremes. (0, 0) if there is no pixel but padding.

    Raises
    ------
    UsageError
        If `mri_range` has another name.
    """
    if mri_range not in _QUANTILES:
        raise UsageError(f"mri_range must be one of {', '.join(_QUANTILES)}; found {mri_range!r}")
    if not len(counts.values):
        return 0.0, 0.0
    low, high = _QUANTILES[mri_range]
    return _quantile(counts, low), _quantile(counts, high)


def _summed(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> ValueCounts:
    distinct, place = np.unique(values, return_inverse=True)
    total = np.zeros(len(distinct), np.int64)
    np.add.at(total, place, counts)
    return ValueCounts(distinct, total)


def _quantile(counts: ValueCounts, quantile: float) -> float:
    through = np.cumsum(counts.counts)
    rank = quantile * (int(through[-1]) - 1)
    below = int(rank)
    first, second = (
        float(counts.values[np.searchsorted(through, min(place, int(through[-1]) - 1), side="right")])
        for place in (below, below + 1)
    )
    return first + (second - first) * (rank - below)


_QUANTILES = {"percentile-1-99": (0.01, 0.99), "min-max": (0.0, 1.0)}
