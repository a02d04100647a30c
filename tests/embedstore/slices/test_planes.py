"""The geometry of slices in a manifest: the same numbers come back."""

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import DataError
from embedstore.slices.planes import COLUMNS, numbers_as_text, planes_of_table


def row(**changes):
    cells = {
        "image_orientation": r"0.034899\0.999391\0\0\0\-1",
        "image_position": r"-4.25\1e-05\9",
        "row_spacing_mm": 0.5,
        "column_spacing_mm": 0.25,
        "image_rows": 384,
        "image_columns": 320,
    }
    return {name: pa.array([cell], COLUMNS[name]) for name, cell in (cells | changes).items()}


def test_numbers_are_those_of_the_cells():
    planes = planes_of_table(pa.table(row()), source="a store")
    assert planes.orientations.tolist() == [[0.034899, 0.999391, 0, 0, 0, -1]]
    assert planes.positions_mm.tolist() == [[-4.25, 1e-5, 9]]
    assert planes.spacings_mm.tolist() == [[0.5, 0.25]]
    assert planes.shapes_px.tolist() == [[384, 320]]
    assert planes.known.tolist() == [True]


def test_text_gives_the_same_float64_back():
    numbers = np.random.default_rng(0).standard_normal((50, 3)) * 10.0 ** np.arange(-3, 47)[:, None]
    texts = numbers_as_text(numbers)
    assert [[float(part) for part in text.split("\\")] for text in texts] == numbers.tolist()


@pytest.mark.parametrize("name", ["image_orientation", "image_position", "row_spacing_mm", "image_rows"])
def test_an_empty_cell_is_an_unknown_plane(name):
    table = pa.concat_tables([pa.table(row()), pa.table(row(**{name: None}))])
    assert planes_of_table(table, source="a store").known.tolist() == [True, False]


def test_slices_are_taken_by_number_and_by_mask():
    table = pa.concat_tables([pa.table(row()), pa.table(row(image_position=r"1\2\3"))])
    planes = planes_of_table(table, source="a store")
    assert planes.take([1, 0]).positions_mm[0].tolist() == [1, 2, 3]
    assert planes.take(np.array([False, True])).positions_mm.tolist() == [[1, 2, 3]]
    assert len(planes.take([])) == 0


@pytest.mark.parametrize("text", ["1\\2", "a\\b\\c", ""])
def test_a_cell_that_holds_something_else_is_named(text):
    with pytest.raises(DataError, match="a store: image_position must hold 3 numbers"):
        planes_of_table(pa.table(row(image_position=text)), source="a store")
