"""A scikit-learn classifier that a head inherits: checked input, labels, probabilities from scores, scores of units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from embedstore.errors import DataError
from heads.base import HeadDefaults, Training
from heads.scores import Floats, probabilities_from_scores


class EmbeddingClassifier(HeadDefaults, ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Base of heads that learn from a `Training` of one target and predict decision scores of rows."""

    classes_: npt.NDArray[Any]
    # Accepted types of vectors; others are converted to the first.
    _dtypes: tuple[type[np.floating], ...] = (np.float32,)

    def decision_function(self, X: Any) -> Floats:
        """Return (n,) logits of the second of two classes, or (n, n_classes) logits.

        A row's score has the same bits whatever other rows are in the batch.
        """
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=list(self._dtypes), order="C")
        scores = self._scores(rows)
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> Floats:
        """Return (n, n_classes) probabilities."""
        scores = self.decision_function(X)
        return probabilities_from_scores(scores[:, None] if scores.ndim == 1 else scores)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return (n,) most probable labels."""
        scores = self.decision_function(X)
        index = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(1)
        labels: npt.NDArray[Any] = self.classes_[index]
        return labels

    @abstractmethod
    def _scores(self, X: npt.NDArray[np.float32]) -> Floats:
        """Return (n, columns) decision scores of checked rows."""

    def _training(self, X: Any, y: Any, sample_weight: Any, groups: Any = None) -> Training:
        """Check what was given to `fit`, set `classes_`, and return it as a training with one target."""
        X, y = validate_data(self, X, y, dtype=list(self._dtypes), order="C")
        check_classification_targets(y)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        self.classes_, encoded = np.unique(y, return_inverse=True)
        if len(np.unique(encoded[weight > 0])) < 2:
            raise ValueError(
                f"{type(self).__name__} needs 2 or more classes; found one class: {list(self.classes_)[:1]}"
            )
        if groups is None:
            group_of_row = np.arange(len(X))
        else:
            check_consistent_length(X, groups)
            _, group_of_row = np.unique(np.asarray(groups), return_inverse=True)
        return Training.of_rows(
            X,
            encoded[:, None].astype(np.int64),
            sample_weight=weight[:, None].astype(np.float32),
            groups=group_of_row.astype(np.int64),
            n_classes=len(self.classes_),
        )

    def _whole_classes(self) -> npt.NDArray[np.int64]:
        """Return the classes as they are kept; raises DataError unless they are whole numbers."""
        check_is_fitted(self)
        if self.classes_.dtype.kind not in "iu":
            raise DataError(f"a head is kept with whole numbers as classes; found {list(self.classes_)[:3]}")
        return self.classes_.astype(np.int64)


def require_arrays(arrays: Mapping[str, npt.NDArray[Any]], names: Iterable[str], *, head: str) -> None:
    """Raise DataError unless `arrays` holds all `names`, naming those it lacks."""
    names = list(names)
    missing = sorted(set(names) - set(arrays))
    if missing:
        raise DataError(f"{head} needs the arrays {', '.join(names)}; lacks {missing}")
