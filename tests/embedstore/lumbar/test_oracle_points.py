"""The readers' points of the phantom, held against the spine that was drawn, and tables that are wrong."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from embedstore.datasets.rsna_lumbar import RsnaLumbar
from embedstore.errors import DataError
from embedstore.lumbar.level_points import STRUCTURES
from embedstore.lumbar.levels import CONDITIONS, LEVELS
from embedstore.lumbar.oracle_points import oracle_points
from embedstore.phantoms import lumbar

STUDIES = 3


@dataclass(frozen=True)
class Holder:
    """A store of which only the tables are there."""

    table: pa.Table
    coordinates: pa.Table

    def further_table(self, name):
        return {"coordinates": self.coordinates}[name]


@pytest.fixture(scope="module")
def holder(tmp_path_factory):
    root = lumbar.write_phantom_lumbar(tmp_path_factory.mktemp("lumbar"), studies=STUDIES, seed=0).root
    collection = RsnaLumbar().read(root)
    return Holder(collection.manifest.table, collection.tables["coordinates"])


def drawn_at(spine, structure, number):
    side = -1 if structure.startswith("right") else 1
    if structure == "canal":
        return spine.canal_point_mm(number)
    place = spine.foramen_point_mm if structure.endswith("foramen") else spine.recess_point_mm
    return place(number, side)


def changed(holder, **columns):
    """Return the holder with cells of its first coordinates replaced."""
    table = holder.coordinates
    for name, value in columns.items():
        cells = table.column(name).to_pylist()
        cells[0] = value
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(cells, table.schema.field(name).type))
    return Holder(holder.table, table)


def test_points_lie_where_the_spine_was_drawn(holder):
    points = oracle_points(holder)
    assert points.origin == "oracle"
    assert np.isnan(points.confidence).all()
    assert not points.unsure.any()
    for index, study in enumerate(points.studies):
        planned = lumbar._plan_study(index, 0, "train")
        assert study == str(planned.study_id)
        found = points.of_study(study)
        assert len(found) == 25 - planned.missing.sum()
        for structure, level, xyz in zip(found.structures, found.levels, found.xyz_mm, strict=True):
            true = drawn_at(planned.spine, structure, LEVELS.index(level))
            # The point of the nearest slice: sagittal slices lie 5.2 mm apart, axial ones 4 mm at the disc.
            apart = np.abs(xyz - true)
            across = 2 if structure.endswith("subarticular") else 0
            assert apart[across] <= 2.7, (structure, level)
            assert np.delete(apart, across).max() <= 0.7, (structure, level)


def test_left_structures_lie_on_the_patients_left(holder):
    points = oracle_points(holder)
    for side, sign in (("left", 1), ("right", -1)):
        chosen = np.array([structure.startswith(side) for structure in points.structures])
        assert chosen.sum() > 20
        assert (np.sign(points.xyz_mm[chosen, 0]) == sign).all()


def test_conditions_and_structures_are_in_one_order(holder):
    cells = holder.coordinates.to_pylist()[:25]
    assert {cell["condition"].lower().replace(" ", "_") for cell in cells} == set(CONDITIONS)
    assert set(oracle_points(holder).structures) == set(STRUCTURES)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"image_id": None}, "image not in the store"),
        ({"image_id": "train_images/1/2/3.dcm"}, "image not in the store"),
        ({"x": 191.51}, "outside the image"),
        ({"y": -0.51}, "outside the image"),
    ],
)
def test_points_without_a_place_are_left_out_and_counted(holder, columns, reason):
    points = oracle_points(changed(holder, **columns))
    assert dict(points.left_out) == {reason: 1}
    assert len(points) == len(oracle_points(holder)) - 1


def test_the_border_of_the_image_is_inside(holder):
    points = oracle_points(changed(holder, x=191.5, y=-0.5))
    assert not points.left_out


def test_slices_without_orientation_are_counted(holder):
    image = holder.coordinates.column("image_id")[0].as_py()
    table = holder.table
    cells = [
        None if image_id == image else cell
        for image_id, cell in zip(
            table.column("image_id").to_pylist(), table.column("image_orientation").to_pylist(), strict=True
        )
    ]
    at = table.column_names.index("image_orientation")
    holed = Holder(
        table.set_column(at, "image_orientation", pa.array(cells, pa.string())), holder.coordinates
    )
    marked = holder.coordinates.column("image_id").to_pylist().count(image)
    assert dict(oracle_points(holed).left_out) == {"image without usable geometry": marked}


def test_a_structure_that_is_given_twice_counts_once(holder):
    doubled = Holder(holder.table, pa.concat_tables([holder.coordinates, holder.coordinates.slice(0, 2)]))
    assert dict(oracle_points(doubled).left_out) == {"given twice": 2}
    assert len(oracle_points(doubled)) == len(oracle_points(holder))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"condition": "Scoliosis"},
            r"line 2, image '.+': condition must be one of .* found 'Scoliosis'. Mend",
        ),
        ({"level": "L6/S1"}, r"line 2, image '.+': level must be one of .* found 'L6/S1'. Mend"),
        ({"level": None}, "found None"),
    ],
)
def test_unknown_words_are_refused(holder, columns, message):
    with pytest.raises(DataError, match=message):
        oracle_points(changed(holder, **columns))


def test_a_manifest_from_before_planes_were_kept_says_what_to_do(holder):
    old = Holder(holder.table.drop_columns(["image_orientation"]), holder.coordinates)
    with pytest.raises(DataError, match=r"'image_orientation' is absent.*extract"):
        oracle_points(old)
