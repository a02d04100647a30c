"""How far apart the discs of a spine are, and its foramina and recesses from them: Gaussians in millimetres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.lumbar.level_points import STRUCTURES, LevelPoints
from embedstore.lumbar.levels import LEVELS

Floats = npt.NDArray[np.float64]
FEWEST_SPINES = 4
# Readers place a point to a few millimetres; no spread learned from few studies may be narrower.
_FLOOR_MM = 2.0
# As many samples as the pooled spread of all levels counts for.
_POOLED_SAMPLES = 10.0


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean (d,) and covariance (d, d) in mm."""

    mean: Floats
    covariance: Floats

    @cached_property
    def whitening(self) -> Floats:
        """(d, d) matrix that turns offsets into independent ones of variance 1."""
        return np.asarray(np.linalg.cholesky(np.linalg.inv(self.covariance)), np.float64)

    def penalty(self, offsets: Floats) -> Floats:
        """Return half the squared Mahalanobis distance of (..., d) offsets: nats below the most likely one."""
        white = (offsets - self.mean) @ self.whitening
        half: Floats = 0.5 * np.einsum("...i,...i->...", white, white)
        return half

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"mean_mm": self.mean.tolist(), "covariance_mm2": self.covariance.tolist()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Gaussian:
        """Build a Gaussian from `to_json`."""
        return cls(np.array(document["mean_mm"], float), np.array(document["covariance_mm2"], float))


@dataclass(frozen=True, eq=False)
class SpinePrior:
    """What the readers' points say of spines.

    Parameters
    ----------
    steps
        From each canal point to the next, (y, z); L1/2 first.
    foramen_steps
        The same from foramen to foramen of one side.
    offsets
        Structure (all but ``canal``) -> from the canal point of each level to it, (x, y, z).
    from_middle
        From the middle of the sagittal slices to the canal point of each level, (x, y, z).
    """

    steps: tuple[Gaussian, ...]
    foramen_steps: tuple[Gaussian, ...]
    offsets: Mapping[str, tuple[Gaussian, ...]]
    from_middle: tuple[Gaussian, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "steps": [entry.to_json() for entry in self.steps],
            "foramen_steps": [entry.to_json() for entry in self.foramen_steps],
            "offsets": {name: [entry.to_json() for entry in of] for name, of in self.offsets.items()},
            "from_middle": [entry.to_json() for entry in self.from_middle],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SpinePrior:
        """Build the prior from `to_json`; raises KeyError, TypeError or ValueError if damaged."""

        def read(entries: Sequence[Mapping[str, Any]]) -> tuple[Gaussian, ...]:
            return tuple(Gaussian.from_json(entry) for entry in entries)

        return cls(
            steps=read(document["steps"]),
            foramen_steps=read(document["foramen_steps"]),
            offsets={name: read(of) for name, of in document["offsets"].items()},
            from_middle=read(document["from_middle"]),
        )


def point_array(points: LevelPoints, studies: Sequence[str]) -> Floats:
    """Return (studies, 5 structures, 5 levels, 3) mm, NaN where a study has no point; other levels play no part."""
    place = {study: row for row, study in enumerate(studies)}
    found = np.full((len(studies), len(STRUCTURES), len(LEVELS), 3), np.nan)
    for study, structure, level, xyz in zip(
        points.study_ids, points.structures, points.levels, points.xyz_mm, strict=True
    ):
        if study in place and level in LEVELS:
            found[place[study], STRUCTURES.index(structure), LEVELS.index(level)] = xyz
    return found


def learn_prior(points: Floats, middles_mm: Floats) -> SpinePrior:
    """Learn the prior from points.

    Parameters
    ----------
    points
        (n, 5, 5, 3) of `point_array`.
    middles_mm
        (n, 3) the middle of each study's sagittal slices; NaN where there are none.

    Raises
    ------
    DataError
        If fewer than `FEWEST_SPINES` studies have two neighbouring canal points.
    """
    canal = points[:, 0]
    steps = np.diff(canal, axis=1)[..., 1:]
    usable = int(_finite(steps).any(axis=1).sum())
    if usable < FEWEST_SPINES:
        raise DataError(
            f"a localiser needs {FEWEST_SPINES} studies with the canal points of two neighbouring levels; found "
            f"{usable}"
        )
    sides = points[:, 1:3]
    foramen_steps = np.diff(sides, axis=2)[..., 1:].reshape(-1, len(LEVELS) - 1, 2)
    of_steps = _fit_levels(steps)
    return SpinePrior(
        steps=of_steps,
        # Without a foramen, as where no T1 series was read, they follow the discs.
        foramen_steps=_fit_levels(foramen_steps, instead=of_steps),
        offsets={
            name: _fit_levels(points[:, place] - canal)
            for place, name in enumerate(STRUCTURES)
            if place and np.isfinite(points[:, place] - canal).any()
        },
        from_middle=_fit_levels(canal - middles_mm[:, None]),
    )


def _finite(samples: Floats) -> npt.NDArray[np.bool_]:
    """Return which samples of (..., d) are whole."""
    return np.asarray(np.isfinite(samples).all(axis=-1), np.bool_)


def _fit_levels(samples: Floats, *, instead: tuple[Gaussian, ...] | None = None) -> tuple[Gaussian, ...]:
    """Fit one Gaussian to each column of (n, levels, d); columns with few samples lean on all."""
    known = _finite(samples)
    if not known.any() and instead is not None:
        return instead
    dimensions = samples.shape[2]
    middle = np.array(
        [
            samples[known[:, k], k].mean(axis=0) if known[:, k].any() else samples[known].mean(axis=0)
            for k in range(samples.shape[1])
        ]
    )
    apart = samples - middle
    pooled = apart[known].T @ apart[known] / known.sum()
    found = []
    for k in range(samples.shape[1]):
        own = apart[known[:, k], k]
        spread = (own.T @ own + _POOLED_SAMPLES * pooled) / (len(own) + _POOLED_SAMPLES)
        found.append(Gaussian(middle[k], spread + _FLOOR_MM**2 * np.eye(dimensions)))
    return tuple(found)
