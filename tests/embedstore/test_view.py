import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import DataError, Reason, UsageError
from embedstore.manifest import manifest_from_columns
from embedstore.queries.load_view import Lacking, lacking_units, load_units, load_view
from embedstore.store.commit import ChunkResult
from embedstore.store.reader import open_store
from embedstore.store.tasks import write_task
from embedstore.store.writer import open_writer
from embedstore.task import Task
from embedstore.view import take_targets, without_split
from tests.stores import IDENTITY, content_of, make_store, manifest_of, vectors_of
from tests.views import make_view


def add_task(root, *, unit="study", labels=None, name="t", subgroups=()):
    labels = labels or {"study0": "no", "study1": "yes", "study2": None, "study7": "yes"}
    table = pa.table({"unit_id": list(labels), "abnormal": pa.array(list(labels.values()), pa.string())})
    write_task(root, Task(name, unit, ("abnormal",), ("no", "yes"), table, subgroups=subgroups))


def test_a_view_joins_vectors_labels_patients_and_splits_by_study(tmp_path):
    make_store(tmp_path / "s", rows=20, failures={3: (Reason.MISSING, "gone")})
    add_task(tmp_path / "s")
    view = load_view(open_store(tmp_path / "s"))
    # Images 2i and 2i + 1 make study i; image 3 failed; studies 0, 1, 2 and 7 stand in the labels.
    rows = [0, 1, 2, 4, 5, 14, 15]
    np.testing.assert_array_equal(view.X, vectors_of(0, 20)[rows])
    assert view.image_ids.tolist() == [f"image{row}" for row in rows]
    assert view.unit_ids.tolist() == ["study0", "study1", "study2", "study7"]
    assert view.unit_of_image.tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert view.y.tolist() == [[0], [1], [-1], [1]]
    assert view.patients.tolist() == ["patient0", "patient0", "patient1", "patient3"]
    assert view.splits.tolist() == ["train", "train", "valid", "valid"]
    np.testing.assert_array_equal(view.content_sha256, content_of(0, 20)[rows])
    assert view.excluded == {"failed: missing": 1, "no label in task t": 12}
    assert view.X.dtype == np.float32


def test_a_view_of_images_has_one_unit_per_image(tmp_path):
    make_store(tmp_path / "s", rows=8)
    add_task(tmp_path / "s", unit="image", labels={"image6": "no", "image2": "yes"})
    view = load_view(open_store(tmp_path / "s"), "t")
    assert view.unit_ids.tolist() == ["image2", "image6"]
    assert view.y.tolist() == [[1], [0]]


def test_images_that_are_not_extracted_yet_are_counted(tmp_path):
    make_store(tmp_path / "s", rows=20, chunk_rows=8, chunks=(0,))
    add_task(tmp_path / "s")
    view = load_view(open_store(tmp_path / "s"))
    assert view.excluded["not extracted yet"] == 12
    assert view.unit_ids.tolist() == ["study0", "study1", "study2"]


def test_a_task_has_to_be_named_only_where_there_are_several(tmp_path):
    make_store(tmp_path / "s")
    with pytest.raises(UsageError, match=r"has no task\. embedstore\.write_task adds one"):
        load_view(open_store(tmp_path / "s"))
    add_task(tmp_path / "s", name="one")
    add_task(tmp_path / "s", name="two")
    with pytest.raises(UsageError, match=r"`task_name` is needed: .* has one, two"):
        load_view(open_store(tmp_path / "s"))


def test_a_task_of_another_data_set_is_refused(tmp_path):
    make_store(tmp_path / "s")
    add_task(tmp_path / "s", labels={"other": "no", "another": "yes"})
    with pytest.raises(DataError, match="labels 2 study ids, but none of them is among the 20"):
        load_view(open_store(tmp_path / "s"))


def store_with(tmp_path, **columns):
    count = len(columns["study_id"])
    base = {"image_id": [f"i{row}" for row in range(count)], "path": [f"{row}.png" for row in range(count)]}
    manifest = manifest_from_columns(base | columns, source="test")
    with open_writer(tmp_path / "s", IDENTITY, say=print) as writer:
        plan = writer.plan_part(manifest, dataset="t", data_root="r", chunk_rows=count, dtype="float16")
        writer.commit(plan, 0, ChunkResult(vectors_of(0, count), content_of(0, count)))
    return tmp_path / "s"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"patient_id": ["p", "q"]}, "study 'a' has images of more than one patient: 'p' and 'q'"),
        ({"split": ["train", "valid"]}, "study 'a' has images of more than one split"),
    ],
)
def test_a_study_of_two_patients_or_splits_is_refused(tmp_path, columns, message):
    root = store_with(tmp_path, study_id=["a", "a"], **columns)
    add_task(root, labels={"a": "no"})
    with pytest.raises(DataError, match=message):
        load_view(open_store(root))


def test_subgroups_follow_the_units_and_unknown_ones_are_empty(tmp_path):
    root = store_with(
        tmp_path, study_id=["a", "b", "b"], patient_id=["p", "q", "q"], anatomy=["hand", None, None]
    )
    add_task(root, labels={"a": "no", "b": "yes"}, subgroups=("anatomy", "absent"))
    view = load_view(open_store(root))
    assert {name: cells.tolist() for name, cells in view.subgroups.items()} == {"anatomy": ["hand", ""]}


def test_an_image_without_a_patient_is_a_patient_of_its_own(tmp_path):
    root = store_with(tmp_path, study_id=["a", "b", "b"], patient_id=[None, None, None])
    add_task(root, labels={"a": "no", "b": "yes"})
    assert len(set(load_view(open_store(root)).patients)) == 2


def test_all_units_of_a_store_can_be_loaded_without_labels(tmp_path):
    make_store(tmp_path / "s", rows=5, chunk_rows=8)
    units = load_units(open_store(tmp_path / "s"), "study")
    assert units.unit_ids.tolist() == ["study0", "study1", "study2"]
    assert units.unit_of_image.tolist() == [0, 0, 1, 1, 2]
    assert load_units(open_store(tmp_path / "s"), "image").unit_ids.tolist() == manifest_of(5).column(
        "image_id"
    )


def test_units_that_cannot_be_given_are_counted(tmp_path):
    # Studies of two images: image 1 failed; images 4 to 6 are pending, of which 6 has no second one.
    make_store(tmp_path / "s", rows=7, chunk_rows=4, chunks=(0,), failures={1: (Reason.MISSING, "gone")})
    store = open_store(tmp_path / "s")
    assert lacking_units(store, "study") == Lacking(pending=3, failed=1, absent=2, partial=1)
    assert lacking_units(store, "image") == Lacking(pending=3, failed=1, absent=4, partial=0)
    make_store(tmp_path / "whole", rows=7)
    assert lacking_units(open_store(tmp_path / "whole"), "study") == Lacking(0, 0, 0, 0)


def test_some_targets_are_taken_in_the_order_named() -> None:
    view = make_view(targets=("canal", "left", "right"))
    some = take_targets(view, ("right", "canal"))
    assert some.task.targets == ("right", "canal")
    assert (some.y == view.y[:, [2, 0]]).all()
    with pytest.raises(UsageError, match=r"has no target \['top'\]; it has canal, left, right"):
        take_targets(view, ("top",))


def test_without_the_official_split_no_unit_has_one() -> None:
    assert set(without_split(make_view()).splits) == {""}
