"""Token grids of a store by study: the right tokens at the right place, in any order, and what is left out."""

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import DataError, UsageError
from embedstore.lumbar.oracle_points import oracle_points
from embedstore.queries import store_grids
from embedstore.queries.store_grids import StoreGrids, grids_of_study, sagittal_rows
from embedstore.store.reader import VALID, open_store
from tests.heads.localising.spines import source_of
from tests.spine_stores import write_spine_store
from tests.stores import make_store

STUDIES = 4


@pytest.fixture(scope="module")
def source():
    found = source_of(STUDIES)
    found.patients["s1"] = None
    return found


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("spines") / "a.store"
    write_spine_store(path, source)
    return open_store(path)


def test_tokens_and_places_are_those_that_were_stored(store, source):
    grids = StoreGrids(store)
    for study in grids.read(["s2", "s0"]):
        assert study.study_id in ("s2", "s0")
        assert not study.turned
        for kind in ("T2", "T1"):
            (found,), (expected,) = study.of_kind(kind), source.grids[study.study_id].of_kind(kind)
            np.testing.assert_allclose(found.centres_mm(), expected.centres_mm())
            np.testing.assert_allclose(found.tokens, expected.tokens, atol=2e-3)
            assert found.series_id == f"{study.study_id}/{kind}"


def test_studies_come_in_the_order_asked_for_however_few_are_read_together(store, monkeypatch):
    monkeypatch.setattr(store_grids, "_TOGETHER_BYTES", 1)
    names = ["s3", "s1", "nobody", "s0"]
    found = list(StoreGrids(store).read(names))
    assert [study.study_id for study in found] == names
    assert [len(study.series) for study in found] == [2, 2, 0, 2]


def test_patients_are_those_of_the_manifest_and_one_without_is_alone(store):
    patients = StoreGrids(store).patients
    assert list(patients) == ["s0", "s1", "s2", "s3"]
    assert patients["s0"] == "patient of s0"
    assert patients["s1"] not in (None, *(patients[study] for study in ("s0", "s2", "s3")))


def test_the_readers_points_of_the_store_are_where_the_discs_are(store, source):
    """A marker at a known millimetre is found within a pixel in all three series."""
    points = oracle_points(store)
    assert len(points) == 25 * STUDIES
    true = {
        (row["study_id"], row["structure"], row["level"]): np.array(row["xyz_mm"]) for row in source.points
    }
    for study, structure, level, xyz in zip(
        points.study_ids, points.structures, points.levels, points.xyz_mm, strict=True
    ):
        apart = np.abs(xyz - true[study, structure, level])
        across = 2 if structure.endswith("subarticular") else 0
        assert np.delete(apart, across).max() < 1e-6
        assert apart[across] <= 4.01  # half of what slices lie apart


def test_slices_that_cannot_be_used_are_counted(source, tmp_path):
    def change(row):
        if row["series_id"] == "s0/T2":
            return row | {"series_description": None}
        if row["series_id"] == "s1/T1":
            return row | {"image_orientation": None}
        return row

    write_spine_store(tmp_path / "a.store", source, change=change)
    grids = StoreGrids(open_store(tmp_path / "a.store"))
    assert grids.sagittal.left_out == {
        "sagittal slices of neither T1 nor T2": 7,
        "slices without usable geometry": 7,
    }
    kinds = [[grid.kind for grid in study.series] for study in grids.read(["s0", "s1", "s2"])]
    assert kinds == [["T1"], ["T2"], ["T2", "T1"]]


def test_two_stacks_of_one_series_are_two_series(source, tmp_path):
    def change(row):
        upper = row["series_id"] == "s0/T2" and row["image_id"].endswith(("1.dcm", "2.dcm"))
        return row | {"stack": int(upper)}

    write_spine_store(tmp_path / "a.store", source, change=change)
    (study,) = StoreGrids(open_store(tmp_path / "a.store")).read(["s0"])
    assert [(grid.kind, len(grid.tokens)) for grid in study.series] == [("T2", 2), ("T2", 5), ("T1", 7)]


def test_grids_without_a_store_are_the_same(store):
    """What `embed predict` has of a new study: a manifest and tokens."""
    chosen = np.flatnonzero(np.array(store.table.column("study_id").to_pylist()) == "s2")
    table = store.table.take(pa.array(chosen))
    found = sagittal_rows(table, np.ones(len(chosen), bool), store.identity, source="a folder")
    tokens = store.tokens(store.image_ids[chosen].tolist()).values
    grids = grids_of_study("s2", found, np.arange(len(found.rows)), tokens[found.rows])
    (expected,) = StoreGrids(store).read(["s2"])
    for one, other in zip(grids.series, expected.series, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_array_equal(one.planes.positions_mm, other.planes.positions_mm)


def test_a_store_without_tokens_or_geometry_says_what_to_do(store, tmp_path):
    make_store(tmp_path / "plain.store")
    with pytest.raises(UsageError, match=r"has no token grids.*`tokens`"):
        _ = StoreGrids(open_store(tmp_path / "plain.store")).sagittal
    for name in ("plane", "image_position"):
        with pytest.raises(DataError, match=f"column '{name}'"):
            sagittal_rows(
                store.table.drop_columns([name]), store.status == VALID, store.identity, source="a store"
            )
