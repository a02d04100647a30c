"""From decision scores to probabilities that mean what they say, fitted on out-of-fold scores."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

from embedstore.errors import DataError, UsageError
from heads.scores import Floats, log_probabilities, probabilities_from_scores
from heads.statistics.metric_functions import log_loss

Labels = npt.NDArray[np.int64]
# Off-diagonal and intercept regularisation of Dirichlet calibration (Kull et al. 2019, arXiv 1910.12656).
_DIRICHLET_PENALTY = 1e-3
_NO_BETTER = 1e-6
# Of the Newton steps to a linear calibrator: at most, the loss that the last may gain, the share of the greatest
# curvature below which there is none, and the log odds at which they start at most.
_NEWTON_STEPS = 100
_LAST_STEP = 1e-13
_FLAT = 1e-13
_SURE = 10.0


class Calibrator(Protocol):
    """Maps scores to probabilities; every row on its own."""

    @property
    def kind(self) -> str:
        """Name of its row in `KINDS`."""

    def __call__(self, scores: Floats) -> Floats:
        """Return (n, n_classes) probabilities, none of them 0 or 1, of (n, columns) scores."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values for `calibrator_from_json`."""


@dataclass(frozen=True)
class LinearCalibrator:
    """A linear map of the log probabilities, then a softmax: identity to Dirichlet.

    Parameters
    ----------
    kind
        ``identity``, ``temperature`` (one factor), ``platt`` (factor and intercept, two classes), ``vector``
        (factor and intercept per class) or ``dirichlet`` (full matrix; two classes: beta calibration).
    matrix
        (n_classes, n_classes) rows of tuples.
    offset
        (n_classes,).
    """

    kind: str
    matrix: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]

    def __call__(self, scores: Floats) -> Floats:
        """Return (n, n_classes) probabilities."""
        return _never_certain(probabilities_from_scores(_mapped(log_probabilities(scores), self)))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"kind": self.kind, "matrix": [list(row) for row in self.matrix], "offset": list(self.offset)}


@dataclass(frozen=True)
class IsotonicCalibrator:
    """A monotone curve per class (of the second class of two), scaled to sum 1.

    For each curve it has the log odds at its knots, and the levels (probabilities) there.
    """

    knots: tuple[tuple[float, ...], ...]
    levels: tuple[tuple[float, ...], ...]
    kind: str = "isotonic"

    def __call__(self, scores: Floats) -> Floats:
        """Return (n, n_classes) probabilities."""
        odds = _curve_inputs(scores)
        curves = [np.interp(odds[:, k], self.knots[k], self.levels[k]) for k in range(len(self.knots))]
        if len(curves) == 1:
            return _never_certain(np.column_stack([1 - curves[0], curves[0]]))
        total = curves[0].copy()
        for curve in curves[1:]:
            total += curve
        return _never_certain(np.column_stack([curve / total for curve in curves]))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "kind": self.kind,
            "knots": [list(curve) for curve in self.knots],
            "levels": [list(curve) for curve in self.levels],
        }


@dataclass(frozen=True)
class Calibration:
    """A chosen calibrator with its evidence.

    Parameters
    ----------
    calibrator
        Fitted on all out-of-fold scores.
    losses
        Kind -> cross-fitted log loss.
    probabilities
        (n, n_classes): every case by a calibrator of the chosen kind that never saw its fold.
    """

    calibrator: Calibrator
    losses: Mapping[str, float]
    probabilities: Floats


