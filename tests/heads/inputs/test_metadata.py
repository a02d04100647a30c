"""Metadata beside the vectors: levels, the size of a block, values never seen, columns that a head must not see."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedstore.errors import UsageError
from heads.inputs.input_ways import head_rows
from heads.inputs.metadata import MAX_LEVELS, MetadataBlocks, metadata_from_json, require_metadata_columns
from tests.views import make_view

X = np.array([[3, 4], [0, 5]], np.float32)
ANATOMY = {"anatomy": np.array(["wrist", "hand"])}


def test_each_level_has_a_place_and_the_number_there_is_the_length_of_the_vectors() -> None:
    blocks = MetadataBlocks.learn(X, ANATOMY)
    assert blocks.levels == (("hand", "wrist"),)
    assert blocks.append(X, ANATOMY).tolist() == [[3, 4, 0, 5], [0, 5, 5, 0]]


def test_the_length_is_the_root_mean_square() -> None:
    # Lengths 1 and 7: the root of (1 + 49) / 2.
    assert MetadataBlocks.learn(np.array([[1, 0], [0, 7]], np.float32), ANATOMY).scale == pytest.approx(5)


def test_vectors_that_are_all_zero_do_not_silence_their_metadata() -> None:
    zero = np.zeros((2, 1), np.float32)
    assert MetadataBlocks.learn(zero, ANATOMY).append(zero, ANATOMY).tolist() == [[0, 0, 1], [0, 1, 0]]


def test_several_columns_stand_side_by_side_and_unknown_is_a_level_where_it_was_seen() -> None:
    metadata = {"side": np.array(["", "left"]), **ANATOMY}
    blocks = MetadataBlocks.learn(X, metadata)
    assert blocks.columns == ("side", "anatomy")
    assert blocks.levels == (("", "left"), ("hand", "wrist"))
    assert blocks.append(X, metadata)[:, 2:].tolist() == [[5, 0, 0, 5], [0, 5, 5, 0]]


@pytest.mark.parametrize("value", ["ankle", "zeh", "", "Hand"])
def test_a_value_that_was_never_seen_leaves_its_block_empty_and_is_named(value: str) -> None:
    blocks = MetadataBlocks.learn(X, ANATOMY)
    cells = {"anatomy": np.array([value, "hand"])}
    assert blocks.append(X, cells).tolist() == [[3, 4, 0, 0], [0, 5, 5, 0]]
    assert blocks.unseen(cells) == {"anatomy": [value]}
    assert blocks.unseen(ANATOMY) == {}


def test_images_of_the_same_level_are_nearer_by_half_the_cosine() -> None:
    one, other = np.array([[1, 0]], np.float32), np.array([[0.6, 0.8]], np.float32)
    blocks = MetadataBlocks(("anatomy",), (("hand", "wrist"),), 1.0)

    def cosine(level: str) -> float:
        a = blocks.append(one, {"anatomy": np.array(["hand"])})[0]
        b = blocks.append(other, {"anatomy": np.array([level])})[0]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    # The images' own cosine is 0.6, and metadata weighs as much as they do.
    assert cosine("hand") == pytest.approx((0.6 + 1) / 2)
    assert cosine("wrist") == pytest.approx((0.6 + 0) / 2)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean-probability", [[0, 3], [0, 3], [3, 0], [3, 0]]),
        # Study 0 has a T1 and two T2 images: a third and two thirds of 3.
        ("mean-vector", [[1, 2], [3, 0]]),
        ("max-vector", [[3, 3], [3, 0]]),
    ],
)
def test_a_study_has_the_shares_of_its_images_levels(pooling: str, expected: list[list[float]]) -> None:
    metadata = {"series": np.array(["T2", "T2", "T1", "T1"])}
    vectors = np.full((4, 1), 3, np.float32)
    units = np.array([0, 0, 0, 1])
    rows, _ = head_rows(
        vectors,
        metadata,
        units,
        n_units=2,
        pooling=pooling,
        blocks=MetadataBlocks.learn(vectors, metadata),
    )
    assert rows[:, 1:].tolist() == expected


def test_blocks_survive_json_bit_for_bit() -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    blocks = MetadataBlocks.learn(vectors, ANATOMY)
    assert metadata_from_json(json.loads(json.dumps(blocks.to_json()))) == blocks


def test_a_missing_column_is_named_with_its_levels() -> None:
    blocks = MetadataBlocks.learn(X, ANATOMY)
    for given in (None, {}, {"side": np.array(["left", "left"])}):
        with pytest.raises(UsageError, match=r"needs it of every image: anatomy \(known: hand, wrist\)"):
            blocks.append(X, given)


def test_a_column_of_nearly_as_many_values_as_images_is_refused() -> None:
    vectors = np.ones((MAX_LEVELS + 1, 1), np.float32)
    cells = np.array([f"{row:03d}" for row in range(MAX_LEVELS + 1)])
    assert len(MetadataBlocks.learn(vectors[1:], {"device": cells[1:]}).levels[0]) == MAX_LEVELS
    with pytest.raises(
        UsageError, match=r"`with_columns` device: 65 different values in 65 images .*64 at most"
    ):
        MetadataBlocks.learn(vectors, {"device": cells})


@pytest.mark.parametrize(
    "column", ["image_id", "path", "frame", "patient_id", "study_id", "series_id", "split"]
)
def test_a_column_that_says_which_image_it_is_is_refused(column: str) -> None:
    with pytest.raises(UsageError, match=f"`with_columns` {column}: {column} says which image this is"):
        require_metadata_columns([column])


@pytest.mark.parametrize("column", ["finding", "Phantom", "abnormal", "LABEL", "diagnosis"])
def test_a_column_that_by_its_name_holds_the_answer_is_refused(column: str) -> None:
    with pytest.raises(UsageError, match=f"`with_columns` {column}: by its name the column holds the answer"):
        require_metadata_columns(["modality", "anatomy", column], make_view(patients=4).task)


def test_a_column_is_named_once() -> None:
    require_metadata_columns(["anatomy", "modality"])
    with pytest.raises(UsageError, match="`with_columns` anatomy is given twice"):
        require_metadata_columns(["anatomy", "anatomy"])
