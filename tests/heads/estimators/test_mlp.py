"""The multilayer perceptron against torch's own optimiser, scikit-learn's network and worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedstore.errors import DataError, UsageError
from heads.base import Training
from heads.estimators.mlp import MlpFamily, MlpHead
from heads.scores import probabilities_from_scores
from heads.solvers.early_stopping import hold_out
from heads.solvers.mlp_batches import Problem
from heads.solvers.mlp_network import NetworkRecipe, normaliser, untrained
from heads.solvers.mlp_training import train
from heads.testing import check_chance, check_family, check_head, make_training

SMALL = {"hidden": (16, 8), "learning_rate": 0.02, "minimum_steps": 60}
GRID = MlpFamily(
    (
        SMALL,
        SMALL | {"normalisation": "l2", "dropout": 0.25},
        SMALL | {"hidden": (12,), "normalisation": "none", "members": 2, "minimum_steps": 36},
    )
)
# A row of weight w in one batch is not w rows scattered over batches: true of every stochastic training.
WEIGHTS_ARE_NOT_COPIES = {
    "check_sample_weight_equivalence_on_dense_data": "rows are drawn in batches: w copies meet other rows"
}


@parametrize_with_checks(
    [MlpHead(**SMALL), MlpHead((8,), normalisation="l2", dropout=0.2, minimum_steps=24, learning_rate=0.05)],
    expected_failed_checks=lambda head: WEIGHTS_ARE_NOT_COPIES,
)
def test_the_head_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("normalisation", ["none", "standardise", "l2"])
def test_the_head_keeps_the_contract(n_classes: int, normalisation: str) -> None:
    check_head(MlpHead(**SMALL, normalisation=normalisation, members=2), n_classes=n_classes)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_grid_keeps_the_contract(n_classes: int) -> None:
    check_family(GRID, MlpHead, n_classes=n_classes)


def test_labels_without_signal_give_the_prevalence() -> None:
    check_chance(GRID, worse_by=0.05)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("decay", [{"weight_decay": 0.1, "l2": 0.0}, {"weight_decay": 0.0, "l2": 0.01}])
def test_weights_after_some_steps_are_those_of_torchs_adamw(n_classes: int, decay: dict[str, float]) -> None:
    training = make_training(n_classes=n_classes, targets=1)
    head = MlpHead(
        (6, 5),
        normalisation="none",
        batch_size=100,
        epochs=6,
        minimum_steps=0,
        learning_rate=0.02,
        validation_share=0.0,
        random_state=5,
        **decay,
    ).fit(training.X, training.y[:, 0])
    expected = _torch_network(training, head)
    for layer, weight in enumerate(head.networks_[0].weights):
        assert weight == pytest.approx(expected[2 * layer], abs=1e-5)
        assert head.networks_[0].biases[layer] == pytest.approx(expected[2 * layer + 1], abs=1e-5)


@pytest.mark.parametrize("stop_after", [0, 2])
def test_training_that_stops_is_the_first_epochs_of_the_whole(stop_after: int) -> None:
    """The learning rate falls as if training went on to the last epoch."""
    training = make_training(targets=1)
    recipe = {"hidden": (6, 5), "normalisation": "none", "batch_size": 100, "epochs": 6, "minimum_steps": 0}
    head = MlpHead(**recipe, stop_after=stop_after, learning_rate=0.02, validation_share=0.0, random_state=5)
    head.fit(training.X, training.y[:, 0])
    expected = _torch_network(training, head)
    for layer, weight in enumerate(head.networks_[0].weights):
        assert weight == pytest.approx(expected[2 * layer], abs=1e-5)
        assert head.networks_[0].biases[layer] == pytest.approx(expected[2 * layer + 1], abs=1e-5)


def test_without_an_epoch_the_prevalence_is_stated() -> None:
    training = make_training(targets=1)
    head = MlpHead(**SMALL, stop_after=0, validation_share=0.0).fit(training.X, training.y[:, 0])
    assert head.predict_proba(training.X)[:, 1] == pytest.approx(training.y.mean())


def test_networks_that_stop_at_different_epochs_train_side_by_side() -> None:
    training = make_training(targets=2)
    params = [SMALL | {"stop_after": stop_after, "validation_share": 0.0} for stop_after in (2, 5)]
    for target, head in enumerate(GRID.refit(training, params, seed=3)):
        alone = MlpHead(**params[target], random_state=3).fit(training.X, training.y[:, target])
        assert head.n_iter_ == alone.n_iter_ == params[target]["stop_after"]
        expected = alone.decision_function(training.X)
        assert head.decision_function(training.X) == pytest.approx(expected, abs=1e-4)


def _torch_network(training: Training, head: MlpHead) -> list[np.ndarray]:
    """Train by `torch.optim` and torch's own cosine schedule, from the same first weights in the same order."""
    counts = np.bincount(training.y[:, 0])
    prior = np.log(counts / counts.sum())
    prior = (prior[1:] - prior[:1] if training.columns == 1 else prior).astype(np.float32)
    sizes = [training.X.shape[1], *head.hidden, training.columns]
    tensors = [tensor.requires_grad_(True) for tensor in untrained(sizes, prior, seed=5)]
    optimiser = torch.optim.AdamW(
        [
            {"params": tensors[::2], "weight_decay": head.weight_decay},
            {"params": tensors[1::2], "weight_decay": 0.0},
        ],
        lr=head.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3 * head.epochs)
    generator = np.random.default_rng(5)
    orders = [generator.permutation(len(training.X)) for _ in range(head.recipe.last_epoch)]
    # 240 rows in batches of 100: two whole ones and a short one.
    for batch in (order[start : start + 100] for order in orders for start in (0, 100, 200)):
        rows, y = torch.from_numpy(training.X[batch]), torch.from_numpy(training.y[batch, 0])
        optimiser.zero_grad()
        for weight, bias in zip(tensors[:-2:2], tensors[1:-2:2], strict=True):
            rows = torch.relu(rows @ weight + bias)
        scores = rows @ tensors[-2] + tensors[-1]
        loss = (
            torch.nn.functional.binary_cross_entropy_with_logits(scores[:, 0], y.float())
            if training.columns == 1
            else torch.nn.functional.cross_entropy(scores, y)
        )
        (loss + head.l2 * sum(weight.square().sum() for weight in tensors[::2])).backward()
        optimiser.step()
        schedule.step()
    return [tensor.detach().numpy().squeeze(0 if tensor.shape[0] == 1 else ()) for tensor in tensors]


