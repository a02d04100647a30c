"""Does a search find cases with the same label? Each unit asks, and units of other patients answer.

Numbers stand beside those that a random order of the same candidates would have: where most cases are normal, most
neighbours of a normal one are. Intervals redraw the patients who ask; who answers stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.view import MISSING
from heads.retrieval.hubness import Hubness, hubness
from heads.retrieval.ranking_quality import (
    average_precision,
    average_precision_by_chance,
    ndcg_at,
    ndcg_by_chance,
    precision_at,
    precision_by_chance,
)
from heads.retrieval.rankings import unit_cosines
from heads.scores import Floats
from heads.statistics.bootstrap import DRAWS, Estimate, draw_patients, estimate, weighted_mean

METRICS = ("precision", "map", "ndcg")
QUERIES = 2000


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions:
    """How retrieval is evaluated.

    Parameters
    ----------
    k
        Nearest units for precision, nDCG and hubness; mean average precision is of the whole ranking.
    queries
        Units that ask at most, drawn at random where there are more.
    draws
        Bootstrap draws of patients.
    seed
        Of both.
    """

    k: int = 10
    queries: int = QUERIES
    draws: int = DRAWS
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One metric over some queries, by search and by chance.

    Parameters
    ----------
    found, chance
        The metric of the rankings, and its expectation for a random order of the same candidates.
    lift
        `found` minus `chance`, on the same draws.
    """

    found: Estimate
    chance: Estimate
    lift: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "found": self.found.to_json(),
            "chance": self.chance.to_json(),
            "lift": self.lift.to_json(),
        }


Agreements = Mapping[str, Agreement]


