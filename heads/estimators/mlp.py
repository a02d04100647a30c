"""Multilayer perceptron on embeddings: the estimator, and its grid trained in one batched pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from heads.base import CrossFit, FamilyDefaults, Final, Head, HeadFamily, OutOfFold, Training, learnable
from heads.estimators.classifier import EmbeddingClassifier, require_arrays
from heads.folds import repeat_seed
from heads.scores import Floats, columns_of
from heads.solvers.early_stopping import hold_out, usual_stop
from heads.solvers.imbalance import IMBALANCES, Imbalance, focal_to_natural
from heads.solvers.logistic_rows import Normalisation
from heads.solvers.mlp_batches import Problem
from heads.solvers.mlp_network import Network, NetworkRecipe, Schedule
from heads.solvers.mlp_training import Trained, train

# The head of work A on MURA (arXiv 2511.05600): 1152-512-128-1.
HIDDEN = (512, 128)
_NOBODY = np.zeros(0, np.int64)


class MlpHead(EmbeddingClassifier):
    """ReLU network on normalised vectors, trained by AdamW and stopped by the log loss of held-out groups.

    Parameters
    ----------
    hidden
        Widths of the hidden layers; by default those published for MURA (arXiv 2511.05600).
    normalisation
        ``none``, ``standardise`` (fitted on the rows that weights are learned from) or ``l2`` (unit vectors
        times the root of their dimension).
    dropout
        Share of each hidden layer's outputs that is dropped in training: one for all, or one each.
    learning_rate
        Of AdamW, at the start.
    weight_decay
        AdamW's decoupled decay of the weights; 0 makes it Adam.
    l2
        Factor of the weights' summed squares in the loss.
    batch_size
        Rows of a step.
    epochs
        Passes over the rows at most.
    minimum_steps
        With few rows, as many more passes as give this many steps.
    patience
        Epochs (shares of the steps) without a smaller held-out loss after which training stops; the best
        weights are kept, which may be the untrained ones: they state the prevalence.
    stop_after
        Epoch after which training ends, while the schedule still spans all `epochs`; 0 keeps the untrained
        weights. By default the last.
    validation_share
        Share of the groups held out; 0 trains to the epoch that training ends with and keeps that.
    schedule
        ``cosine`` (to zero, arXiv 1608.03983) or ``constant``.
    members
        Networks whose logits are averaged; their seeds follow `random_state`.
    imbalance
        How rare classes are treated in training: ``balanced`` class weights, ``oversample``, the ``focal`` loss, or
        not. Scores are those of the classes as they are distributed (`heads.solvers.imbalance`).
    random_state
        Of first weights, order, dropout and held-out groups.
    device
        As `embedstore.compute_device.torch_device`, for fitting; scores are always computed on the CPU.

    Attributes
    ----------
    networks_
        The trained `heads.solvers.mlp_network.Network` of each member.
    n_iter_
        Epochs of the longest-trained member, up to its best.
    classes_
        (n_classes,) labels in order.

    Examples
    --------
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]] * 8)
    >>> MlpHead((16,), learning_rate=0.03, minimum_steps=200).fit(X, [0, 1, 1, 0] * 8).predict(X[:4])
    array([0, 1, 1, 0])
    """

    def __init__(
        self,
        hidden: Sequence[int] = HIDDEN,
        *,
        normalisation: Normalisation = "standardise",
        dropout: float | Sequence[float] = 0.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        l2: float = 0.0,
        batch_size: int = 128,
        epochs: int = 12,
        minimum_steps: int = 120,
        patience: int = 3,
        stop_after: int | None = None,
        validation_share: float = 0.1,
        schedule: Schedule = "cosine",
        members: int = 1,
        imbalance: Imbalance = "none",
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.hidden = hidden
        self.normalisation = normalisation
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
        self.schedule = schedule
        self.members = members
        self.imbalance = imbalance
        self.random_state = random_state
        self.device = device

    @property
    def recipe(self) -> NetworkRecipe:
        """Shape and settings of each member; raises UsageError naming a parameter that is wrong."""
        hidden = tuple(int(width) for width in self.hidden)
        drops = self.dropout
        dropout = (float(drops),) * len(hidden) if isinstance(drops, (int, float)) else tuple(drops)
        return NetworkRecipe(
            hidden=hidden,
            normalisation=self.normalisation,
            dropout=dropout,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            l2=self.l2,
            batch_size=self.batch_size,
            epochs=self.epochs,
            minimum_steps=self.minimum_steps,
            patience=self.patience,
            stop_after=self.stop_after,
            schedule=self.schedule,
            imbalance=self.imbalance,
        ).check()

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Learn from (n, dim) vectors, (n,) labels and optionally (n,) weights.

        `groups` names the patient of each row; by default each row is its own.

        Raises
        ------
        ValueError
            If the input is not finite, lengths differ or there is one class only.
        """
        training = self._training(X, y, sample_weight, groups)
        rows = np.flatnonzero(learnable(training, 0))
        problems = self.problems(training, 0, rows, _NOBODY)
        return self._set_learned(train(training, problems, device=self.device), self.classes_)

    def problems(
        self, training: Training, target: int, rows: npt.NDArray[np.int64], scored: npt.NDArray[np.int64]
    ) -> list[Problem]:
        """Return one problem per member, to be learned from `rows`, all of which have a label."""
        if self.members < 1:
            raise UsageError(f"mlp: members must be 1 or more; found {self.members}")
        kept, held_out = hold_out(training, target, rows, share=self.validation_share, seed=self.random_state)
        return [
            Problem(
                recipe=self.recipe,
                target=target,
                rows=kept,
                held_out=held_out,
                scored=scored,
                seed=self.random_state + member,
            )
            for member in range(self.members)
        ]

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return weights and normalisation of each member, and classes, which must be numbers."""
        arrays: dict[str, npt.NDArray[Any]] = {"classes": self._whole_classes()}
        networks = self.networks_
        for layer in range(len(networks[0].weights)):
            arrays[f"weight{layer}"] = np.stack([network.weights[layer] for network in networks])
            arrays[f"bias{layer}"] = np.stack([network.biases[layer] for network in networks])
        arrays["mean"] = np.stack([network.mean for network in networks])
        arrays["factor"] = np.stack([network.factor for network in networks])
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], params: Mapping[str, Any]) -> Self:
        """Build the fitted head again from `to_arrays` and `get_params`.

        Raises
        ------
        DataError
            If an array is missing or their shapes do not belong together.
        """
        head = cls(**params)
        layers = range(len(head.hidden) + 1)
        names = [f"{kind}{layer}" for layer in layers for kind in ("weight", "bias")]
        require_arrays(arrays, ["classes", "factor", "mean", *names], head="an mlp head")
        classes, mean = arrays["classes"], arrays["mean"]
        sizes = [mean.shape[-1], *head.hidden, columns_of(classes)]
        wanted: dict[str, tuple[int, ...]] = {
            "mean": (head.members, sizes[0]),
            "factor": (head.members, sizes[0]),
        }
        for layer in layers:
            wanted[f"weight{layer}"] = (head.members, sizes[layer], sizes[layer + 1])
            wanted[f"bias{layer}"] = (head.members, sizes[layer + 1])
        for name, shape in wanted.items():
            if arrays[name].shape != shape:
                raise DataError(f"an mlp head's array {name} must be {shape}; found {arrays[name].shape}")
        return head._set_networks(
            [
                Network(
                    weights=tuple(arrays[f"weight{layer}"][member] for layer in layers),
                    biases=tuple(arrays[f"bias{layer}"][member] for layer in layers),
                    mean=mean[member],
                    factor=arrays["factor"][member],
                    normalisation=head.normalisation,
                )
                for member in range(head.members)
            ],
            classes,
        )

    @staticmethod
    def family() -> HeadFamily:
        """Return the network published for MURA, on standardised and on unit vectors."""
        return MlpFamily()

    def hidden_vectors(self, X: npt.NDArray[np.float32]) -> Floats:
        """Return the (n, width) outputs of the last hidden layer, those of all networks side by side."""
        return np.concatenate([network.hidden(X) for network in self.networks_], axis=1)

    def _scores(self, X: npt.NDArray[np.float32]) -> Floats:
        scores = self._of_network(self.networks_[0], X)
        for network in self.networks_[1:]:
            scores += self._of_network(network, X)
        return scores / len(self.networks_)

    def _of_network(self, network: Network, X: npt.NDArray[np.float32]) -> Floats:
        scores = network.scores(X)
        return focal_to_natural(scores) if self.imbalance == "focal" else scores

    def _set_learned(self, trained: Sequence[Trained], classes: npt.NDArray[Any]) -> Self:
        self.n_iter_ = max(1, *(member.best_round for member in trained))
        return self._set_networks([member.network for member in trained], classes)

    def _set_networks(self, networks: Sequence[Network], classes: npt.NDArray[Any]) -> Self:
        self.networks_, self.classes_ = list(networks), classes
        self.n_features_in_ = len(networks[0].mean)
        return self


@dataclass(frozen=True)
class MlpFamily(FamilyDefaults):
    """A grid of networks; those of one shape are trained together, with all folds, targets and members.

    Parameters
    ----------
    points
        Parameters of `MlpHead` at each grid point. By default MURA's shape on standardised and on unit
        vectors, with some dropout: each point more costs as much as these.
    device
        As `embedstore.compute_device.torch_device`.
    """

    points: tuple[Mapping[str, Any], ...] = (
        {"normalisation": "standardise", "dropout": 0.25},
        {"normalisation": "l2", "dropout": 0.25},
    )
    device: str = "cpu"

    final: ClassVar[Final] = "ensemble"

    def with_imbalance(self) -> Self:
        """Return the grid with the first point once for each way with rare classes as well."""
        ways = [{**self.points[0], "imbalance": name} for name in IMBALANCES if name != "none"]
        return replace(self, points=(*self.points, *ways))

    def on_device(self, device: str) -> Self:
        """Return the same grid, to be fitted there."""
        return replace(self, device=device)

    def out_of_fold(self, training: Training, folds: npt.NDArray[np.int64], *, seed: int) -> OutOfFold:
        """Score every row by networks that never saw its fold, nor stopped by it; the folds fix the last epoch."""
        heads = [MlpHead(**point, random_state=seed) for point in self.points]
        problems, places = [], []
        for target in range(training.y.shape[1]):
            known = learnable(training, target)
            for fold in np.unique(folds):
                rows, scored = np.flatnonzero(known & (folds != fold)), np.flatnonzero(folds == fold)
                splits: dict[float, list[Problem]] = {}
                for point, head in enumerate(heads):
                    own = head.problems(training, target, rows, scored)
                    # One array object per split, by which fitted normalisations are shared.
                    first = splits.setdefault(head.validation_share, own)[0]
                    problems += [replace(each, rows=first.rows, held_out=first.held_out) for each in own]
                    places += [(point, scored, target, head.members)] * len(own)
        scores = np.zeros((len(heads), *training.y.shape, training.columns), np.float32)
        stops: list[list[list[int]]] = [[[] for _ in range(training.y.shape[1])] for _ in heads]
        for (point, scored, target, members), trained in zip(
            places, train(training, problems, device=self.device), strict=True
        ):
            scores[point, scored, target] += trained.scores / members
            stops[point][target].append(trained.best_round)
        refit_params = [
            [{"stop_after": usual_stop(of_target), "validation_share": 0.0} for of_target in of_point]
            for of_point in stops
        ]
        return OutOfFold(scores=scores, refit_params=refit_params)

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]:
        """Fit one head per target on all rows, to the epoch that the folds' heads were best in (their median)."""
        heads = [MlpHead(**params, random_state=seed) for params in params_of_target]
        problems = [
            head.problems(training, target, np.flatnonzero(learnable(training, target)), _NOBODY)
            for target, head in enumerate(heads)
        ]
        trained = iter(train(training, list(chain.from_iterable(problems)), device=self.device))
        return [
            head._set_learned([next(trained) for _ in own], np.arange(training.n_classes))
            for head, own in zip(heads, problems, strict=True)
        ]

    def cross_fit(
        self,
        training: Training,
        folds: npt.NDArray[np.int64],
        params_of_target: Sequence[Mapping[str, Any]],
        *,
        seed: int,
    ) -> CrossFit:
        """Train the networks of every partition, fold and target in one pass; weights are kept in half precision."""
        heads: list[list[MlpHead]] = [[] for _ in params_of_target]
        problems, places = [], []
        for repeat, fold_of_row in enumerate(folds):
            for fold in np.unique(fold_of_row):
                scored = np.flatnonzero(fold_of_row == fold)
                for target, params in enumerate(params_of_target):
                    head = MlpHead(**params, random_state=repeat_seed(seed, repeat, int(fold)))
                    rows = np.flatnonzero(learnable(training, target) & (fold_of_row != fold))
                    own = head.problems(training, target, rows, scored)
                    heads[target].append(head)
                    problems += own
                    places.append((repeat, scored, target, head, len(own)))
        # Of all members of a run, halves are as large as one refitted network in single precision and a few others.
        trained = iter(train(training, problems, device=self.device, kept_as=np.float16))
        scores = np.zeros((len(folds), *training.y.shape, training.columns), np.float32)
        for repeat, scored, target, head, count in places:
            networks = [next(trained) for _ in range(count)]
            scores[repeat, scored, target] = sum(each.scores for each in networks) / np.float32(count)
            head._set_learned(networks, np.arange(training.n_classes))
        return CrossFit(heads=heads, scores=scores)
