"""Batched training against plain torch, one unit at a time, by torch's own optimiser and schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from heads.bags.network import AttentionNetwork
from heads.base import Training
from heads.estimators.attention import AttentionFamily, AttentionHead
from heads.folds import repeat_seed
from heads.testing import make_training

RECIPE = {
    "hidden": 3,
    "batch_size": 16,
    "epochs": 4,
    "minimum_steps": 0,
    "learning_rate": 0.02,
    "weight_decay": 0.1,
    "l2": 0.05,
    "validation_share": 0.0,
    "random_state": 5,
}


def make_bags(
    n_units: int = 40, *, n_classes: int = 2, dim: int = 6, targets: int = 1, seed: int = 0
) -> Training:
    """Make units of one to five images, rows in no order; the first image of a unit shows its class."""
    generator = np.random.default_rng(seed)
    unit_of_row = np.repeat(np.arange(n_units), generator.integers(1, 6, n_units))
    y = generator.integers(0, n_classes, (n_units, targets))
    X = generator.normal(size=(len(unit_of_row), dim))
    first = np.flatnonzero(np.diff(unit_of_row, prepend=-1))
    for target in range(targets):
        X[first, target] += 2.5 * y[:, target]
    order = generator.permutation(len(X))
    unit_of_row = unit_of_row[order]
    return Training(
        X=X[order].astype(np.float32),
        y=y[unit_of_row],
        sample_weight=np.ones((len(X), targets), np.float32),
        groups=unit_of_row // 2,
        n_classes=n_classes,
        unit_of_row=unit_of_row,
        n_units=n_units,
    )


def fitted(bags: Training, target: int = 0, **params: Any) -> AttentionHead:
    return AttentionHead(**RECIPE | params).fit(
        bags.X, bags.y[:, target], groups=bags.groups, unit_of_row=bags.unit_of_row
    )


def log_probabilities(score: torch.Tensor, bias: torch.Tensor, *, ordered: bool) -> torch.Tensor:
    """Return the log probabilities of the classes of one unit."""
    if not ordered:
        scores = score + bias
        return torch.log_softmax(torch.cat([torch.zeros(1), scores]) if len(scores) == 1 else scores, 0)
    thresholds = torch.cumsum(torch.cat([bias[:1], bias[1:].exp()]), 0)
    at_most = torch.cat([torch.zeros(1), torch.sigmoid(thresholds - score), torch.ones(1)])
    return torch.log(torch.diff(at_most))


def trained_by_torch(bags: Training, head: AttentionHead, start: AttentionNetwork) -> list[np.ndarray]:
    """Train from the same start, batches and dropout, by autograd through each unit's formula."""
    gate, gate_bias, query, value, bias = (
        torch.tensor(getattr(start, name)).requires_grad_(True)
        for name in ("gate", "gate_bias", "query", "value", "bias")
    )
    units = [
        torch.tensor(start.features.exact(bags.X[bags.unit_of_row == unit]), dtype=torch.float32)
        for unit in range(bags.n_units)
    ]
    y = bags.y[bags.row_of_unit, 0]
    optimiser = torch.optim.AdamW(
        [
            {"params": [gate, query], "weight_decay": head.weight_decay},
            {"params": [gate_bias, value, bias], "weight_decay": 0.0},
        ],
        lr=head.learning_rate,
    )
    steps = -(-bags.n_units // head.batch_size) * head.epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    order, drops = np.random.default_rng(5), torch.Generator().manual_seed(5)
    for _ in range(head.epochs):
        shuffled = order.permutation(bags.n_units)
        for batch in np.split(shuffled, range(head.batch_size, bags.n_units, head.batch_size)):
            kept = torch.ones(len(batch), len(gate))
            if head.dropout:
                kept = (torch.rand(kept.shape, generator=drops) >= head.dropout) / (1 - head.dropout)
            losses = []
            for unit, factors in zip(batch.tolist(), kept, strict=True):
                z = units[unit] * factors
                opened = z @ gate + gate_bias
                shares = torch.softmax(
                    (torch.tanh(opened[:, : head.hidden]) * torch.sigmoid(opened[:, head.hidden :])) @ query,
                    0,
                )
                score = torch.einsum("nq,nw,wqo->o", shares, z, value)
                losses.append(-log_probabilities(score, bias, ordered=start.ordered)[y[unit]])
            optimiser.zero_grad()
            (torch.stack(losses).mean() + head.l2 * head.queries / 2 * value.square().sum()).backward()
            optimiser.step()
            schedule.step()
    return [tensor.detach().numpy() for tensor in (gate, gate_bias, query, value, bias)]


@pytest.mark.parametrize(
    ("n_classes", "params"),
    [
        (2, {"dropout": 0.0}),
        (3, {"dropout": 0.3, "queries": 2}),
        (4, {"dropout": 0.0, "ordered": True, "layer_norm": False}),
    ],
)
def test_weights_after_some_steps_are_those_of_plain_torch(n_classes: int, params: dict[str, Any]) -> None:
    bags = make_bags(n_classes=n_classes)
    head, start = fitted(bags, **params), fitted(bags, stop_after=0, **params)
    expected = trained_by_torch(bags, head, start.network_)
    names = ("gate", "gate_bias", "query", "value", "bias")
    for name, wanted in zip(names, expected, strict=True):
        found = getattr(head.network_, name)
        assert found == pytest.approx(wanted, abs=5e-4), name
        assert np.abs(found - getattr(start.network_, name)).max() > 0.01, name


@pytest.mark.parametrize("components", [5, 2])
def test_few_axes_do_not_change_where_training_starts(components: int) -> None:
    """Mean pooling's regression is of all columns; only the queries' small first weights depend on the axes."""
    bags = make_bags(dim=6, n_classes=3)
    whole, along = (
        fitted(bags, stop_after=0, queries=2, components=count).network_ for count in (6, components)
    )
    assert along.value == pytest.approx(whole.value, abs=1e-4)
    assert along.bias == pytest.approx(whole.bias, abs=1e-4)
    trained = fitted(bags, queries=2, components=components).network_
    moved = (trained.value - whole.value).reshape(6, -1)
    assert np.abs(moved).max() > 0.01
    assert np.linalg.matrix_rank(moved, tol=1e-4) <= components


def test_networks_of_many_folds_are_those_trained_alone() -> None:
    bags = make_bags(60, targets=2)
    y = bags.y.copy()
    unlabelled = np.isin(bags.unit_of_row, [4, 5, 20])
    y[unlabelled, 1] = -1
    bags = type(bags)(**{**vars(bags), "y": y})
    params = {**RECIPE, "validation_share": 0.2, "dropout": 0.0, "patience": 2, "components": 3}
    params.pop("random_state")
    grid = AttentionFamily((params,))
    folds = np.stack([bags.groups % 3, (bags.groups // 3) % 3])
    found = grid.cross_fit(bags, folds, [params, {**params, "l2": 0.5}], seed=3)
    for repeat in range(2):
        for fold in range(3):
            inside = folds[repeat] == fold
            head = found.heads[0][3 * repeat + fold]
            alone = AttentionHead(**params, random_state=repeat_seed(3, repeat, fold)).fit(
                bags.X[~inside],
                bags.y[~inside, 0],
                groups=bags.groups[~inside],
                unit_of_row=bags.unit_of_row[~inside],
            )
            assert isinstance(head, AttentionHead)
            assert head.n_iter_ == alone.n_iter_
            scores = head.unit_scores(bags.X, bags.unit_of_row, 60)
            assert scores == pytest.approx(alone.unit_scores(bags.X, bags.unit_of_row, 60), abs=5e-3)
            scored = np.unique(bags.unit_of_row[inside])
            assert found.scores[repeat, scored, 0] == pytest.approx(scores[scored], abs=1e-4)
    assert {head.l2 for head in found.heads[1]} == {0.5}


def test_a_fold_of_one_huge_unit_trains_beside_small_ones() -> None:
    """A batch with a unit of 5,000 images is worked on in parts, which add up to the same step."""
    bags = make_bags(20)
    many = np.concatenate([np.arange(len(bags.X)), np.full(5000, np.flatnonzero(bags.unit_of_row == 7)[0])])
    wide = Training(
        **{name: getattr(bags, name)[many] for name in ("X", "y", "sample_weight", "groups", "unit_of_row")},
        n_classes=2,
        n_units=20,
    )
    head = fitted(wide, dropout=0.0, components=4, layer_norm=False)
    own = wide.unit_of_row == 7
    (score,) = head.unit_scores(wide.X[own], np.zeros(own.sum(), np.int64), 1)
    assert np.isfinite(score).all()
    weights = head.image_weights(wide.X[own], np.zeros(own.sum(), np.int64), 1)
    assert weights.sum() == pytest.approx(1)
    copies = weights[-5000:]
    assert copies == pytest.approx(copies[0])


def test_folds_and_networks_that_stop_early_do_not_hold_up_or_move_others() -> None:
    training = make_training(targets=2)
    params = [{**RECIPE, "stop_after": stop_after, "dropout": 0.2, "epochs": 6} for stop_after in (2, 5)]
    for each in params:
        each.pop("random_state")
    heads = AttentionFamily((params[0],)).refit(training, params, seed=3)
    for target, head in enumerate(heads):
        alone = AttentionHead(**params[target], random_state=3).fit(training.X, training.y[:, target])
        assert head.n_iter_ == alone.n_iter_ == params[target]["stop_after"]
        assert head.decision_function(training.X) == pytest.approx(
            alone.decision_function(training.X), abs=1e-3
        )
