"""A learned localiser, and what it says of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.identity import Identity
from embedstore.lumbar.level_points import FOUR_LEVELS, SIX_LEVELS, STRUCTURES, LevelPoints, points_from_rows
from embedstore.lumbar.levels import LEVELS
from embedstore.lumbar.series_grid import StudyGrids
from heads.localising.confidence import VARIANT_CONFIDENCE, Confidence, variant_of
from heads.localising.find_levels import Found, find_levels
from heads.localising.network import MapNetwork
from heads.localising.recipe import Recipe
from heads.localising.second_look import SecondLook
from heads.localising.spine_prior import Floats, SpinePrior

_NAMES = {4: FOUR_LEVELS, 6: SIX_LEVELS}


@dataclass(frozen=True, kw_only=True, eq=False)
class Localiser:
    """Finds the levels of new studies: the mean of the networks of all folds is asked.

    Parameters
    ----------
    identity
        Of the store whose tokens were learned from; those of another identity are refused.
    recipe
        How it was learned and is read.
    networks
        ``T2`` and ``T1`` -> the networks of the folds; a kind of which nothing could be learned is absent.
    prior
        What spines look like.
    confidence
        Margin -> probability that the names are right.
    limits
        Number of discs -> from which gap on a spine seems to have so many.
    second
        What moves its points by crops around them; None where nobody looks twice.
    digest
        SHA-256 of the run; ``""`` before it is saved.
    document
        What ``localiser.json`` says; empty before it is saved.
    """

    identity: Identity
    recipe: Recipe
    networks: Mapping[str, Sequence[MapNetwork]]
    prior: SpinePrior
    confidence: Confidence
    limits: Mapping[int, float]
    second: SecondLook | None = None
    digest: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def locate(self, study: StudyGrids, identity: Identity) -> LevelPoints:
        """Return the levels of a new study; with a second look, those that it is to move (`SecondLook.refine`).

        Parameters
        ----------
        study
            Its token grids, by `embedstore.lumbar.series_grid.study_grids`.
        identity
            Of the tokens.

        Returns
        -------
        LevelPoints
            Canal, foramina and recesses of each level; no row if no sagittal series shows a spine.

        Raises
        ------
        IdentityMismatch
            If the tokens are of another identity.
        """
        self.identity.require_same(identity, holder=str(self.folder or "the localiser"))
        networks = {kind: list(of) for kind, of in self.networks.items()}
        found = find_levels(study, networks, self.prior, self.recipe)
        rows = [] if found is None else self.rows_of(study, found)
        return points_from_rows(rows, origin="localised", digest=self.digest, left_out={})

    def rows_of(
        self, study: StudyGrids, found: Found, confidence: Confidence | None = None
    ) -> list[dict[str, Any]]:
        """Return one row a point, for `embedstore.lumbar.level_points.points_from_rows`."""
        sure = float((confidence or self.confidence).of(found.margin))
        discs = variant_of(found.variants, self.limits)
        names: tuple[str, ...]
        if discs is None:
            canal, names, own = found.canal, LEVELS, np.arange(len(LEVELS))
            foramina, series = found.foramina, found.foramen_series
        else:
            canal, names = found.variant_canal[discs], _NAMES[discs]
            # The offsets of the level that is as far down the spine.
            own = np.linspace(0, len(LEVELS) - 1, discs).round().astype(int)
            foramina, series, sure = {}, "", min(sure, VARIANT_CONFIDENCE)
        shared = {
            "study_id": study.study_id,
            "confidence": sure,
            # Tokens of a turned picture are not those that were learned from.
            "unsure": discs is not None or sure < self.recipe.sure_from or study.turned,
        }
        placed: dict[str, tuple[Floats, str]] = {"canal": (canal, found.canal_series)}
        for structure in STRUCTURES[1:]:
            if structure not in self.prior.offsets:
                continue
            if structure in foramina:
                placed[structure] = (foramina[structure], series)
            else:
                usual = np.array([self.prior.offsets[structure][level].mean for level in own])
                placed[structure] = (canal + usual, "")
        return [
            shared | {"structure": structure, "level": name, "xyz_mm": xyz, "series_id": of}
            for structure, (points, of) in placed.items()
            for name, xyz in zip(names, points, strict=True)
        ]