def calibrate(
    scores: Floats, y: Labels, folds: npt.NDArray[np.int64], *, without: Container[str] = ()
) -> Calibration:
    """Choose and fit a calibrator on out-of-fold scores.

    Each kind is fitted on the other folds' scores and scored on the fold left out; the smallest log loss wins
    and is fitted again on all.

    Parameters
    ----------
    scores
        (n, columns) out-of-fold scores at the task's unit.
    y
        (n,) int64.
    folds
        (n,) int64; a patient is in one fold.
    without
        Kinds that are not tried.
    """
    kinds = [kind for kind in _kinds_for(scores, y, folds) if kind not in without]
    found = {kind: cross_fitted(kind, scores, y, folds) for kind in kinds}
    losses = {kind: float(log_loss(y, probabilities)[0]) for kind, probabilities in found.items()}
    least = min(losses.values())
    chosen = next(kind for kind, loss in losses.items() if loss <= least + _NO_BETTER)
    return Calibration(fit_calibrator(chosen, scores, y), losses, found[chosen])


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of calibrator.

    Parameters
    ----------
    name
        In ``run.json`` and the report.
    fit
        Fits one on (n, columns) scores and (n,) labels.
    from_json
        Builds one from `Calibrator.to_json`.
    classes
        With how many classes it suits: any number, two only, or more than two.
    least_points
        It is not chosen where cross-fitting leaves fewer.
    """

    name: str
    fit: Callable[[Floats, Labels], Calibrator]
    from_json: Callable[[Mapping[str, Any]], Calibrator]
    classes: Literal["any", "two", "several"] = "any"
    least_points: int = 0

    def suits(self, n_classes: int) -> bool:
        """Whether it can be fitted with so many classes."""
        return self.classes == "any" or (self.classes == "two") == (n_classes == 2)


def cross_fitted(
    kind: str, scores: Floats, y: Labels, folds: npt.NDArray[np.int64], *, applied_to: Floats | None = None
) -> Floats:
    """Return (n, n_classes) probabilities of every case by a calibrator that never saw its fold.

    Parameters
    ----------
    kind
        As `fit_calibrator`.
    scores, y, folds
        As `calibrate`.
    applied_to
        (n, columns) scores that the calibrators map, in place of those that they are fitted on.
    """
    mapped = scores if applied_to is None else applied_to
    probabilities = np.empty((len(y), _count_classes(scores)))
    for fold in np.unique(folds):
        left_out = folds == fold
        probabilities[left_out] = fit_calibrator(kind, scores[~left_out], y[~left_out])(mapped[left_out])
    return probabilities


def fit_calibrator(kind: str, scores: Floats, y: Labels) -> Calibrator:
    """Fit one kind of calibrator on (n, columns) scores and (n,) labels.

    Raises UsageError if the kind is unknown or does not suit the number of classes.
    """
    suitable = [row.name for row in KINDS.values() if row.suits(_count_classes(scores))]
    if kind not in suitable:
        raise UsageError(
            f"calibration of {_count_classes(scores)} classes must be one of "
            f"{', '.join(suitable)}; found {kind!r}"
        )
    return KINDS[kind].fit(scores, y)


def calibrator_from_json(document: Mapping[str, Any], *, source: str) -> Calibrator:
    """Build a calibrator from `Calibrator.to_json`.

    Raises
    ------
    DataError
        If the document is not one; `source` names the file.
    """
    try:
        if document["kind"] in KINDS:
            return KINDS[document["kind"]].from_json(document)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source}: not a calibrator: {error!r}") from error
    raise DataError(
        f"{source}: calibrator kind must be one of {', '.join(KINDS)}; found {document['kind']!r}"
    )


def _kinds_for(scores: Floats, y: Labels, folds: npt.NDArray[np.int64]) -> list[str]:
    smallest, n_classes = len(y) - np.bincount(folds).max(), _count_classes(scores)
    return [row.name for row in KINDS.values() if row.suits(n_classes) and smallest >= row.least_points]


def _count_classes(scores: Floats) -> int:
    return 2 if scores.shape[1] == 1 else int(scores.shape[1])


def _never_certain(probabilities: Floats) -> Floats:
    """Keep a certain wrong answer from an infinite log loss; 1e-12 is below any evidence."""
    return np.clip(probabilities, 1e-12, 1 - 1e-12)


def _mapped(logs: Floats, calibrator: LinearCalibrator) -> Floats:
    # Column by column, never by a matrix product: a row's bits must not depend on the batch.
    mapped = np.empty_like(logs)
    for k, row in enumerate(calibrator.matrix):
        mapped[:, k] = calibrator.offset[k]
        for j, factor in enumerate(row):
            if factor:
                mapped[:, k] += factor * logs[:, j]
    return mapped


def _curve_inputs(scores: Floats) -> Floats:
    return scores if scores.shape[1] == 1 else log_probabilities(scores)


def _smoothed(y: Labels, n_classes: int) -> Floats:
    """Return targets a little off 0 and 1 as Platt (1999) has them, so that separable scores end finite."""
    count = np.bincount(y, minlength=n_classes)[y][:, None]
    return np.asarray((np.eye(n_classes)[y] * count + 1) / (count + n_classes), np.float64)


def _identity(scores: Floats, y: Labels) -> LinearCalibrator:
    n_classes = _count_classes(scores)
    return LinearCalibrator("identity", _rows(np.eye(n_classes)), (0.0,) * n_classes)


def _fit_linear(kind: str, scores: Floats, y: Labels) -> LinearCalibrator:
    n_classes = _count_classes(scores)
    inputs = np.column_stack([log_probabilities(scores), np.ones(len(y))])
    free = _free(kind, n_classes)
    full = kind == "dirichlet" and n_classes > 2
    penalty = np.zeros((n_classes, n_classes + 1))
    if full:
        penalty[:] = _DIRICHLET_PENALTY
        np.fill_diagonal(penalty, 0)
    loss = _LinearLoss(inputs, _smoothed(y, n_classes), penalty)
    # Where all is certain the loss hardly bends: the way begins where the widest scores are not.
    widest = float(np.abs(inputs).max(initial=1.0))
    start = np.eye(n_classes, n_classes + 1) * min(1.0, _SURE / widest)
    found = loss.minimise(start, free)
    while not full and (np.diag(found) < 0).any():
        # A negative factor would turn the order of the cases around; then the score says nothing and 0 is right.
        lowest = np.diag(found) == np.diag(found).min()
        free = free[~np.einsum("mkk->mk", free[:, :, :-1])[:, lowest].any(axis=1)]
        start = start * ~lowest[:, None]
        found = loss.minimise(start, free)
    return LinearCalibrator(kind, _rows(found[:, :-1]), tuple(float(number) for number in found[:, -1]))


def _free(kind: str, n_classes: int) -> Floats:
    """Return the parameters of a kind as (parameters, n_classes, n_classes + 1) changes of matrix and offset."""
    cells = np.eye(n_classes * (n_classes + 1)).reshape(-1, n_classes, n_classes + 1)
    on_diagonal = np.arange(n_classes) * (n_classes + 2)
    offsets = cells[np.arange(n_classes) * (n_classes + 1) + n_classes]
    if kind in ("temperature", "platt"):
        factor = cells[on_diagonal].sum(0, keepdims=True)
        return factor if kind == "temperature" else np.concatenate([factor, offsets])
    if kind == "dirichlet" and n_classes > 2:
        return cells
    return np.concatenate([cells[on_diagonal], offsets])


@dataclass(frozen=True)
class _LinearLoss:
    """The log loss of linear maps of (n, k + 1) inputs, the last of them ones, to (n, k) logits."""

    inputs: Floats
    targets: Floats  # (n, k) shares that sum to 1
    penalty: Floats  # (k, k + 1) of the squared map

    def minimise(self, start: Floats, free: Floats) -> Floats:
        """Return the best map that `free` changes lead to, by Newton steps; (k, k + 1)."""
        found, changes = start, free.reshape(len(free), start.size)
        value, slope, curvature = self._at(found, changes)
        for _ in range(_NEWTON_STEPS if len(free) else 0):
            values, vectors = np.linalg.eigh(curvature)
            # A common shift of all classes changes nothing: there is no step along it.
            bent = values > _FLAT * values[-1]
            step = -(vectors[:, bent] / values[bent]) @ (slope @ vectors[:, bent])
            decrement, move = -float(step @ slope), (step @ changes).reshape(start.shape)
            if decrement <= _LAST_STEP:
                return np.asarray(found + move, np.float64)
            for length in 0.5 ** np.arange(20):
                moved = found + length * move
                reached, *bends = self._at(moved, changes)
                if reached <= value - 1e-4 * length * decrement:
                    break
            found, value, (slope, curvature) = moved, reached, bends
        return found

    def _at(self, weights: Floats, changes: Floats) -> tuple[float, Floats, Floats]:
        """Return the loss of a map, with its slope and curvature by the changes, (m, k * (k + 1))."""
        n, n_classes = self.targets.shape
        mapped = self.inputs @ weights.T
        mapped -= mapped.max(1, keepdims=True)
        expected = np.exp(mapped)
        total = expected.sum(1, keepdims=True)
        expected /= total
        value = float((np.log(total).sum() - np.vdot(self.targets, mapped)) / n)
        value += float(np.vdot(self.penalty, weights**2))
        slope = (expected - self.targets).T @ self.inputs / n + 2 * self.penalty * weights
        width = self.inputs.shape[1]
        shares = (expected[:, :, None] * self.inputs[:, None, :]).reshape(n, n_classes * width)
        curvature = shares.T @ shares / -n
        own = (shares.T @ self.inputs / n).reshape(n_classes, width, width)
        for k in range(n_classes):
            block = slice(k * width, (k + 1) * width)
            curvature[block, block] += own[k]
        curvature += np.diag(2 * self.penalty.ravel())
        return value, changes @ slope.ravel(), changes @ curvature @ changes.T


def _fit_isotonic(scores: Floats, y: Labels) -> IsotonicCalibrator:
    inputs = _curve_inputs(scores)
    positives = [1] if scores.shape[1] == 1 else list(range(scores.shape[1]))
    # A block of n cases of one class says no more than 1 in n + 2 (Laplace's rule).
    floor = 1 / (len(y) + 2)
    knots, levels = [], []
    for column, positive in enumerate(positives):
        curve = IsotonicRegression(y_min=floor, y_max=1 - floor).fit(inputs[:, column], y == positive)
        knots.append(curve.X_thresholds_.tolist())
        levels.append(curve.y_thresholds_.tolist())
    return IsotonicCalibrator(_rows(knots), _rows(levels))


def _rows(matrix: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(number) for number in row) for row in matrix)


def _linear_from_json(document: Mapping[str, Any]) -> LinearCalibrator:
    offset = tuple(float(number) for number in document["offset"])
    return LinearCalibrator(document["kind"], _rows(document["matrix"]), offset)


def _isotonic_from_json(document: Mapping[str, Any]) -> IsotonicCalibrator:
    return IsotonicCalibrator(_rows(document["knots"]), _rows(document["levels"]))


def _linear(name: str, classes: Literal["any", "two", "several"] = "any") -> Kind:
    return Kind(name=name, fit=partial(_fit_linear, name), from_json=_linear_from_json, classes=classes)


# In order of freedom: of equally good ones the first is taken. A new kind is one more row.
KINDS: dict[str, Kind] = {
    row.name: row
    for row in (
        Kind(name="identity", fit=_identity, from_json=_linear_from_json),
        _linear("temperature"),
        _linear("platt", "two"),
        _linear("vector", "several"),
        _linear("dirichlet"),
        # Below about 1,000 points isotonic regression overfits (Niculescu-Mizil & Caruana 2005, ICML, section 4).
        Kind(name="isotonic", fit=_fit_isotonic, from_json=_isotonic_from_json, least_points=1000),
    )
}
