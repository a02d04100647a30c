"""How a localiser is learned and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from embedstore.errors import DataError, UsageError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides a localiser beside its data and seed.

    Parameters
    ----------
    hidden
        Channels between tokens and maps.
    steps
        Steps of learning, of `batch` studies each.
    learning_rate
        Of AdamW at its highest; it rises for a tenth of the steps and falls as a cosine.
    sigma_tokens
        Width of a target in its slice, in tokens.
    sigma_slices_mm
        Width of a target across slices.
    slices_t2, slices_t1
        Slices of a study that are learned from; the nearest to its points first.
    name_weight
        Share of the maps of names beside the map of discs in the score of a path; half of it, as measured on patients
        (docs/lumbar.md).
    sure_from
        A study whose names are less likely right is unsure.
    """

    hidden: int = 24
    steps: int = 400
    batch: int = 8
    learning_rate: float = 1e-2
    sigma_tokens: float = 0.8
    sigma_slices_mm: float = 4.0
    slices_t2: int = 5
    slices_t1: int = 7
    name_weight: float = 0.5
    sure_from: float = 0.8

    def __post_init__(self) -> None:
        for entry in fields(self):
            number = getattr(self, entry.name)
            if not number > 0:
                raise UsageError(f"`{entry.name}` must be above 0; found {number}")
        if not self.sure_from < 1:
            raise UsageError(f"`sure_from` must be below 1; found {self.sure_from}")

    def slices(self, kind: str) -> int:
        """Return how many slices of a kind of series are learned from."""
        return self.slices_t2 if kind == "T2" else self.slices_t1

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Recipe:
        """Build a recipe from `to_json`; raises DataError where a number is missing or foreign."""
        try:
            return cls(**document)
        except (TypeError, UsageError) as error:
            raise DataError(f"not the recipe of a localiser: {error}") from error
