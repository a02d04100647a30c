"""Units that are everyone's neighbours: a sign of crowded dimensions, and of cases that a search shows too often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Hubness:
    """How often units are among the nearest of others (Radovanovic, Nanopoulos & Ivanovic 2010, JMLR 11:2487).

    Parameters
    ----------
    k
        How many nearest ones of each query were counted.
    skewness
        Of the counts: 0 where all units are found equally often; above 1 a few are found by many. NaN where all counts
        are equal.
    largest
        The unit that is found most often.
    largest_share
        The share of the queries that find it.
    never
        The share of units that no query finds.
    """

    k: int
    skewness: float
    largest: str
    largest_share: float
    never: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "k": self.k,
            "skewness": None if np.isnan(self.skewness) else self.skewness,
            "largest": self.largest,
            "largest_share": self.largest_share,
            "never": self.never,
        }


def hubness(found: npt.NDArray[np.int64], names: npt.NDArray[np.str_]) -> Hubness:
    """Count how often each unit is found.

    Parameters
    ----------
    found
        (queries, k) units; -1 where a query found fewer.
    names
        (n_units,) what units are called.
    """
    counts = np.bincount(found[found >= 0], minlength=len(names)).astype(np.float64)
    away = counts - counts.mean()
    spread = np.sqrt((away**2).mean())
    largest = int(counts.argmax())
    return Hubness(
        k=found.shape[1],
        skewness=float((away**3).mean() / spread**3) if spread > 0 else np.nan,
        largest=str(names[largest]),
        largest_share=float(counts[largest] / len(found)),
        never=float((counts == 0).mean()),
    )
