"""Gated attention pooling (Ilse, Tomczak & Welling 2018, arXiv 1802.04712): a unit's score from its images.

Of the features z of a unit's images, query q weighs image i by the softmax over the unit's images of
``w_q . (tanh(V z_i + b) * sigmoid(U z_i + c))``; the unit's score is the sum over queries of a linear function of the
weighted mean of z. That function is applied before the mean, which is the same and leaves one number per image in
place of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from heads.bags.features import Features
from heads.exact_products import reproducible_product
from heads.scores import Floats
from heads.solvers.imbalance import require_imbalance

_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class AttentionRecipe:
    """How one network is shaped and trained; the parameters of `heads.estimators.attention.AttentionHead`."""

    queries: int
    hidden: int
    components: int
    layer_norm: bool
    positions: int
    ordered: bool
    dropout: float
    learning_rate: float
    weight_decay: float
    l2: float
    batch_size: int
    epochs: int
    minimum_steps: int
    patience: int
    stop_after: int | None
    imbalance: str = "none"

    @property
    def shape(self) -> tuple[object, ...]:
        """What networks must share to be trained together: all but rates, penalties and when to stop."""
        network = (self.queries, self.hidden, self.components, self.layer_norm, self.positions, self.ordered)
        return *network, self.dropout, self.batch_size, self.epochs, self.minimum_steps

    @property
    def last_epoch(self) -> int:
        """The epoch that training ends with, 0 for none."""
        return self.epochs if self.stop_after is None else self.stop_after

    def check(self) -> AttentionRecipe:
        """Return itself; raises UsageError naming the parameter that is wrong."""
        rules = {
            "queries": (self.queries >= 1, "it must be 1 or more"),
            "hidden": (self.hidden >= 1, "it must be 1 or more"),
            "components": (self.components >= 1, "it must be 1 or more"),
            "positions": (self.positions >= 0, "it must be 0 or more"),
            "dropout": (0 <= self.dropout < 1, "it must be from 0 to below 1"),
            "learning_rate": (self.learning_rate > 0, "it must be above 0"),
            "weight_decay": (self.weight_decay >= 0, "it must be 0 or more"),
            "l2": (self.l2 > 0, "it must be above 0"),
            "batch_size": (self.batch_size >= 1, "it must be 1 or more"),
            "epochs": (self.epochs >= 1, "it must be 1 or more"),
            "minimum_steps": (self.minimum_steps >= 0, "it must be 0 or more"),
            "patience": (self.patience >= 1, "it must be 1 or more"),
            "stop_after": (
                0 <= self.last_epoch <= self.epochs,
                "it must be from 0 to epochs, or None for epochs",
            ),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise UsageError(f"attention: {name} cannot be {getattr(self, name)!r}; {wanted}")
        require_imbalance(self.imbalance, head="attention")
        if self.ordered and self.imbalance != "none":
            raise UsageError(
                f"attention: cumulative logits of grades have no way back from imbalance {self.imbalance!r}; leave "
                "ordered or imbalance out"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class AttentionNetwork:
    """One trained network.

    Parameters
    ----------
    features
        From an image's vector to z.
    gate
        (width, 2 * hidden) float32: V, then U.
    gate_bias
        (2 * hidden,) float32.
    query
        (hidden, queries) float32.
    value
        (width, queries, outputs) float32: what the score is of each query's mean; outputs as `columns`, or one for
        ordered classes.
    bias
        (outputs,) float32; with ordered classes (n_classes - 1,): the first threshold, then the logarithms of the
        distances to the next.
    ordered
        Whether scores are made from cumulative logits.
    """

    features: Features
    gate: npt.NDArray[np.float32]
    gate_bias: npt.NDArray[np.float32]
    query: npt.NDArray[np.float32]
    value: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    ordered: bool

    def scores(self, X: npt.NDArray[np.float32], unit_of_row: npt.NDArray[np.int64], n_units: int) -> Floats:
        """Return (n_units, columns) logits; a unit's bits depend on its own rows only, in any order."""
        require_images(unit_of_row, n_units)
        logits, values = self._of_images(X)
        weights = unit_softmax(logits, unit_of_row, n_units)
        outputs = self.value.shape[2]
        score = np.zeros((n_units, outputs))
        for query in range(logits.shape[1]):
            for output in range(outputs):
                weighted = weights[:, query] * values[:, query * outputs + output]
                score[:, output] += unit_sums(weighted, unit_of_row, n_units)
        if self.ordered:
            return ordered_scores(score[:, 0], self.bias)
        return score + self.bias.astype(np.float64)

    def image_weights(
        self, X: npt.NDArray[np.float32], unit_of_row: npt.NDArray[np.int64], n_units: int
    ) -> Floats:
        """Return (n,) float64: each image's share in its unit, the mean over queries; they sum to 1 in a unit."""
        require_images(unit_of_row, n_units)
        weights = unit_softmax(self._of_images(X)[0], unit_of_row, n_units)
        total = weights[:, 0].copy()
        for query in range(1, weights.shape[1]):
            total += weights[:, query]
        return np.asarray(total / weights.shape[1], np.float64)

    def _of_images(self, X: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Return (n, queries) attention logits and (n, queries * outputs) values of each image."""
        hidden = len(self.query)
        values = self.value.reshape(len(self.value), -1)
        columns = np.concatenate([self.gate, values], axis=1).T.astype(np.float64)
        query = self.query.T.astype(np.float64)
        logits, found = np.empty((len(X), query.shape[0])), np.empty((len(X), values.shape[1]))
        for start in range(0, len(X), _ROWS):
            some = slice(start, start + _ROWS)
            projected = reproducible_product(self.features.exact(X[some]), columns)
            gates = projected[:, : 2 * hidden] + self.gate_bias
            opened = np.tanh(gates[:, :hidden].copy()) / (1 + np.exp(-gates[:, hidden:].copy()))
            logits[some] = reproducible_product(opened, query)
            found[some] = projected[:, 2 * hidden :]
        return logits, found


def require_images(unit_of_row: npt.NDArray[np.int64], n_units: int) -> None:
    """Raise UsageError unless every unit has an image, and every image a unit."""
    images = np.bincount(unit_of_row, minlength=n_units)
    if len(images) != n_units or (images == 0).any():
        raise UsageError(
            f"each of {n_units} units needs an image; {int((images == 0).sum())} have none "
            f"and the largest unit is {len(images) - 1}"
        )


def unit_softmax(logits: Floats, unit_of_row: npt.NDArray[np.int64], n_units: int) -> Floats:
    """Return (n, queries) weights: the softmax of each column over the rows of a unit."""
    weights = np.empty_like(logits)
    for query in range(logits.shape[1]):
        largest = np.full(n_units, -np.inf)
        np.maximum.at(largest, unit_of_row, logits[:, query])
        shares = np.exp(logits[:, query] - largest[unit_of_row])
        weights[:, query] = shares / unit_sums(shares, unit_of_row, n_units)[unit_of_row]
    return weights


def unit_sums(values: Floats, unit_of_row: npt.NDArray[np.int64], n_units: int) -> Floats:
    """Return (n_units,) sums; each is the same in any order of its rows, and whatever other units there are."""
    order = np.lexsort((values, unit_of_row))
    return np.asarray(np.bincount(unit_of_row[order], values[order], n_units), np.float64)


def ordered_scores(scores: Floats, bias: npt.NDArray[np.float32]) -> Floats:
    """Return (n, n_classes) log probabilities of the proportional-odds model (McCullagh 1980).

    The probability of class k or lower is ``sigmoid(threshold_k - score)``; `bias` holds the first threshold and the
    logarithms of the distances to the next.
    """
    gaps = bias.astype(np.float64)
    thresholds = np.cumsum(np.concatenate([gaps[:1], np.exp(gaps[1:])]))
    beyond = thresholds - scores[:, None]
    # log sigmoid(x) and log sigmoid(-x): log probabilities of being at most k, and above k.
    at_most, above = -np.logaddexp(0, -beyond), -np.logaddexp(0, beyond)
    between = at_most[:, 1:] + above[:, :-1] + np.log(-np.expm1(-np.diff(thresholds)))
    return np.concatenate([at_most[:, :1], between, above[:, -1:]], axis=1)


def network_from_arrays(
    features: Features, arrays: dict[str, npt.NDArray[np.float32]], ordered: bool
) -> AttentionNetwork:
    """Build from the arrays named as `AttentionNetwork`'s fields; raises DataError where shapes do not fit together."""
    gate, query, value = arrays["gate"], arrays["query"], arrays["value"]
    width = features.width
    if (
        gate.ndim != 2
        or query.ndim != 2
        or value.ndim != 3
        or gate.shape != (width, 2 * len(query))
        or value.shape[:2] != (width, query.shape[1])
        or arrays["gate_bias"].shape != (gate.shape[1],)
    ):
        shapes = {name: arrays[name].shape for name in ("gate", "gate_bias", "query", "value")}
        raise DataError(f"an attention head's arrays must belong to {width} features; found {shapes}")
    return AttentionNetwork(features=features, ordered=ordered, **arrays)
