"""Binned pooling: a mean for each place, on principal axes, worked out again image by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import UsageError
from embedstore.view import PLACE, View
from heads.estimators.logistic import LogisticFamily
from heads.inputs.binned import Bins
from heads.inputs.input_ways import HeadInputs, all_inputs, named_inputs
from heads.runs.run_files import load_run, save_run
from tests.views import make_view, probed

GRID = LogisticFamily(strengths=(0.1, 1.0), normalisations=("standardise",))


def with_places(view: View, seed: int = 0) -> View:
    """Give each image one of three places, or none."""
    places = np.array(["axial 1/8", "sagittal 1/8", "sagittal 2/8", ""])
    drawn = places[np.random.default_rng(seed).choice(4, len(view.image_ids), p=[0.4, 0.3, 0.2, 0.1])]
    return replace(view, metadata={PLACE: drawn})


def by_hand(bins: Bins, view: View) -> np.ndarray:
    """Pool image by image: centred, on the axes, a mean for each place, then which places have an image."""
    count = len(bins.places)
    rows = []
    for unit in range(len(view.unit_ids)):
        means, there = [], []
        for place in bins.places:
            own = view.X[(view.unit_of_image == unit) & (view.metadata[PLACE] == place)].astype(np.float64)
            centred = (own - bins.projection.mean) @ bins.projection.axes.T
            means.append(centred.mean(0) if len(own) else np.zeros(len(bins.projection.axes)))
            there.append(bins.length if len(own) else 0.0)
        rows.append(np.concatenate([*means, there]) / np.sqrt(count))
    return np.array(rows)


def test_a_unit_is_the_mean_of_each_place_on_the_axes_and_says_which_places_it_has() -> None:
    view = with_places(make_view(patients=20))
    bins = Bins.learn(view.X, view.metadata, components=4)
    assert bins.places == ("axial 1/8", "sagittal 1/8", "sagittal 2/8")
    pooled = bins.pool(view.X, view.metadata, view.unit_of_image, n_units=len(view.unit_ids))
    assert pooled.dtype == np.float32
    assert pooled.shape == (len(view.unit_ids), 3 * 5)
    assert pooled == pytest.approx(by_hand(bins, view), abs=1e-5)
    placed = view.metadata[PLACE] != ""
    centred = view.X[placed] - view.X[placed].mean(0)
    axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)[2][:4]
    assert np.abs(np.sum(bins.projection.axes * axes, axis=1)) == pytest.approx(1.0, abs=1e-6)
    assert bins.length == pytest.approx(np.sqrt(np.mean(np.sum((centred @ axes.T) ** 2, axis=1))), rel=1e-5)


def test_a_units_bits_do_not_depend_on_the_others() -> None:
    view = with_places(make_view(patients=10))
    bins = Bins.learn(view.X, view.metadata)
    together = bins.pool(view.X, view.metadata, view.unit_of_image, n_units=len(view.unit_ids))
    own = view.unit_of_image == 7
    alone = bins.pool(view.X[own], {PLACE: view.metadata[PLACE][own]}, np.zeros(own.sum(), int), n_units=1)
    assert alone.tobytes() == together[7].tobytes()


def test_what_lies_in_one_place_is_learned_by_bins_and_not_by_the_mean() -> None:
    """The sign of one number counts on the left and its opposite on the right: in the mean they cancel."""
    generator = np.random.default_rng(3)
    base = make_view(patients=150, targets=("finding",), valid_share=0)
    units = len(base.unit_ids)
    unit_of_image = np.repeat(np.arange(units), 2)
    X = generator.normal(size=(2 * units, 6)).astype(np.float32)
    sign = np.where(base.y[:, 0] == 1, 1.0, -1.0)
    X[0::2, 0] += 2 * sign
    X[1::2, 0] -= 2 * sign
    view = replace(
        base,
        X=X,
        image_ids=np.arange(2 * units).astype(str),
        content_sha256=generator.integers(0, 256, (2 * units, 32)).astype(np.uint8),
        unit_of_image=unit_of_image,
        metadata={PLACE: np.tile(["left", "right"], units)},
        excluded={},
    )
    losses = {
        pooling: probed(view, pooling=pooling, folds=3, draws=2, family=GRID)
        .evaluation.overall["log_loss"]
        .value
        for pooling in ("binned", "mean-vector")
    }
    assert losses["binned"] < 0.15
    assert losses["mean-vector"] > 0.6


def test_a_run_with_bins_predicts_again_to_the_bit(tmp_path: Path) -> None:
    view = with_places(make_view(patients=60))
    view = replace(view, metadata={**view.metadata, "site": np.where(view.X[:, 0] > 0, "north", "south")})
    result = probed(view, pooling="binned", draws=5, folds=3, family=GRID)
    run = load_run(save_run(tmp_path / "run", result).folder)
    again = run.predict(view.X, view.unit_of_image, metadata=view.metadata)
    assert again[view.splits == "valid"].tobytes() == result.evaluated.probabilities.tobytes()
    assert run.document["inputs"]["chosen"] == {"pooling": "binned", "metadata": ["site"]}
    assert run.document["inputs"]["bins"]["places"] == ["axial 1/8", "sagittal 1/8", "sagittal 2/8"]
    assert run.predictor.columns == ("site", PLACE)
    with pytest.raises(UsageError, match="needs the column place of every image"):
        run.predict(view.X, view.unit_of_image, metadata={"site": view.metadata["site"]})


def test_bins_are_tried_where_places_are_known_and_refused_elsewhere() -> None:
    view = make_view(patients=20)
    ways = all_inputs(with_places(view))
    assert HeadInputs("binned") in ways
    assert HeadInputs("binned", (PLACE,)) not in ways
    assert HeadInputs("mean-vector", (PLACE,)) in ways
    assert named_inputs(with_places(view), "binned") == (HeadInputs("binned"),)
    with pytest.raises(UsageError, match=r"unknown: \['place'\]"):
        named_inputs(view, "binned")
    with pytest.raises(UsageError, match="1 to 64 places; found 0 in 3 images"):
        Bins.learn(np.eye(3, dtype=np.float32), {PLACE: np.array(["", "", ""])})
