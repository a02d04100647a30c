"""Batches of whole units for many networks; the images of a batch's units lie behind each other, so nothing is padded.

Networks that learn from the same units (those of one fold: its targets and grid points) share their batches, and with
them the gathered images. A network that may not see a unit gives it no weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heads.bags.network import AttentionRecipe
from heads.base import Training

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network to train.

    Parameters
    ----------
    recipe
        Shape and settings.
    target
        Column of the labels.
    learned
        (k,) int64 units to learn from, labelled.
    held_out
        (h,) int64 labelled units whose log loss decides when to stop; none trains to the end.
    """

    recipe: AttentionRecipe
    target: int
    learned: Indices
    held_out: Indices


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Networks that share their batches, features and random numbers.

    Parameters
    ----------
    units
        (k,) int64 units of the batches, which `Member.learned` and `Member.held_out` are of; features are learned
        from their images.
    scored
        (s,) int64 units to score when trained.
    members
        The networks.
    seed
        Of first weights, order of units and dropout.
    """

    units: Indices
    scored: Indices
    members: tuple[Member, ...]
    seed: int


class Bags:
    """Which rows each unit has."""

    def __init__(self, training: Training) -> None:
        self._order = np.argsort(training.unit_of_row, kind="stable")
        self.count = np.bincount(training.unit_of_row, minlength=training.n_units)
        self._first = np.cumsum(self.count) - self.count

    def rows(self, units: Indices) -> Indices:
        """Return the rows of some units, unit after unit."""
        count = self.count[units]
        ends = np.cumsum(count)
        within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - count, count)
        return np.asarray(self._order[np.repeat(self._first[units], count) + within], np.int64)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Units of several folds with their rows, filled up to a common number.

    Parameters
    ----------
    units
        (folds, u) int64; 0 where they only fill up.
    real
        (folds, u) bool: which do not.
    rows
        (folds, n) int64 rows, unit after unit; 0 where they only fill up.
    lengths
        (folds, u + 1) int64: the rows of each unit, and how many fill up at the end.
    """

    units: Indices
    real: npt.NDArray[np.bool_]
    rows: Indices
    lengths: Indices

    @classmethod
    def of(cls, bags: Bags, chosen: Sequence[Indices]) -> Batch:
        """Bring some units of each fold together."""
        widest = max(len(units) for units in chosen)
        rows = [bags.rows(units) for units in chosen]
        longest = max(1, *(len(some) for some in rows)) if len(rows) > 1 else max(1, len(rows[0]))
        shape = (len(chosen), widest)
        units, real = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
        padded, lengths = (
            np.zeros((len(chosen), longest), np.int64),
            np.zeros((len(chosen), widest + 1), np.int64),
        )
        for fold, (some, own) in enumerate(zip(chosen, rows, strict=True)):
            units[fold, : len(some)], real[fold, : len(some)] = some, True
            padded[fold, : len(own)] = own
            lengths[fold, : len(some)] = bags.count[some]
            lengths[fold, -1] = longest - len(own)
        return cls(units=units, real=real, rows=padded, lengths=lengths)


class Feed:
    """Batches of units, each fold's in its own shuffled order."""

    def __init__(self, folds: Sequence[Fold]) -> None:
        recipes = [fold.members[0].recipe for fold in folds]
        self._units = [fold.units for fold in folds]
        self._orders = [
            _batches(len(fold.units), recipe.batch_size, seed=fold.seed)
            for fold, recipe in zip(folds, recipes, strict=True)
        ]
        self.steps_per_round = np.array(
            [steps_per_round(len(fold.units), recipe) for fold, recipe in zip(folds, recipes, strict=True)]
        )

    def batch(self, folds: Indices, live: npt.NDArray[np.bool_]) -> list[Indices]:
        """Return the units of each fold's next batch, none for one that rests."""
        return [
            self._units[fold][next(self._orders[fold])] if goes else self._units[fold][:0]
            for fold, goes in zip(folds, live, strict=True)
        ]


def steps_per_round(units: int, recipe: AttentionRecipe) -> int:
    """Return the steps of an epoch, or more where all epochs would be fewer than the minimum."""
    return max(math.ceil(units / recipe.batch_size), math.ceil(recipe.minimum_steps / recipe.epochs))


def parts(bags: Bags, chosen: Sequence[Indices], rows: int) -> Iterator[list[Indices]]:
    """Split each fold's units so that a part has about `rows` rows in all, one unit of each fold at least.

    A unit of thousands of images is worked on alone, so that memory follows the longest unit and not the batch.
    """
    total = sum(int(bags.count[units].sum()) for units in chosen)
    widest = max(len(units) for units in chosen)
    pieces = min(widest, max(1, math.ceil(total / rows)))
    split = [_split_by_rows(bags.count[units], pieces) for units in chosen]
    for piece in range(pieces):
        some = [units[bounds[piece] : bounds[piece + 1]] for units, bounds in zip(chosen, split, strict=True)]
        if any(len(units) for units in some):
            yield some


def _split_by_rows(count: Indices, pieces: int) -> Indices:
    """Return (pieces + 1,) bounds between units such that the pieces have about the same number of rows."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    inner = np.searchsorted(ends, np.arange(1, pieces) * total / pieces, side="right")
    return np.concatenate([[0], inner, [len(count)]]).astype(np.int64)


def _batches(count: int, size: int, *, seed: int) -> Iterator[Indices]:
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(count)
        for start in range(0, count, size):
            yield order[start : start + size]
