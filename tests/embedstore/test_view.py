from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import DataError, Reason, UsageError
from embedstore.manifest import manifest_from_columns
from embedstore.queries.load_view import load_units, load_view
from embedstore.queries.manifest_columns import Lacking, lacking_units
from embedstore.store.commit import ChunkResult
from embedstore.store.reader import open_store
from embedstore.store.tasks import write_task
from embedstore.store.writer import open_writer
from embedstore.task import ImageRule, Task
from embedstore.view import Units, take_targets, without_split
from tests.stores import IDENTITY, content_of, make_store, manifest_of, vectors_of
from tests.views import make_view


def add_task(root, *, unit="study", labels=None, name="t", subgroups=(), rules=None):
    labels = labels or {"study0": "no", "study1": "yes", "study2": None, "study7": "yes"}
    table = pa.table({"unit_id": list(labels), "abnormal": pa.array(list(labels.values()), pa.string())})
    write_task(
        root,
        Task(
            name, unit, ("abnormal",), ("no", "yes"), table, subgroups=subgroups, images_of_target=rules or {}
        ),
    )


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
    with pytest.raises(UsageError, match=r"has no target 'top'; it has canal, left, right"):
        take_targets(view, ("top",))


def test_without_the_official_split_no_unit_has_one() -> None:
    assert set(without_split(make_view()).splits) == {""}


def add_levels(root, rules=None):
    """Two targets of the levels of a study, of which the images are told apart by a column."""
    table = pa.table(
        {
            "study_id": ["a", "a", "b"],
            "level": ["l4", "l5", "l4"],
            "canal": ["no", "yes", "yes"],
            "left": ["yes", None, "no"],
        }
    )
    task = Task("t", "study_id,level", ("canal", "left"), ("no", "yes"), table, images_of_target=rules or {})
    write_task(root, task)


LEVELS = {"study_id": ["a", "b", "a", "a", "a"], "level": ["l5", "l4", "l4", "l5", None]}


def test_a_unit_may_be_a_key_of_several_columns(tmp_path):
    root = store_with(tmp_path, **LEVELS)
    add_levels(root)
    view = load_view(open_store(root))
    assert view.unit_ids.tolist() == ["a|l5", "b|l4", "a|l4"]
    assert view.unit_of_image.tolist() == [0, 1, 2, 0]
    assert view.y.tolist() == [[1, -1], [1, 0], [0, 1]]
    assert view.excluded == {"no label in task t": 1}
    # No patient is known: the levels of a study are nevertheless one patient's.
    assert view.patients[0] == view.patients[2] != view.patients[1]
    assert view.image_of_target is None
    assert isinstance(view, Units)
    units = load_units(open_store(root), "study_id,level")
    assert units.unit_ids.tolist() == ["a|l5", "b|l4", "a|l4", "i4"]


def test_a_column_of_the_unit_or_of_an_image_rule_must_be_in_the_store(tmp_path):
    root = store_with(tmp_path, study_id=["a", "b"])
    add_task(root, labels={"a": "no"}, rules={"abnormal": ImageRule("plane", ("axial",))})
    with pytest.raises(UsageError, match="has no column 'plane'"):
        load_view(open_store(root))
    with pytest.raises(UsageError, match="has no column 'level'"):
        load_units(open_store(root), "study_id,level")


def test_images_speak_for_the_targets_that_their_rule_names(tmp_path):
    plane = ["sagittal", "axial", "axial", "coronal", "sagittal"]
    root = store_with(tmp_path, study_id=["a", "a", "b", "c", "c"], plane=plane)
    table = pa.table({"unit_id": ["a", "b", "c"], "canal": ["no", "yes", None], "left": ["yes", "no", "no"]})
    rules = {"canal": ImageRule("plane", ("sagittal",)), "left": ImageRule("plane", ("axial", "oblique"))}
    write_task(root, Task("t", "study", ("canal", "left"), ("no", "yes"), table, images_of_target=rules))
    view = load_view(open_store(root))
    # The coronal image speaks for no target.
    assert view.image_ids.tolist() == ["i0", "i1", "i2", "i4"]
    np.testing.assert_array_equal(view.X, vectors_of(0, 5)[[0, 1, 2, 4]])
    assert view.image_of_target.tolist() == [[True, False], [False, True], [False, True], [True, False]]
    # Study b has no sagittal image for its canal, study c no axial one for its left side.
    assert view.y.tolist() == [[0, 1], [-1, 0], [-1, -1]]
    assert view.excluded == {
        "image for no target of task t": 1,
        "label without an image for its target": 2,
    }
    units = load_units(open_store(root), "study", image_rules=view.task.image_rules)
    assert units.image_of_target.tolist() == [
        [True, False],
        [False, True],
        [False, True],
        [False, False],
        [True, False],
    ]


def test_a_target_without_a_rule_is_spoken_for_by_every_image(tmp_path):
    root = store_with(tmp_path, study_id=["a", "a"], plane=["sagittal", None])
    table = pa.table({"unit_id": ["a"], "canal": ["no"], "left": ["yes"]})
    rules = {"left": ImageRule("plane", ("",))}
    write_task(root, Task("t", "study", ("canal", "left"), ("no", "yes"), table, images_of_target=rules))
    assert load_view(open_store(root)).image_of_target.tolist() == [[True, False], [True, True]]


def test_a_mask_has_the_shape_of_images_and_targets_and_every_label_an_image():
    view = make_view(patients=4, targets=("canal", "left"))
    with pytest.raises(
        DataError, match=r"must be bool of shape \(\d+, 2\) \(images, targets\); found bool of shape"
    ):
        replace(view, image_of_target=np.ones((len(view.image_ids), 1), np.bool_))
    mask = np.ones((len(view.image_ids), 2), np.bool_)
    mask[view.unit_of_image == 1, 1] = False
    with pytest.raises(
        DataError, match=r"1 labels of units that have no image for the target, .*'study00001', target 'left'"
    ):
        replace(view, image_of_target=mask)
    y = view.y.copy()
    y[1, 1] = -1
    masked = replace(view, y=y, image_of_target=mask)
    left = take_targets(masked, ["left"])
    assert left.image_of_target.tolist() == mask[:, 1:].tolist()


def test_taken_targets_keep_their_image_rules():
    view = make_view(patients=4, targets=("canal", "left"))
    rules = {"canal": ImageRule("plane", ("sagittal",)), "left": ImageRule("plane", ("axial",))}
    view = replace(view, task=replace(view.task, images_of_target=rules))
    assert take_targets(view, ["left"]).task.images_of_target == {"left": rules["left"]}