def test_scores_are_those_of_the_network_written_out() -> None:
    training = make_training(targets=1)
    head = MlpHead(**SMALL).fit(training.X, training.y[:, 0])
    network = head.networks_[0]
    rows = (training.X.astype(np.longdouble) - network.mean) * network.factor
    for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        rows = np.maximum(rows @ weight.astype(np.longdouble) + bias, 0)
    expected = rows @ network.weights[-1].astype(np.longdouble) + network.biases[-1]
    assert head.decision_function(training.X) == pytest.approx(expected[:, 0].astype(float), abs=1e-6)


def test_exclusive_or_is_learned_where_a_line_would_fail() -> None:
    X = np.random.default_rng(0).uniform(-1, 1, (800, 2)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    head = MlpHead((32,), learning_rate=0.02, minimum_steps=400, batch_size=64).fit(X[:600], y[:600])
    assert (head.predict(X[600:]) == y[600:]).mean() > 0.95


def test_separable_classes_are_separated() -> None:
    training = make_training(targets=1, signal=12.0)
    head = MlpHead(**SMALL).fit(training.X[:160], training.y[:160, 0])
    assert (head.predict(training.X[160:]) == training.y[160:, 0]).all()


def test_held_out_log_loss_is_no_worse_than_scikit_learns_network() -> None:
    training = make_training(n=1200, targets=1, signal=1.5)
    X, y, first = training.X, training.y[:, 0], slice(0, 800)
    head = MlpHead((32, 16), batch_size=64, minimum_steps=400).fit(
        X[first], y[first], groups=training.groups[first]
    )
    scaler = StandardScaler().fit(X[first])
    theirs = MLPClassifier(
        (32, 16), early_stopping=True, batch_size=64, learning_rate_init=1e-3, max_iter=100, random_state=0
    ).fit(scaler.transform(X[first]), y[first])
    own = head.predict_proba(X[800:])
    reference = theirs.predict_proba(scaler.transform(X[800:]))
    assert log_loss(y[800:], own) < log_loss(y[800:], reference) + 0.02
    assert roc_auc_score(y[800:], own[:, 1]) > roc_auc_score(y[800:], reference[:, 1]) - 0.02


@pytest.mark.parametrize("point", [0, 1, 2])
def test_a_network_of_the_batched_pass_is_the_one_trained_alone(point: int) -> None:
    training = make_training()
    folds = training.groups % 3
    scores = GRID.out_of_fold(training, folds, seed=4).scores
    for target in range(2):
        inside = folds != 1
        alone = MlpHead(**GRID.points[point], random_state=4).fit(
            training.X[inside], training.y[inside, target], groups=training.groups[inside]
        )
        expected = alone.decision_function(training.X[~inside])
        assert scores[point, ~inside, target, 0] == pytest.approx(expected, abs=1e-3)


def test_blocks_of_networks_give_the_same_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(n=120)
    whole = GRID.out_of_fold(training, training.groups % 3, seed=0).scores
    monkeypatch.setattr("heads.solvers.mlp_training._BLOCK_PARAMETERS", 1)
    monkeypatch.setattr("heads.solvers.mlp_training._APPLY_CELLS", 100)
    parts = GRID.out_of_fold(training, training.groups % 3, seed=0).scores
    assert parts == pytest.approx(whole, abs=1e-3)


def test_seeds_decide() -> None:
    training = make_training(targets=1)
    y = training.y[:, 0]
    one, other = (MlpHead(**SMALL, random_state=seed).fit(training.X, y) for seed in (1, 2))
    assert (one.decision_function(training.X) != other.decision_function(training.X)).any()


def test_members_average_their_logits() -> None:
    training = make_training(targets=1)
    X, y = training.X, training.y[:, 0]
    alone = [
        MlpHead(**SMALL, random_state=seed, validation_share=0.0).fit(X, y).decision_function(X)
        for seed in (7, 8)
    ]
    both = MlpHead(**SMALL, random_state=7, members=2, validation_share=0.0).fit(X, y)
    assert both.decision_function(X) == pytest.approx(np.mean(alone, axis=0), abs=1e-4)


def test_training_stops_at_the_best_held_out_loss() -> None:
    training = make_training(n=120, signal=1.0, targets=1)
    X, y = training.X, training.y[:, 0]
    recipe = {"hidden": (64,), "learning_rate": 0.01, "epochs": 30, "minimum_steps": 150}
    stopped = MlpHead(**recipe).fit(X, y, groups=training.groups)
    kept, held_out = hold_out(training, 0, np.arange(120), share=0.1, seed=0)
    problems = [
        Problem(
            recipe=MlpHead(**recipe, stop_after=epoch).recipe,
            target=0,
            rows=kept,
            held_out=held_out[:0],
            scored=held_out,
            seed=0,
        )
        for epoch in range(stopped.n_iter_ + 4)
    ]
    losses = [
        log_loss(y[held_out], probabilities_from_scores(trained.scores))
        for trained in train(training, problems, device="cpu")
    ]
    assert 0 < stopped.n_iter_ < 27
    assert int(np.argmin(losses)) == stopped.n_iter_


def test_what_is_held_out_is_whole_groups_with_every_class() -> None:
    training = make_training(n=400, n_classes=3, targets=1)
    rows = np.arange(0, 400)[np.arange(400) % 5 > 0]
    kept, held_out = hold_out(training, 0, rows, share=0.1, seed=0)
    assert sorted([*kept, *held_out]) == rows.tolist()
    assert not set(training.groups[kept]) & set(training.groups[held_out])
    assert set(training.y[held_out, 0]) == set(training.y[kept, 0]) == {0, 1, 2}
    assert len(held_out) == pytest.approx(32, abs=6)


def test_a_class_of_one_patient_leaves_nothing_to_hold_out() -> None:
    training = make_training(n=40, targets=1)
    training.y[:] = 0
    training.y[:2] = 1
    kept, held_out = hold_out(training, 0, np.arange(40), share=0.1, seed=0)
    assert (len(kept), len(held_out)) == (40, 0)


def test_standardising_is_weighted_and_leaves_constant_columns_alone() -> None:
    generator = np.random.default_rng(0)
    X = (generator.normal(size=(500, 3)) * [1, 5, 0] + [1000, 0, 7.3]).astype(np.float32)
    weight = generator.random(500).astype(np.float32)
    mean, factor = normaliser(X, np.arange(len(X)), weight, "standardise")
    scaler = StandardScaler().fit(X.astype(np.float64), sample_weight=weight)
    assert mean == pytest.approx(scaler.mean_, rel=1e-5)
    assert factor[:2] == pytest.approx(1 / np.sqrt(scaler.var_[:2]), rel=1e-4)
    assert factor[2] == 1


def test_unit_vectors_do_not_know_their_length() -> None:
    training = make_training(targets=1)
    head = MlpHead(**SMALL, normalisation="l2").fit(training.X, training.y[:, 0])
    assert head.decision_function(training.X * 64).tobytes() == head.decision_function(training.X).tobytes()
    assert np.isfinite(head.decision_function(np.zeros((1, 8)))).all()


def test_read_only_vectors_are_not_written_to() -> None:
    training = make_training(targets=1)
    kept = training.X.copy()
    training.X.setflags(write=False)
    GRID.out_of_fold(training, training.groups % 3, seed=0)
    assert (kept == training.X).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": ()}, "hidden cannot be"),
        ({"hidden": (8, 0)}, "widths of 1 or more"),
        ({"dropout": 1.0}, "below 1"),
        ({"dropout": (0.1, 0.2, 0.3)}, "one for each hidden layer"),
        ({"normalisation": "robust"}, "one of none, standardise, l2"),
        ({"learning_rate": 0.0}, "learning_rate cannot be 0.0"),
        ({"schedule": "linear"}, "one of cosine, constant"),
        ({"validation_share": 0.9}, "validation_share must be from 0 to 0.5; found 0.9"),
        ({"members": 0}, "members must be 1 or more; found 0"),
        ({"stop_after": 99}, "stop_after cannot be 99; it must be from 0 to epochs"),
    ],
)
def test_a_wrong_parameter_is_named(wrong: dict[str, object], message: str) -> None:
    training = make_training(targets=1)
    with pytest.raises(UsageError, match=message):
        MlpHead(**SMALL | wrong).fit(training.X, training.y[:, 0])


def test_arrays_of_another_shape_are_refused() -> None:
    training = make_training(targets=1)
    arrays = MlpHead(**SMALL).fit(training.X, training.y[:, 0]).to_arrays()
    with pytest.raises(DataError, match=r"weight0 must be \(1, 8, 4\); found \(1, 8, 16\)"):
        MlpHead.from_arrays(arrays, SMALL | {"hidden": (4, 8)})


def test_the_default_is_the_network_published_for_mura() -> None:
    recipe: NetworkRecipe = MlpHead().recipe
    assert recipe.hidden == (512, 128)
    assert all(MlpHead(**point).recipe.hidden == (512, 128) for point in MlpHead.family().points)
