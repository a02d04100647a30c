"""Logistic regression on embeddings: the estimator, and its grid solved at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError, require_number
from heads.base import FamilyDefaults, Head, HeadFamily, OutOfFold, Training
from heads.estimators.classifier import EmbeddingClassifier, require_arrays
from heads.estimators.logistic_path import Path
from heads.exact_products import reproducible_norms, reproducible_product
from heads.scores import Floats, columns_of
from heads.solvers.logistic_grid import MAX_ITERATIONS, NOTHING_HELD_OUT, solve
from heads.solvers.logistic_rows import Normalisation, Precision, is_few, is_small, working_copy

# 1e-6 to 1e5 as in the linear probes of DINOv2 (arXiv 2304.07193), 16 in place of 45 values.
STRENGTHS = tuple(float(strength) for strength in np.logspace(-6, 5, 16))

# Standard errors by which the held-out loss of a strength must exceed the least for weaker ones to be left out.
_DOUBT = 3.0
# Standard errors of fewer patients say too little; so few rows are solved at every strength in no time.
_DOUBTED_PATIENTS = 100
# Scores that are held of parts solved together: 64 MB.
_NESTED_SCORES = 1 << 24


class LogisticHead(EmbeddingClassifier):
    """L2-regularised logistic regression, binary or multinomial.

    Parameters
    ----------
    C
        Strength, as scikit-learn's: the larger, the weaker the regularisation.
    normalisation
        ``none``, ``standardise`` (fitted with the coefficients and folded into them) or ``l2``.
    max_iterations
        Iterations of the solver at most.
    device
        As `embedstore.compute_device.torch_device`, for fitting; scores are always computed on the CPU.

    Attributes
    ----------
    coef_
        (columns, dim) float64, in terms of the vectors as they are given; one column for two classes.
    intercept_
        (columns,) float64.
    classes_
        (n_classes,) labels in order.
    converged_
        Whether the solver reached its tolerance; None for a head read from a run.
    n_iter_
        Iterations that the solver took.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> LogisticHead(C=10.0).fit(X, [0, 0, 1, 1]).predict([[0.5], [2.5]])
    array([0, 1])
    """

    _dtypes = (np.float64, np.float32)

    def __init__(
        self,
        C: float = 1.0,
        *,
        normalisation: Normalisation = "none",
        max_iterations: int = MAX_ITERATIONS,
        device: str = "cpu",
    ) -> None:
        self.C = C
        self.normalisation = normalisation
        self.max_iterations = max_iterations
        self.device = device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from (n, dim) vectors, (n,) labels and optionally (n,) weights.

        Raises
        ------
        ValueError
            If the input is not finite, lengths differ, there is one class only, or `C` is not positive.
        """
        require_number("C", self.C)
        if not 0 < self.C < np.inf:
            raise UsageError(f"C must be positive and finite; found {self.C!r}")
        training = self._training(X, y, sample_weight)
        solution = solve(
            training,
            np.zeros(len(training.X), np.int64),
            held_out=[NOTHING_HELD_OUT],
            strengths=[self.C],
            normalisation=self.normalisation,
            max_iterations=self.max_iterations,
            device=self.device,
        )
        self.coef_ = solution.coef[0, 0, 0]
        self.intercept_ = solution.intercept[0, 0, 0]
        self.converged_ = bool(solution.converged[0, 0, 0])
        self.n_iter_ = int(solution.iterations[0, 0, 0])
        return self

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return coefficients, intercept and classes; the classes must be numbers."""
        return {"classes": self._whole_classes(), "coef": self.coef_, "intercept": self.intercept_}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], params: Mapping[str, Any]) -> Self:
        """Build the fitted head again from `to_arrays` and `get_params`.

        Raises
        ------
        DataError
            If an array is missing or their shapes do not belong together.
        """
        require_arrays(arrays, ["classes", "coef", "intercept"], head="a logistic head")
        head = cls(**params)
        coef, intercept, classes = (arrays[name] for name in ("coef", "intercept", "classes"))
        columns = columns_of(classes)
        if coef.ndim != 2 or len(coef) != columns or intercept.shape != (columns,):
            raise DataError(
                f"a logistic head of {len(classes)} classes needs {columns} rows of coefficients; "
                f"found coef {coef.shape}, intercept {intercept.shape}"
            )
        return head._set_learned(coef.astype(np.float64), intercept.astype(np.float64), classes)

    @staticmethod
    def family() -> HeadFamily:
        """Return 16 strengths, on raw and on standardised vectors."""
        return LogisticFamily()

    def _scores(self, X: npt.NDArray[np.floating]) -> Floats:
        scores: Floats = reproducible_product(X, self.coef_)
        if self.normalisation == "l2":
            norms = reproducible_norms(X)
            scores = np.divide(scores, norms, out=np.zeros_like(scores), where=norms > 0)
        scores += self.intercept_
        return scores

    def _set_learned(self, coef: Floats, intercept: Floats, classes: npt.NDArray[np.int64]) -> Self:
        self.coef_, self.intercept_, self.classes_ = coef, intercept, classes
        self.n_features_in_ = coef.shape[1]
        return self


@dataclass(frozen=True)
class LogisticFamily(FamilyDefaults):
    """The grid of logistic heads: every normalisation with every strength.

    Parameters
    ----------
    strengths
        Values of C.
    normalisations
        Any of ``none``, ``standardise``, ``l2``.
    device
        As `embedstore.compute_device.torch_device`.
    doubt
        Standard errors over the patients by which the held-out loss of a strength must exceed the least for weaker
        regularisation to be left out (`heads.estimators.logistic_path`); infinite to solve every strength. With
        fewer than 100 patients every strength is solved.
    """

    # They share the working copy of the vectors only.
    targets_share_work: ClassVar[bool] = False

    strengths: tuple[float, ...] = STRENGTHS
    normalisations: tuple[Normalisation, ...] = ("none", "standardise")
    device: str = "cpu"
    doubt: float = _DOUBT

    @property
    def points(self) -> tuple[Mapping[str, Any], ...]:
        """Parameters of `LogisticHead` at each grid point."""
        return tuple(
            {"C": strength, "normalisation": normalisation}
            for normalisation in self.normalisations
            for strength in self.strengths
        )

    def on_device(self, device: str) -> Self:
        """Return the same grid, to be fitted there."""
        return replace(self, device=device)

    def nests(self, training: Training, parts: int) -> bool:
        """Return whether parts of these rows are solved together quicker (`heads.inputs.nested.Nests`)."""
        scores = len(self.points) * parts * training.y.size * training.columns
        return is_small(training.X) and not is_few(training.X) and scores <= _NESTED_SCORES

    def out_of_fold(self, training: Training, folds: npt.NDArray[np.int64], *, seed: int) -> OutOfFold:
        """Score every row by models that never saw its fold; `seed` has no part in it.

        Folds may be of shape (n, targets), of each target its own.
        """
        scores = np.empty((len(self.points), *training.y.shape, training.columns), np.float32)
        order = np.argsort(self.strengths, kind="stable")
        own_folds = folds.ndim > 1
        patients = _patients_of_fewest(training) if own_folds else len(np.unique(training.groups))
        sure = patients >= _DOUBTED_PATIENTS
        doubt = self.doubt if sure else np.inf
        for index, normalisation in enumerate(self.normalisations):
            own = scores[index * len(order) :][: len(order)]
            path = Path(
                training=training,
                folds=folds,
                strengths=[self.strengths[place] for place in order],
                normalisation=normalisation,
                doubt=doubt,
            )
            precision: Precision = "single" if np.isfinite(doubt) else "by size"
            path.solve(working_copy(training.X, normalisation, self.device, precision=precision), own)
            if (np.diff(order) < 0).any():
                own[order] = own.copy()
        return OutOfFold(scores=scores)

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]:
        """Fit one head per target on all rows; targets with the same parameters share their products."""
        heads: dict[int, Head] = {}
        for normalisation in self.normalisations:
            strengths = {
                target: params["C"]
                for target, params in enumerate(params_of_target)
                if params["normalisation"] == normalisation
            }
            if strengths:
                heads |= self._refit_normalised(normalisation, strengths, training)
        return [heads[target] for target in range(len(params_of_target))]

    def _refit_normalised(
        self, normalisation: Normalisation, strength_of: Mapping[int, float], training: Training
    ) -> dict[int, Head]:
        """Fit targets by their strengths on one working copy of the vectors."""
        targets, strengths = list(strength_of), sorted(set(strength_of.values()))
        solution = solve(
            replace(training, y=training.y[:, targets], sample_weight=training.sample_weight[:, targets]),
            np.zeros(len(training.X), np.int64),
            held_out=[NOTHING_HELD_OUT],
            strengths=strengths,
            strength_of_target=[strengths.index(strength) for strength in strength_of.values()],
            normalisation=normalisation,
            device=self.device,
        )
        heads: dict[int, Head] = {}
        for index, (target, strength) in enumerate(strength_of.items()):
            where = strengths.index(strength), 0, index
            head = LogisticHead(strength, normalisation=normalisation)._set_learned(
                solution.coef[where], solution.intercept[where], np.arange(training.n_classes)
            )
            head.converged_ = bool(solution.converged[where])
            heads[target] = head
        return heads


def _patients_of_fewest(training: Training) -> int:
    """Return how many patients the target has that has the fewest with a label."""
    known = (training.y >= 0).T
    return min(len(np.unique(training.groups[rows])) for rows in known)
