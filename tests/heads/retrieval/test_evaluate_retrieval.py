"""Retrieval of labelled units, against loops over all pairs; hubs by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from embedstore.errors import DataError
from embedstore.view import MISSING
from heads.estimators.mlp import MlpHead
from heads.retrieval.evaluate_retrieval import LabelledUnits, RetrievalOptions, evaluate_retrieval
from heads.retrieval.hubness import hubness


def units_of(seed: int, *, ordered: bool = False) -> LabelledUnits:
    """Thirty units of 1 to 3 images, of ten patients, with two targets of three classes and missing labels."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(30), rng.integers(1, 4, 30))
    y = rng.integers(0, 3, (30, 2))
    y[rng.random((30, 2)) < 0.2] = MISSING
    X = rng.normal(size=(len(owners), 6)) + y[owners][:, :1]
    X[owners == 4] = 0
    return LabelledUnits(
        X=X,
        unit_of_image=owners,
        unit_ids=np.array([f"u{unit}" for unit in range(30)]),
        patients=np.array([f"p{unit % 10}" for unit in range(30)]),
        y=y,
        targets=("a", "b"),
        classes=("none", "some", "much"),
        ordered=ordered,
    )


@pytest.mark.parametrize("ordered", [False, True])
def test_metrics_are_the_means_of_scikit_learns_over_all_pairs_of_query_and_target(ordered: bool) -> None:
    units = units_of(0, ordered=ordered)
    found = evaluate_retrieval(units, RetrievalOptions(k=5, draws=50))
    lengths = np.linalg.norm(units.X, axis=1, keepdims=True)
    rows = units.X / np.where(lengths > 0, lengths, 1)
    images = [rows[units.unit_of_image == unit] for unit in range(30)]
    values: dict[tuple[int, int], tuple[float, float, float, float]] = {}
    for query in set(range(30)) - {4}:
        others = [unit for unit in range(30) if units.patients[unit] != units.patients[query] and unit != 4]
        scores = np.array([max((a @ b) for a in images[query] for b in images[unit]) for unit in others])
        for target in range(2):
            own = units.y[query, target]
            labels = units.y[others, target]
            known = labels != MISSING
            if own == MISSING:
                continue
            same, score = labels[known] == own, scores[known]
            gains = 1 - np.abs(labels[known] - own) / 2 if ordered else same.astype(float)
            values[query, target] = (
                same[np.argsort(-score)[:5]].mean(),
                average_precision_score(same, score),
                ndcg_score(gains[None], score[None], k=5),
                same.mean(),
            )
    table = np.array(list(values.values()))
    for column, name in enumerate(("precision", "map", "ndcg")):
        assert found.metrics[name].found.value == pytest.approx(table[:, column].mean(), abs=1e-9)
    precision = found.metrics["precision"]
    assert precision.chance.value == pytest.approx(table[:, 3].mean(), abs=1e-9)
    assert precision.lift.value == pytest.approx(precision.found.value - precision.chance.value, abs=1e-12)
    assert precision.found.low < precision.found.value < precision.found.high
    of_b = np.array([row for (_, target), row in values.items() if target == 1])
    assert found.by_target["b"]["map"].found.value == pytest.approx(of_b[:, 1].mean(), abs=1e-9)
    of_much = np.array([row for (query, target), row in values.items() if units.y[query, target] == 2])
    assert found.by_class["much"]["ndcg"].found.value == pytest.approx(of_much[:, 2].mean(), abs=1e-9)
    assert found.by_class["much"]["map"].found.n == len(of_much)


def test_who_asks_can_be_chosen_and_drawn_and_the_interval_is_of_their_patients() -> None:
    units = units_of(1)
    asking = np.arange(30) % 10 < 4
    found = evaluate_retrieval(units, RetrievalOptions(k=3, draws=20), asking=asking)
    labelled = (units.y != MISSING).any(axis=1) & (np.arange(30) != 4)
    assert (found.queries, found.patients) == (sum(asking & labelled), 4)
    few = evaluate_retrieval(units, RetrievalOptions(k=3, draws=20, queries=7, seed=3))
    assert few.queries == 7
    alone = LabelledUnits(**{**vars(units), "patients": np.full(30, "p")})
    with pytest.raises(DataError, match=r"labelled units of two patients or more; found .* and 1 patients"):
        evaluate_retrieval(alone, RetrievalOptions())


def test_a_unit_that_everybody_finds_is_a_hub() -> None:
    names = np.array(["a", "b", "c", "d"])
    # a is found by three of four, b by three, c by two; d by none.
    found = hubness(np.array([[0, 1], [0, 2], [0, 1], [1, 2]]), names)
    assert (found.largest, found.largest_share, found.never) == ("a", 0.75, 0.25)
    # Counts 3, 3, 2, 0 about their mean 2: 1, 1, 0, -2.
    assert found.skewness == pytest.approx(((1 + 1 - 8) / 4) / ((1 + 1 + 4) / 4) ** 1.5)
    even = hubness(np.array([[1], [0]]), names[:2])
    assert np.isnan(even.skewness)


def test_the_hidden_vectors_of_a_network_are_its_last_hidden_layer() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 5)).astype(np.float32)
    head = MlpHead((7, 3), members=2, epochs=3).fit(X, X[:, 0] > 0)
    expected = []
    for network in head.networks_:
        rows = (X.astype(np.float64) - network.mean) * network.factor
        for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
            rows = np.maximum(rows @ weight.astype(np.float64) + bias, 0)
        expected.append(rows)
    hidden = head.hidden_vectors(X)
    assert hidden.shape == (40, 6)
    np.testing.assert_allclose(hidden, np.concatenate(expected, axis=1), atol=1e-6)
