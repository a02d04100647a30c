"""Attention over the images of a unit: the estimator, and its grid trained in one batched pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from heads.bags.batches import Fold, Member
from heads.bags.features import Features
from heads.bags.network import AttentionNetwork, AttentionRecipe, network_from_arrays
from heads.bags.training import Trained, train
from heads.bags.units import put_into_units, unit_labels
from heads.base import (
    CrossFit,
    FamilyDefaults,
    Final,
    Head,
    HeadFamily,
    HeadNeeds,
    OutOfFold,
    Training,
    learnable,
)
from heads.estimators.classifier import EmbeddingClassifier, require_arrays
from heads.folds import repeat_seed
from heads.scores import Floats, columns_of
from heads.solvers.early_stopping import hold_out, usual_stop
from heads.solvers.imbalance import IMBALANCES, Imbalance, focal_to_natural

_NOBODY = np.zeros(0, np.int64)
_NETWORK = ("gate", "gate_bias", "query", "value", "bias")
_FEATURES = ("mean", "factor", "position_factor")


class AttentionHead(EmbeddingClassifier):
    """Gated attention pooling (Ilse et al. 2018, arXiv 1802.04712) that starts at mean pooling.

    Parameters
    ----------
    queries
        Weighted means of a unit's images, each with weights of its own.
    hidden
        Width of the gates that weigh an image.
    components
        Principal axes of the vectors along which a network learns; all columns where there are no more. Beside the
        axes, what mean pooling's regression says of a vector stays as it is.
    layer_norm
        Bring each standardised vector to mean 0 and variance 1.
    positions
        How many of the last columns say where an image comes from (view, plane, place in the stack); they are neither
        normalised nor projected, and 0 where nothing is known.
    ordered
        Whether the classes are grades: scores then come from cumulative logits.
    dropout
        Share of a unit's features that is dropped in training.
    learning_rate
        Of AdamW, at the start; it falls to zero as a cosine.
    weight_decay
        AdamW's decoupled decay of gates and queries.
    l2
        Ridge penalty of the linear function of the weighted means: ``l2 / 2 * |w|**2`` beside the mean log loss.
    batch_size
        Units of a step.
    epochs
        Passes over the units at most.
    minimum_steps
        With few units, as many more passes as give this many steps.
    patience
        Epochs (shares of the steps) without a smaller held-out loss after which training stops; the best weights are
        kept, which may be those of mean pooling.
    stop_after
        Epoch after which training ends, while the learning rate falls as if it went on; 0 keeps mean pooling. By
        default the last.
    validation_share
        Share of the groups held out to know when to stop; 0 trains to the epoch that training ends with.
    imbalance
        How rare classes are treated in training: ``balanced`` class weights, ``oversample``, the ``focal`` loss, or
        not. Scores are those of the classes as they are distributed (`heads.solvers.imbalance`).
    random_state
        Of first weights, order, dropout and held-out groups.

    Attributes
    ----------
    network_
        The trained `heads.bags.network.AttentionNetwork`.
    n_iter_
        Epochs up to the best.
    classes_
        (n_classes,) labels in order.

    Examples
    --------
    Two studies of three images and two of one; the second number of an image says whether there is something to see.

    >>> X = np.array([[1.0, 0.0], [1.1, 0.1], [0.9, 3.0], [1.0, 0.2], [1.2, 0.1], [0.8, 0.0], [1.0, 3.1], [1.1, 0.0]])
    >>> study = np.array([0, 0, 0, 1, 1, 1, 2, 3])
    >>> head = AttentionHead(validation_share=0.0).fit(X, study % 2 == 0, unit_of_row=study)
    >>> head.predict(X[[6, 7]])
    array([ True, False])
    >>> head.image_weights(X[:3], np.zeros(3, int), 1).argmax()
    np.int64(2)
    """

    needs: ClassVar[HeadNeeds] = HeadNeeds(images=True)

    def __init__(
        self,
        queries: int = 1,
        *,
        hidden: int = 16,
        components: int = 256,
        layer_norm: bool = True,
        positions: int = 0,
        ordered: bool = False,
        dropout: float = 0.1,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        l2: float = 0.1,
        batch_size: int = 64,
        epochs: int = 12,
        minimum_steps: int = 240,
        patience: int = 3,
        stop_after: int | None = None,
        validation_share: float = 0.1,
        imbalance: Imbalance = "none",
        random_state: int = 0,
    ) -> None:
        self.queries = queries
        self.hidden = hidden
        self.components = components
        self.layer_norm = layer_norm
        self.positions = positions
        self.ordered = ordered
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.l2 = l2
        self.batch_size = batch_size
        self.epochs = epochs
        self.minimum_steps = minimum_steps
        self.patience = patience
        self.stop_after = stop_after
        self.validation_share = validation_share
        self.imbalance = imbalance
        self.random_state = random_state

    @property
    def recipe(self) -> AttentionRecipe:
        """Shape and settings; raises UsageError naming a parameter that is wrong."""
        names = AttentionRecipe.__dataclass_fields__
        return AttentionRecipe(**{name: getattr(self, name) for name in names}).check()

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None, unit_of_row: Any = None
    ) -> Self:
        """Learn from (n, dim) vectors of images, (n,) labels and optionally (n,) weights.

        Parameters
        ----------
        X, y, sample_weight
            As scikit-learn's; label and weight are those of the image's unit, the same for all its images.
        groups
            (n,) patient of each image; by default each unit is its own.
        unit_of_row
            (n,) unit of each image, as numbers or names; by default each image is one.

        Raises
        ------
        ValueError
            If the input is not finite, lengths differ, there is one class only, or the images of a unit have different
            labels, weights or groups.
        """
        rows = self._training(X, y, sample_weight, groups)
        training = put_into_units(rows, unit_of_row, units_are_groups=groups is None)
        units = unit_labels(training)
        learned = np.flatnonzero(learnable(units, 0))
        member = self.member(units, 0, learned)
        ((trained,),) = train(
            training, [Fold(units=learned, scored=_NOBODY, members=(member,), seed=self.random_state)]
        )
        return self._set_learned(trained, self.classes_)

    def member(self, units: Training, target: int, learned: npt.NDArray[np.int64]) -> Member:
        """Return what is to be trained on some units (`unit_labels`), all of which have a label."""
        kept, held_out = hold_out(units, target, learned, share=self.validation_share, seed=self.random_state)
        # Of two classes both ways are the same.
        recipe = replace(self.recipe, ordered=self.ordered and units.n_classes > 2)
        return Member(recipe=recipe, target=target, learned=kept, held_out=held_out)

    def unit_scores(
        self,
        X: npt.NDArray[np.float32],
        unit_of_row: npt.NDArray[np.int64],
        n_units: int,
        *,
        shift: npt.NDArray[np.float64] | float = 0.0,
    ) -> Floats:
        """Return (n_units, columns) scores of bags (`heads.base.Head.unit_scores`)."""
        return self._natural(self.network_.scores(X, unit_of_row, n_units)) - shift

    def image_weights(
        self, X: npt.NDArray[np.float32], unit_of_row: npt.NDArray[np.int64], n_units: int
    ) -> Floats:
        """Return how much each image has to say in its unit.

        Parameters
        ----------
        X, unit_of_row, n_units
            As `unit_scores`.

        Returns
        -------
        ndarray
            (n,) float64 from 0 to 1 that sum to 1 in each unit: the mean of all queries' weights.
        """
        return self.network_.image_weights(X, unit_of_row, n_units)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return weights and features, and classes, which must be numbers."""
        arrays: dict[str, npt.NDArray[Any]] = {"classes": self._whole_classes()}
        arrays |= {name: getattr(self.network_, name) for name in _NETWORK}
        return arrays | {name: getattr(self.network_.features, name) for name in _FEATURES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], params: Mapping[str, Any]) -> Self:
        """Build the fitted head again from `to_arrays` and `get_params`.

        Raises
        ------
        DataError
            If an array is missing or their shapes do not belong together.
        """
        head = cls(**params)
        require_arrays(arrays, ["classes", *_NETWORK, *_FEATURES], head="an attention head")
        classes = arrays["classes"]
        features = Features(
            **{name: arrays[name] for name in _FEATURES},
            positions=head.positions,
            layer_norm=head.layer_norm,
        )
        ordered = head.ordered and len(classes) > 2
        network = network_from_arrays(features, {name: arrays[name] for name in _NETWORK}, ordered)
        outputs = 1 if ordered else columns_of(classes)
        if network.value.shape[2] != outputs or len(network.bias) != (
            len(classes) - 1 if ordered else outputs
        ):
            raise DataError(
                f"an attention head of {len(classes)} classes must have {outputs} outputs; found values of shape "
                f"{network.value.shape} and biases of shape {network.bias.shape}"
            )
        return head._set_network(network, classes)

    @staticmethod
    def family() -> HeadFamily:
        """Return the grid of ridge penalties."""
        return AttentionFamily()

    def _scores(self, X: npt.NDArray[np.float32]) -> Floats:
        return self._natural(self.network_.scores(X, np.arange(len(X)), len(X)))

    def _natural(self, scores: Floats) -> Floats:
        return focal_to_natural(scores) if self.imbalance == "focal" else scores

    def _set_learned(self, trained: Trained, classes: npt.NDArray[Any]) -> Self:
        self.n_iter_ = max(1, trained.best_round)
        return self._set_network(trained.network, classes)

    def _set_network(self, network: AttentionNetwork, classes: npt.NDArray[Any]) -> Self:
        self.network_, self.classes_ = network, classes
        self.n_features_in_ = len(network.features.mean) + network.features.positions
        return self


