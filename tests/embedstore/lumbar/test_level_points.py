"""Level points: a table of millimetres that goes to a file and back, and refuses what cannot be."""

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import DataError, UsageError
from embedstore.files import parquet_bytes
from embedstore.lumbar.level_points import LevelPoints, points_from_rows, require_localised


def points(**changes):
    columns = {
        "study_ids": np.array(["7", "7", "9"], object),
        "structures": np.array(["canal", "left_foramen", "canal"], object),
        "levels": np.array(["l1_l2", "l1_l2", "l5_l6"], object),
        "xyz_mm": np.array([[0.0, 1.5, -2.0], [19.0, 0.0, 3.0], [1.0, 2.0, 1 / 3]]),
        "series_ids": np.array(["7/1", "", "9/1"], object),
        "confidence": np.array([0.9, 0.9, 0.25]),
        "unsure": np.array([False, False, True]),
        "origin": "localised",
        "digest": "ab" * 32,
    }
    return LevelPoints(**(columns | changes))


def test_points_come_back_from_their_file_bit_for_bit(tmp_path):
    points(left_out={"outside the image": 2}).save(tmp_path / "levels.parquet")
    found = LevelPoints.load(tmp_path / "levels.parquet")
    for name in ("study_ids", "structures", "levels", "xyz_mm", "series_ids", "confidence", "unsure"):
        assert getattr(found, name).tolist() == getattr(points(), name).tolist(), name
    assert (found.origin, found.digest, dict(found.left_out)) == (
        "localised",
        "ab" * 32,
        {"outside the image": 2},
    )


def test_oracle_points_keep_a_confidence_that_is_no_number(tmp_path):
    points(confidence=np.full(3, np.nan), origin="oracle").save(tmp_path / "levels.parquet")
    assert np.isnan(LevelPoints.load(tmp_path / "levels.parquet").confidence).all()


def test_points_of_one_study(tmp_path):
    assert points().studies == ["7", "9"]
    assert points().of_study("7").structures.tolist() == ["canal", "left_foramen"]
    assert len(points().of_study("8")) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structures": np.array(["canal", "disc", "canal"], object)}, "structure must be one of .* 'disc'"),
        ({"levels": np.array(["l1_l2", "l1_l2", "L5/S1"], object)}, "level must be one of .* 'L5/S1'"),
        ({"xyz_mm": np.full((3, 3), np.inf)}, "finite number"),
        ({"xyz_mm": np.zeros((2, 3))}, r"xyz_mm must have shape \(3, 3\); found \(2, 3\)"),
        ({"confidence": np.array([0.5, 1.5, 0.5])}, "from 0 to 1; found 1.5"),
        ({"origin": "guessed"}, "origin must be one of oracle, localised"),
        ({"structures": np.array(["canal", "canal", "canal"], object)}, "study '7' has canal at l1_l2 twice"),
    ],
)
def test_points_that_cannot_be_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        points(**changes)


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(pa.table({"x": [1]})))
    (tmp_path / "b.parquet").write_text("x,y")
    for name, message in (("a", "no table of level points"), ("b", "Parquet"), ("c", "no such file")):
        with pytest.raises(DataError, match=message):
            LevelPoints.load(tmp_path / f"{name}.parquet")


def test_an_empty_cell_is_refused():
    table = points().to_table()
    holes = table.set_column(0, table.schema.field(0), pa.array(["7", None, "9"]))
    with pytest.raises(DataError, match="'study_id' has empty cells"):
        LevelPoints.from_table(holes)


def test_oracle_points_are_refused_where_a_new_study_is_answered():
    require_localised(points(), holder="runs/levels")
    with pytest.raises(UsageError, match="runs/levels holds oracle points"):
        require_localised(points(origin="oracle"), holder="runs/levels")


def test_points_without_a_digest_are_named_by_what_they_are():
    row = {
        "study_id": "7",
        "structure": "canal",
        "level": "l1_l2",
        "xyz_mm": (0.0, 1.0, 2.0),
        "series_id": "7/1",
        "confidence": np.nan,
        "unsure": False,
    }
    digests = [
        points_from_rows([row | {"xyz_mm": (x, 1.0, 2.0)}], origin="oracle", digest=None, left_out={}).digest
        for x in (0.0, 0.0, 0.5)
    ]
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 64