@dataclass(frozen=True, kw_only=True)
class RetrievalQuality:
    """How well the nearest units agree in their labels.

    Parameters
    ----------
    options
        How it was evaluated.
    queries, units, patients
        Units that asked, units that could be found, and patients who asked.
    metrics
        ``precision`` (at k), ``map`` (mean average precision) and ``ndcg`` (at k; of graded classes the gain is 1 minus
        the distance of the grades) -> the agreement, over all targets.
    by_target, by_class
        The same for each target, and for queries of each class.
    hubness
        How often units are found.
    """

    options: RetrievalOptions
    queries: int
    units: int
    patients: int
    metrics: Agreements
    by_target: Mapping[str, Agreements]
    by_class: Mapping[str, Agreements]
    hubness: Hubness

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""

        def plain(agreements: Agreements) -> dict[str, Any]:
            return {name: found.to_json() for name, found in agreements.items()}

        return {
            "k": self.options.k,
            "queries": self.queries,
            "units": self.units,
            "patients": self.patients,
            "draws": self.options.draws,
            "seed": self.options.seed,
            "metrics": plain(self.metrics),
            "by_target": {name: plain(found) for name, found in self.by_target.items()},
            "by_class": {name: plain(found) for name, found in self.by_class.items()},
            "hubness": self.hubness.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class LabelledUnits:
    """Units with labels, and the vectors of their images.

    Parameters
    ----------
    X
        (n_images, dim), finite.
    unit_of_image
        (n_images,) from 0 and without gaps.
    unit_ids, patients
        (n_units,) str.
    y
        (n_units, targets) int64, `embedstore.view.MISSING` where there is no label.
    targets, classes
        Their names.
    ordered
        Whether classes are grades.
    """

    X: npt.NDArray[np.floating]
    unit_of_image: npt.NDArray[np.int64]
    unit_ids: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    y: npt.NDArray[np.int64]
    targets: Sequence[str]
    classes: Sequence[str]
    ordered: bool = False


def evaluate_retrieval(
    units: LabelledUnits, options: RetrievalOptions, *, asking: npt.NDArray[np.bool_] | None = None
) -> RetrievalQuality:
    """Let units ask for their nearest ones of other patients, and compare labels.

    Parameters
    ----------
    units
        Who may be found.
    options
        How.
    asking
        (n_units,) who asks; all by default. A unit whose vectors are all zero never does, nor is it found.

    Raises
    ------
    DataError
        If nobody asks, or there is one patient only.
    """
    comparable = np.zeros(len(units.unit_ids), np.bool_)
    comparable[units.unit_of_image[units.X.any(axis=1)]] = True
    labelled = comparable & (units.y != MISSING).any(axis=1)
    queries = np.flatnonzero(labelled if asking is None else labelled & asking)
    if len(queries) > options.queries:
        queries = np.sort(np.random.default_rng(options.seed).choice(queries, options.queries, replace=False))
    if not len(queries) or len(np.unique(units.patients[comparable])) < 2:
        raise DataError(
            f"retrieval needs labelled units of two patients or more; found {len(queries):,} units that may ask and "
            f"{len(np.unique(units.patients[comparable])):,} patients"
        )
    values = np.full((len(queries), len(units.targets), len(METRICS), 2), np.nan)
    nearest = np.full((len(queries), options.k), -1, np.int64)
    row = 0
    for some, cosines in unit_cosines(units.X, units.unit_of_image, queries):
        for query, of_query in zip(some.tolist(), cosines, strict=True):
            others = comparable & (units.patients != units.patients[query])
            order = np.argsort(-of_query, kind="stable")
            order = order[others[order]]
            nearest[row, : len(order[: options.k])] = order[: options.k]
            for target in range(len(units.targets)):
                if units.y[query, target] != MISSING:
                    values[row, target] = _of_query(units, order, query, target, options.k)
            row += 1
    return _summary(units, options, queries, values, nearest, int(labelled.sum()))


def _of_query(
    units: LabelledUnits, order: npt.NDArray[np.int64], query: int, target: int, k: int
) -> list[tuple[float, float]]:
    """Return each metric of one query's ranking, found and by chance."""
    labels = units.y[order, target]
    labels = labels[labels != MISSING]
    relevant = labels == units.y[query, target]
    gains = relevant.astype(np.float64)
    if units.ordered:
        gains = 1 - np.abs(labels - units.y[query, target]) / max(1, len(units.classes) - 1)
    count, candidates = int(relevant.sum()), len(relevant)
    return [
        (precision_at(relevant, k), precision_by_chance(count, candidates)),
        (average_precision(relevant), average_precision_by_chance(count, candidates)),
        (ndcg_at(gains, k), ndcg_by_chance(gains, k)),
    ]


def _summary(
    units: LabelledUnits,
    options: RetrievalOptions,
    queries: npt.NDArray[np.int64],
    values: Floats,
    nearest: npt.NDArray[np.int64],
    found: int,
) -> RetrievalQuality:
    patients = units.patients[queries]
    draws = draw_patients(patients, draws=options.draws, seed=options.seed)
    y = units.y[queries]

    def agreements(mask: npt.NDArray[np.bool_]) -> dict[str, Agreement]:
        """Return the metrics over some pairs of query and target."""
        rows, targets = np.nonzero(mask)
        weights = draws.weights(rows)
        return {
            name: _agreement(values[rows, targets, metric], weights) for metric, name in enumerate(METRICS)
        }

    known = y != MISSING
    of_target = np.eye(len(units.targets), dtype=np.bool_)
    return RetrievalQuality(
        options=options,
        queries=len(queries),
        units=found,
        patients=len(np.unique(patients)),
        metrics=agreements(known),
        by_target={name: agreements(known & of_target[column]) for column, name in enumerate(units.targets)},
        by_class={
            name: agreements(y == code) for code, name in enumerate(units.classes) if (y == code).any()
        },
        hubness=hubness(nearest, units.unit_ids),
    )


def _agreement(pairs: Floats, weights: npt.NDArray[np.float32]) -> Agreement:
    """Return the means of (n, 2) values, found and by chance, without the queries that have none."""
    kept = np.isfinite(pairs).all(axis=1)
    pairs, weights = pairs[kept], weights[:, kept]
    if not len(pairs):
        nothing = Estimate(np.nan, np.nan, np.nan, 0)
        return Agreement(found=nothing, chance=nothing, lift=nothing)
    found, chance, lift = (
        estimate(float(column.mean()), weighted_mean(column, weights), n=len(column))
        for column in (pairs[:, 0], pairs[:, 1], pairs[:, 0] - pairs[:, 1])
    )
    return Agreement(found=found, chance=chance, lift=lift)
