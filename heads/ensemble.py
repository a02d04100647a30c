"""A head that is the mean of others: of those that saw all but one fold, in several partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from heads.base import Head, HeadNeeds
from heads.scores import Floats, probabilities_from_scores

Params = Mapping[str, Any]


class EnsembleHead:
    """The mean of several heads' decision scores, of rows and of units.

    A unit's score is the mean of the members' scores of the unit, each pooled from its images by the member itself: so
    are the out-of-fold scores made, in which fewer members have a part.

    Parameters
    ----------
    members
        Fitted heads of one class with the same labels; in another order, a score differs in its last digits.

    Attributes
    ----------
    classes_
        (n_classes,) labels in order.
    converged_
        Whether every member's solver reached its tolerance; None where the heads do not say.
    """

    def __init__(self, members: Sequence[Head]) -> None:
        self.members = tuple(members)
        said = [member.converged_ for member in self.members]
        self.converged_ = None if None in said else all(said)
        self.classes_ = self.members[0].classes_

    @property
    def needs(self) -> HeadNeeds:
        """What each member needs."""
        return self.members[0].needs

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters that all members have in common."""
        first, *others = [member.get_params(deep) for member in self.members]
        return {name: value for name, value in first.items() if all(value == each[name] for each in others)}

    def own_params(self) -> list[dict[str, Any]]:
        """Return, of each member, the parameters that are not common to all (its seed, for instance)."""
        common = self.get_params()
        return [
            {name: value for name, value in member.get_params().items() if name not in common}
            for member in self.members
        ]

    def decision_function(self, X: Any) -> Floats:
        """Return (n,) logits of the second of two classes, or (n, n_classes) logits; each row by itself."""
        return self._mean([member.decision_function(X) for member in self.members])

    def unit_scores(
        self,
        X: npt.NDArray[np.float32],
        unit_of_row: npt.NDArray[np.int64],
        n_units: int,
        *,
        shift: npt.NDArray[np.float64] | float = 0.0,
    ) -> Floats:
        """Return (n_units, columns) means of the members' scores of units (`heads.base.FittedHead.unit_scores`)."""
        return self._mean(
            [member.unit_scores(X, unit_of_row, n_units, shift=shift) for member in self.members]
        )

    def image_weights(
        self, X: npt.NDArray[np.float32], unit_of_row: npt.NDArray[np.int64], n_units: int
    ) -> Floats | None:
        """Return the (n,) means of the members' weights of images; None where a member has none."""
        weights = [member.image_weights(X, unit_of_row, n_units) for member in self.members]
        known = [of_member for of_member in weights if of_member is not None]
        return self._mean(known) if len(known) == len(weights) else None

    def hidden_vectors(self, X: npt.NDArray[np.float32]) -> Floats | None:
        """Return the (n, width) hidden vectors of all members side by side; None where a member has none."""
        hidden = [member.hidden_vectors(X) for member in self.members]
        known = [of_member for of_member in hidden if of_member is not None]
        return np.concatenate(known, axis=1) if len(known) == len(hidden) else None

    def predict_proba(self, X: Any) -> Floats:
        """Return (n, n_classes) probabilities."""
        scores = self.decision_function(X)
        return probabilities_from_scores(scores[:, None] if scores.ndim == 1 else scores)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return (n,) most probable labels."""
        labels: npt.NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of every member: ``3.coef`` is that of the fourth."""
        return {
            f"{index}.{name}": array
            for index, member in enumerate(self.members)
            for name, array in member.to_arrays().items()
        }

    @classmethod
    def from_arrays(
        cls,
        kind: type[Head],
        arrays: Mapping[str, npt.NDArray[Any]],
        common: Params,
        own: Sequence[Params],
    ) -> EnsembleHead:
        """Build the ensemble again.

        Parameters
        ----------
        kind
            The members' class.
        arrays
            As `to_arrays`.
        common, own
            As `get_params` and `own_params`.

        Raises
        ------
        DataError
            If a member's arrays are missing, or are not its own.
        """
        of_member: list[dict[str, npt.NDArray[Any]]] = [{} for _ in own]
        for full_name, array in arrays.items():
            index, _, name = full_name.partition(".")
            if not index.isdecimal() or int(index) >= len(own):
                raise DataError(f"an ensemble of {len(own)} heads has no array {full_name!r}")
            of_member[int(index)][name] = array
        return cls(
            [
                kind.from_arrays(of_this, {**common, **params})
                for of_this, params in zip(of_member, own, strict=True)
            ]
        )

    def _mean(self, scores: Sequence[Floats]) -> Floats:
        # One after the other: the order of a library's reduction may depend on the shape.
        total = scores[0].astype(np.float64)
        for of_member in scores[1:]:
            total += of_member
        return total / len(scores)
