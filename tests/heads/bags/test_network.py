"""The attention network against its formula, written out unit by unit."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.errors import UsageError
from heads.bags.features import Features
from heads.bags.network import AttentionNetwork, ordered_scores, unit_softmax

DIM, HIDDEN, QUERIES, POSITIONS = 5, 3, 2, 2


def make_network(*, outputs: int = 3, layer_norm: bool = True, ordered: bool = False) -> AttentionNetwork:
    generator = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return generator.normal(size=shape).astype(np.float32)

    features = Features(
        mean=drawn(DIM),
        factor=np.exp(drawn(DIM)),
        position_factor=np.array([0.5], np.float32),
        positions=POSITIONS,
        layer_norm=layer_norm,
    )
    width = DIM + POSITIONS
    return AttentionNetwork(
        features=features,
        gate=drawn(width, 2 * HIDDEN),
        gate_bias=drawn(2 * HIDDEN),
        query=drawn(HIDDEN, QUERIES),
        value=drawn(width, QUERIES, 1 if ordered else outputs),
        bias=drawn(outputs - 1 if ordered else outputs),
        ordered=ordered,
    )


def written_out(network: AttentionNetwork, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of a unit and the weights of its images, by the formula of the docstring."""
    own = network.features
    z = []
    for image in images.astype(np.float64):
        vector = (image[:DIM] - own.mean) * own.factor
        if own.layer_norm:
            vector = (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5)
        z.append(np.concatenate([vector, image[DIM:] * own.position_factor[0]]))
    tanh, sigmoid = network.gate[:, :HIDDEN], network.gate[:, HIDDEN:]
    logits = np.array(
        [
            network.query.T
            @ (
                np.tanh(tanh.T @ each + network.gate_bias[:HIDDEN])
                / (1 + np.exp(-(sigmoid.T @ each) - network.gate_bias[HIDDEN:]))
            )
            for each in z
        ]
    )
    shares = np.exp(logits) / np.exp(logits).sum(axis=0)
    score = network.bias.astype(np.float64)
    for query in range(QUERIES):
        mean = sum(share * each for share, each in zip(shares[:, query], z, strict=True))
        score = score + network.value[:, query].T @ mean
    return score, shares.mean(axis=1)


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("outputs", [1, 3])
def test_scores_and_weights_are_those_of_the_formula(outputs: int, layer_norm: bool) -> None:
    network = make_network(outputs=outputs, layer_norm=layer_norm)
    X = np.random.default_rng(1).normal(size=(9, DIM + POSITIONS)).astype(np.float32)
    units = np.array([2, 0, 1, 0, 2, 0, 2, 1, 0])
    scores, weights = network.scores(X, units, 3), network.image_weights(X, units, 3)
    for unit in range(3):
        score, shares = written_out(network, X[units == unit])
        assert scores[unit] == pytest.approx(score, rel=1e-6, abs=1e-6)
        assert weights[units == unit] == pytest.approx(shares, rel=1e-6)


def test_a_unit_has_the_same_bits_in_any_order_and_company() -> None:
    network = make_network()
    generator = np.random.default_rng(2)
    X = generator.normal(size=(300, DIM + POSITIONS)).astype(np.float32)
    units = generator.integers(0, 7, 300)
    whole, weights = network.scores(X, units, 7), network.image_weights(X, units, 7)
    own = np.flatnonzero(units == 3)
    for order in (own, own[::-1], generator.permutation(own)):
        alone = np.zeros(len(order), np.int64)
        assert network.scores(X[order], alone, 1).tobytes() == whole[3:4].tobytes()
        assert network.image_weights(X[order], alone, 1).tobytes() == weights[order].tobytes()


def test_a_unit_of_5000_images_is_scored_as_the_formula_says() -> None:
    network = make_network()
    X = np.random.default_rng(3).normal(size=(5001, DIM + POSITIONS)).astype(np.float32)
    units = np.repeat([0, 1], [5000, 1])
    score, shares = written_out(network, X[:5000])
    assert network.scores(X, units, 2)[0] == pytest.approx(score, rel=1e-6, abs=1e-6)
    assert network.image_weights(X, units, 2)[:5000] == pytest.approx(shares, rel=1e-6)


def test_weights_of_extreme_logits_are_those_of_the_largest() -> None:
    logits = np.array([[1e4], [1e4], [-1e4], [-1e4]])
    assert unit_softmax(logits, np.array([0, 0, 0, 1]), 2)[:, 0].tolist() == [0.5, 0.5, 0.0, 1.0]


@pytest.mark.parametrize(("units", "named"), [([0, 0, 2], "1 have none"), ([0, 1, 3], "largest unit is 3")])
def test_a_unit_without_an_image_is_refused(units: list[int], named: str) -> None:
    X = np.zeros((3, DIM + POSITIONS), np.float32)
    for answer in (make_network().scores, make_network().image_weights):
        with pytest.raises(UsageError, match=f"each of 3 units needs an image; .*{named}"):
            answer(X, np.array(units), 3)


def test_ordered_scores_are_differences_of_cumulative_probabilities() -> None:
    bias = np.array([-0.5, np.log(1.5), np.log(0.25)], np.float32)  # thresholds -0.5, 1, 1.25
    scores = np.array([0.5, -40.0, 40.0])
    found = np.exp(ordered_scores(scores, bias))
    assert found.sum(axis=1) == pytest.approx(1)

    def sigmoid(x: float) -> float:
        return 1 / (1 + np.exp(-x))

    assert found[0] == pytest.approx(
        [
            sigmoid(-1.0),
            sigmoid(0.5) - sigmoid(-1.0),
            sigmoid(0.75) - sigmoid(0.5),
            1 - sigmoid(0.75),
        ],
        rel=1e-6,
    )
    assert (found[1].argmax(), found[2].argmax()) == (0, 3)
    assert np.isfinite(ordered_scores(scores, bias)).all()