@dataclass(frozen=True)
class AttentionFamily(FamilyDefaults):
    """A grid of attention heads; all its points, folds and targets are trained together.

    Parameters
    ----------
    points
        Parameters of `AttentionHead` at each grid point; those of one shape share their work.
    """

    scores_units: ClassVar[bool] = True
    final: ClassVar[Final] = "ensemble"

    points: tuple[Mapping[str, Any], ...] = tuple({"l2": l2} for l2 in (1e-4, 1e-3, 1e-2, 0.1, 1.0))

    def with_imbalance(self) -> Self:
        """Return the grid with the middle point once for each way with rare classes as well."""
        middle = self.points[len(self.points) // 2]
        ways = [{**middle, "imbalance": name} for name in IMBALANCES if name != "none"]
        return replace(self, points=(*self.points, *ways))

    def out_of_fold(self, training: Training, folds: npt.NDArray[np.int64], *, seed: int) -> OutOfFold:
        """Score every unit by networks that never saw its fold, nor stopped by it; the folds fix the last epoch."""
        units = unit_labels(training)
        fold_of_unit = folds[training.row_of_unit]
        shape = (len(self.points), training.n_units, training.y.shape[1], training.columns)
        scores = np.zeros(shape, np.float32)
        stops: list[list[list[int]]] = [[[] for _ in range(shape[2])] for _ in self.points]
        heads = [self._head(point, training, seed) for point in self.points]
        for alike in _alike(heads):
            places = [(point, target) for target in range(shape[2]) for point in alike]
            own = [(heads[point], target) for point, target in places]
            todo = [_fold(units, fold_of_unit == fold, own, seed) for fold in np.unique(fold_of_unit)]
            for fold_trained, of_fold in zip(train(training, todo), todo, strict=True):
                for (point, target), trained in zip(places, fold_trained, strict=True):
                    scores[point, of_fold.scored, target] = trained.scores
                    stops[point][target].append(trained.best_round)
        refit_params = [
            [
                {"stop_after": usual_stop(rounds), "validation_share": 0.0, "positions": head.positions}
                for rounds in of_point
            ]
            for head, of_point in zip(heads, stops, strict=True)
        ]
        return OutOfFold(scores=scores, refit_params=refit_params)

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]:
        """Fit one head per target on all units, to the epoch that the folds' heads were best in (their median)."""
        units = unit_labels(training)
        heads = [self._head(params, training, seed) for params in params_of_target]
        for alike in _alike(heads):
            own = [(heads[target], target) for target in alike]
            (found,) = train(training, [_fold(units, np.zeros(units.n_units, np.bool_), own, seed)])
            for target, trained in zip(alike, found, strict=True):
                heads[target]._set_learned(trained, np.arange(training.n_classes))
        return list(heads)

    def cross_fit(
        self,
        training: Training,
        folds: npt.NDArray[np.int64],
        params_of_target: Sequence[Mapping[str, Any]],
        *,
        seed: int,
    ) -> CrossFit:
        """Train the networks of every partition, fold and target in one batched pass; each stops by itself."""
        units, classes = unit_labels(training), np.arange(training.n_classes)
        fold_of_unit = folds[:, training.row_of_unit]
        places = [
            (repeat, fold)
            for repeat, of_unit in enumerate(fold_of_unit)
            for fold in np.unique(of_unit).tolist()
        ]
        seeds = [repeat_seed(seed, repeat, fold) for repeat, fold in places]
        heads = [[self._head(params, training, own) for params in params_of_target] for own in seeds]
        shape = (len(folds), training.n_units, len(params_of_target), training.columns)
        scores = np.zeros(shape, np.float32)
        for alike in _alike(heads[0]):
            todo = [
                _fold(
                    units, fold_of_unit[repeat] == fold, [(of_place[target], target) for target in alike], own
                )
                for (repeat, fold), of_place, own in zip(places, heads, seeds, strict=True)
            ]
            for place, found in enumerate(train(training, todo)):
                for target, trained in zip(alike, found, strict=True):
                    scores[places[place][0], todo[place].scored, target] = trained.scores
                    heads[place][target]._set_learned(trained, classes)
        of_target = [[of_place[target] for of_place in heads] for target in range(shape[2])]
        return CrossFit(heads=of_target, scores=scores)

    @staticmethod
    def _head(params: Mapping[str, Any], training: Training, seed: int) -> AttentionHead:
        return AttentionHead(**{"positions": training.metadata_columns, **params, "random_state": seed})


def _fold(
    units: Training,
    inside: npt.NDArray[np.bool_],
    heads: Sequence[tuple[AttentionHead, int]],
    seed: int,
) -> Fold:
    """Return a fold, whose networks (heads with their target) learn from all other units."""
    return Fold(
        units=np.flatnonzero(~inside),
        scored=np.flatnonzero(inside),
        members=tuple(
            head.member(units, target, np.flatnonzero(~inside & learnable(units, target)))
            for head, target in heads
        ),
        seed=seed,
    )


def _alike(heads: Sequence[AttentionHead]) -> list[list[int]]:
    """Return the heads that can be trained together, by index."""
    shapes: dict[tuple[object, ...], list[int]] = {}
    for index, head in enumerate(heads):
        shapes.setdefault((head.recipe.shape, head.validation_share), []).append(index)
    return list(shapes.values())
