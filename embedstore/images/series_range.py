"""The value range of an MR series: exact, mergeable, computed once and passed to every slice.

MR values have no unit, so one slice alone does not say how bright it is. The range that becomes 0 ... 255
belongs to the series, and a slice must encode the same alone or among its series.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedstore.errors import ImageRefused, Reason, UsageError
from embedstore.images.stored_image import StoredImage
from embedstore.values.window import levels_of, to_modality

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
    kind
        What the values are, where they are not plain magnitude (`StoredImage.value_kind`).
    """

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    kind: str = ""


def count_values(image: StoredImage) -> ValueCounts:
    """Count the modality values of one grey frame, padding left out.

    A frame of more than 65,536 different values (floats, 32 bits) is counted at so many of them: its extremes,
    and between them the middle of groups of neighbours that hold about as many pixels each. A percentile then
    errs by less than 1/65,536 in rank.

    Raises
    ------
    ImageRefused
        With ``unsupported`` for a colour image or a secondary capture; ``non-finite`` as `levels_of`.
    """
    if image.pixels.ndim != 2:
        raise ImageRefused(
            Reason.UNSUPPORTED, "a series with a value range must be grey; found colour pixels"
        )
    if image.is_capture:
        raise ImageRefused(
            Reason.UNSUPPORTED, "a secondary capture is a picture, which has no part in the range of a series"
        )
    levels = levels_of(image.pixels, image.meaning)
    counts = np.bincount(levels.index.ravel(), minlength=len(levels.stored))
    present = (counts > 0) & ~levels.padding
    values = to_modality(levels.stored, image.meaning.modality)[present]
    return replace(_thinned(_summed(values, counts[present])), kind=image.value_kind)


def merge_counts(pieces: Iterable[ValueCounts]) -> ValueCounts:
    """Return the counts of all pieces together, whatever their kind; their order does not matter."""
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


def _thinned(counts: ValueCounts) -> ValueCounts:
    if len(counts.values) <= MAX_DISTINCT_VALUES:
        return counts
    inner_values, inner = counts.values[1:-1], counts.counts[1:-1]
    through = np.cumsum(inner)
    # Each group ends where its share of the pixels is reached; a value of many pixels may be a group alone.
    shares = through[-1] * np.arange(1, MAX_DISTINCT_VALUES - 1) / (MAX_DISTINCT_VALUES - 2)
    ends = np.unique(np.append(np.searchsorted(through, shares, side="left"), len(inner) - 1))
    starts = np.append(0, ends[:-1] + 1)
    return ValueCounts(
        np.concatenate([counts.values[:1], inner_values[(starts + ends) // 2], counts.values[-1:]]),
        np.concatenate([counts.counts[:1], np.add.reduceat(inner, starts), counts.counts[-1:]]),
    )


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
