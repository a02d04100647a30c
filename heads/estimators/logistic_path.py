"""The grid of logistic heads along its strengths: from strong to weak regularisation, until the loss surely rises.

Each wave of strengths starts from the solution of the weakest before. A strength weaker than one whose held-out loss
exceeds the least by several standard errors over the patients is not solved: with few rows the classes can be parted,
and most of the time would go into problems that nobody chooses. With many rows the strengths are first tried on some
of the patients; only the best there and its neighbours are solved on all, and more while the best is at an end of
what was solved. A neighbour of stronger regularisation that the fewer patients reject beyond doubt is left out: with
more patients the best regularisation is weaker, if it is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from heads.base import Training
from heads.scores import probabilities_from_scores
from heads.solvers.logistic_grid import Grid, blocks
from heads.solvers.logistic_rows import Normalisation, WorkingCopy, is_small
from heads.solvers.logistic_solution import Solution
from heads.torch_threads import one_thread

# Half the mean square by which scores may be wrong: of a strength that may be chosen less than the fifth digit of a log
# loss; of the others, which are only compared, the third.
TOLERANCE = 1e-8
_ROUGH = 1e-5
_CLOSE = 1e-6
# Strengths whose mean loss exceeds the least by no more may be chosen.
_MARGIN = 0.005
# A fall of the mean loss from one strength to the next that is worth another one.
_VISIBLE = 1e-4
# With many rows, only weak regularisation on nearly separable classes needs more: such points never win.
_PRODUCTS = 40
_SMALL_PRODUCTS = 400
_ALL_PRODUCTS = 20_000
# Strengths that are solved side by side, at first and then.
_FIRST_WAVE = 4
_WAVE = 2
# Rows of the patients on which strengths are tried first, and patients of each class that must be among them.
_TRIED_ROWS = 1 << 13
_TRIED_PATIENTS = 50


@dataclass(frozen=True, kw_only=True)
class Path:
    """Out-of-fold scores along the strengths of one normalisation.

    Parameters
    ----------
    training, folds
        The rows and the fold of each, (n,) or, where targets are parted in different ways, (n, targets).
    strengths
        Values of C, ascending.
    normalisation
        Of the vectors.
    doubt
        Standard errors by which a strength's held-out loss must exceed the least for weaker regularisation to be
        left out; infinite to solve every strength.
    """

    training: Training
    folds: npt.NDArray[np.int64]
    strengths: Sequence[float]
    normalisation: Normalisation
    doubt: float

    def solve(self, working: WorkingCopy, scores: npt.NDArray[np.float32]) -> None:
        """Write (strengths, n, targets, columns) scores; NaN where a strength was not solved.

        Parameters
        ----------
        working
            `heads.solvers.logistic_rows.working_copy` of the vectors.
        scores
            Where to write.
        """
        with one_thread(only_if=is_small(self.training.X)):
            found: _Found | None = None
            for rows in self._levels():
                some = replace(self, training=_rows_of(self.training, rows), folds=self.folds[rows])
                fewer, found = found, _Walk.begin(some, working.take(rows), None).to_best(found, _ROUGH)
                if fewer is not None:
                    found = found.beyond(fewer)
            walk = _Walk.begin(self, working, scores)
            walk.to_best(found, _CLOSE)
            if np.isfinite(self.doubt):
                walk.refine(_MARGIN if found is None else 0.0)
        # The scores of an unsolved problem are no estimate of its strength.
        for strength, target in zip(*np.nonzero(~walk.solved), strict=True):
            scores[strength, :, target] = np.nan

    def _levels(self) -> list[npt.NDArray[np.int64]]:
        """Return the rows of ever more patients; none where all are few, or some would lack patients of a class."""
        training = self.training
        if len(training.X) < 3 * _TRIED_ROWS or not np.isfinite(self.doubt):
            return []
        _, patient = np.unique(training.groups, return_inverse=True)
        rank = np.random.default_rng(0).permutation(int(patient.max()) + 1)[patient]
        order = np.sort(rank, kind="stable")
        levels = []
        wanted = _TRIED_ROWS
        while 3 * wanted <= len(rank):
            levels.append(np.flatnonzero(rank <= order[wanted]))
            wanted *= 4
        return levels if self._has_classes(levels[0], patient) else []

    def _has_classes(self, rows: npt.NDArray[np.int64], patient: npt.NDArray[np.int64]) -> bool:
        y = self.training.y[rows]
        return all(
            len(np.unique(patient[rows[y[:, target] == k]])) >= _TRIED_PATIENTS
            for target in range(y.shape[1])
            for k in range(self.training.n_classes)
        )


@dataclass(frozen=True)
class _Found:
    """What some patients say: solutions to start from, which of them were reached, and which strength is best."""

    solution: Solution
    solved: npt.NDArray[np.bool_]  # (strengths, targets)
    best: list[int]  # of each target
    beaten: npt.NDArray[np.bool_]  # (strengths, targets) whose loss exceeds the best's beyond doubt

    def beyond(self, fewer: _Found) -> _Found:
        """Return what four times as many patients may say: regularisation weaker by as much as it was from `fewer`."""
        last = len(self.solved) - 1
        best = [
            min(own + max(0, own - before), last) for own, before in zip(self.best, fewer.best, strict=True)
        ]
        return replace(self, best=best)


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """What has been solved of a path so far."""

    grid: Grid
    path: Path
    patient: npt.NDArray[np.int64]  # (n,) from 0
    tried: npt.NDArray[np.bool_]  # (strengths, targets)
    solved: npt.NDArray[np.bool_]  # of these, to the end in every fold
    losses: npt.NDArray[np.float64]  # (strengths, targets, patients) summed over a patient's units
    present: npt.NDArray[np.bool_]  # (targets, patients) who has a label

    @classmethod
    def begin(cls, path: Path, working: WorkingCopy, scores: npt.NDArray[np.float32] | None) -> _Walk:
        training = path.training
        _, patient = np.unique(training.groups, return_inverse=True)
        shape = (len(path.strengths), training.y.shape[1])
        grid = Grid.create(
            working,
            training,
            path.folds,
            held_out=np.unique(path.folds).tolist(),
            strengths=path.strengths,
            standardised=path.normalisation == "standardise",
            scores=scores,
        )
        present = np.zeros((shape[1], int(patient.max()) + 1), np.bool_)
        for target, of_target in enumerate(grid.weights.T):
            present[target, patient[of_target > 0]] = True
        return cls(
            grid=grid,
            path=path,
            patient=patient,
            tried=np.zeros(shape, np.bool_),
            solved=np.zeros(shape, np.bool_),
            losses=np.full((*shape, present.shape[1]), np.inf),
            present=present,
        )

    def to_best(self, found: _Found | None, tolerance: float) -> _Found:
        """Solve the strengths among which the best is, from what fewer patients said if that is known."""
        if found is None:
            self.descend(self.path.doubt)
        else:
            self.finish(found, tolerance)
        best = [self.best(target) for target in range(self.solved.shape[1])]
        beaten = np.zeros_like(self.solved)
        for strength, target in zip(*np.nonzero(self.solved), strict=True):
            beaten[strength, target] = self._exceeds(int(strength), int(target), self.path.doubt)
        return _Found(self.grid.solution, self.solved, best, beaten)

    def descend(self, doubt: float) -> None:
        """Solve waves of strengths, the strongest regularisation first, until the loss of every target rises."""
        count = len(self.path.strengths)
        targets = list(range(self.solved.shape[1]))
        tolerance = _ROUGH if np.isfinite(doubt) else TOLERANCE
        edges = [0, *range(min(_FIRST_WAVE, count), count, _WAVE), count]
        for low, high in pairwise(edges):
            wave = [(strength, target) for target in targets for strength in range(low, high)]
            start = self.grid.solution if low else None
            self.solve(wave, start, dict.fromkeys(wave, low - 1), tolerance=tolerance)
            targets = [target for target in targets if not self._rises(target, high - 1, doubt)]
            if not targets:
                return

    def refine(self, excess: float) -> None:
        """Solve strengths whose mean loss exceeds the least by no more to the last digit that is reported."""
        wanted = []
        for target in range(self.solved.shape[1]):
            total = self.losses[:, target].sum(axis=1)
            margin = excess * self._weight(target)
            near = self.solved[:, target] & (total <= total.min() + margin)
            wanted += [(int(s), target) for s in np.flatnonzero(near)]
        self.solve(wanted, self.grid.solution, {pair: pair[0] for pair in wanted}, tolerance=TOLERANCE)

    def finish(self, found: _Found, tolerance: float) -> None:
        """Solve the best strength of fewer patients, its weaker neighbour, and more while the best is at an end."""
        count, n_targets = self.solved.shape
        wanted = [
            (strength, target)
            for target, best in enumerate(found.best)
            for strength in range(best, min(best + 2, count))
        ]
        start, solved = found.solution, found.solved
        while wanted:
            begin = {(s, t): _nearest(solved[:, t], s) for s, t in wanted}
            self.solve(wanted, start, begin, tolerance=tolerance)
            start, solved = self.grid.solution, self.solved
            # Stronger regularisation that fewer patients reject is no better with more of them.
            wanted = [
                (strength, target)
                for target in range(n_targets)
                for strength, _ in self._beyond(target)
                if strength > self.best(target) or not found.beaten[strength, target]
            ]

    def _beyond(self, target: int) -> list[tuple[int, int]]:
        """Return the neighbour of the best strength that was not tried, where the loss still falls towards it."""
        total = self.losses[:, target].sum(axis=1)
        tried = self.tried[:, target]
        if not self.solved[:, target].any():
            strongest = int(np.argmax(tried))
            return [(strongest - 1, target)] if strongest else []
        best = self.best(target)
        visible = _VISIBLE * self._weight(target)
        around = [
            (best + step, best - step)
            for step in (-1, 1)
            if 0 <= best + step < len(tried) and not tried[best + step]
        ]
        return [
            (new, target)
            for new, other in around
            if not (0 <= other < len(tried) and self.solved[other, target])
            or total[other] - total[best] > visible
        ]

    def _weight(self, target: int) -> float:
        """Return the sum of the units' weights."""
        return float(self.grid.weights[self.path.training.row_of_unit, target].sum())

    def best(self, target: int) -> int:
        """Return the strength of the least loss."""
        return int(np.argmin(self.losses[:, target].sum(axis=1)))

    def solve(
        self,
        wanted: Sequence[tuple[int, int]],
        start: Solution | None,
        begin: dict[tuple[int, int], int],
        *,
        tolerance: float,
    ) -> None:
        """Solve (strength, target) pairs in every fold.

        Parameters
        ----------
        wanted
            The pairs.
        start
            Solutions to start from; None for the best constant.
        begin
            The strength of `start` from which each pair starts.
        tolerance
            As `heads.solvers.lbfgs.minimise`.
        """
        small = is_small(self.path.training.X)
        few_products = _SMALL_PRODUCTS if np.isfinite(self.path.doubt) else _ALL_PRODUCTS
        n_held = len(self.grid.held)
        every = [(held, target, strength) for strength, target in wanted for held in range(n_held)]
        for block in blocks(self.path.training, every):
            origin = [begin[pair] for pair in zip(block[2], block[1], strict=True)]
            self.grid.solve(
                block,
                tolerance=tolerance,
                newton_products=few_products if small else _PRODUCTS,
                start=None if start is None else (start, origin),
            )
        for strength, target in wanted:
            self.tried[strength, target] = True
            self.solved[strength, target] = self.grid.solution.converged[strength, :, target].all()
            if self.solved[strength, target]:
                self.losses[strength, target] = self._patient_losses(strength, target)

    def _patient_losses(self, strength: int, target: int) -> npt.NDArray[np.float64]:
        """Return the (patients,) weighted held-out log loss, of units as their rows' mean probabilities."""
        training = self.path.training
        row_probabilities = probabilities_from_scores(self.grid.solution.held_out_scores[strength, :, target])
        y, weights = training.y[:, target], self.grid.weights[:, target]
        truth = row_probabilities[np.arange(len(y)), np.maximum(y, 0)]
        rows = np.bincount(training.unit_of_row, minlength=training.n_units)
        of_unit = np.bincount(training.unit_of_row, truth, training.n_units) / np.maximum(rows, 1)
        first = training.row_of_unit
        of_unit = -np.log(np.maximum(of_unit, 1e-30)) * weights[first]
        return np.bincount(self.patient[first], of_unit, self.losses.shape[2]).astype(np.float64)

    def _rises(self, target: int, last: int, doubt: float) -> bool:
        """Return whether the loss exceeds the least beyond doubt, and did not fall at last."""
        known = np.flatnonzero(self.solved[: last + 1, target])
        if len(known) < 2 or not np.isfinite(doubt):
            return False
        totals = self.losses[known, target].sum(axis=1)
        if totals[-1] < totals[-2]:
            return False
        return self._exceeds(int(known[-1]), target, doubt)

    def _exceeds(self, strength: int, target: int, doubt: float) -> bool:
        """Return whether the loss of a strength exceeds the least by so many standard errors over the patients."""
        losses = self.losses[:, target, self.present[target]]
        excess = losses[strength] - losses[self.best(target)]
        spread = excess.std() * np.sqrt(len(excess))
        return bool(spread > 0 and excess.sum() > doubt * spread)


def _nearest(solved: npt.NDArray[np.bool_], strength: int) -> int:
    known = np.flatnonzero(solved)
    return int(known[np.argmin(np.abs(known - strength))]) if len(known) else 0


def _rows_of(training: Training, rows: npt.NDArray[np.int64]) -> Training:
    """Return whole patients' rows, with their units renumbered."""
    units, unit_of_row = np.unique(training.unit_of_row[rows], return_inverse=True)
    return replace(
        training,
        # The solver reads the working copy: this array has the shape of the vectors and takes no memory.
        X=np.broadcast_to(np.float32(0), (len(rows), training.X.shape[1])),
        y=training.y[rows],
        sample_weight=training.sample_weight[rows],
        groups=training.groups[rows],
        unit_of_row=unit_of_row,
        n_units=len(units),
    )
