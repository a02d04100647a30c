"""Several stores as one view: which may be joined, in what order, and what a column means that one of them lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import DataError, IdentityMismatch, Reason, UsageError
from embedstore.manifest import manifest_from_columns
from embedstore.queries.load_view import load_view, load_views
from embedstore.store.commit import ChunkResult
from embedstore.store.reader import Store, open_store
from embedstore.store.receipt import Failure
from embedstore.store.tasks import write_task
from embedstore.store.writer import open_writer
from embedstore.task import ImageRule, Task
from tests.stores import IDENTITY, content_of, vectors_of

LABELS = {"s1": "no", "s2": "yes", "s3": "no"}


def make_store(
    root: Path,
    images: dict[str, str],
    *,
    first: int = 0,
    identity=IDENTITY,
    failures=(),
    labels: dict[str, str | None] | None = None,
    task: dict | None = None,
    **columns,
) -> Store:
    """Write a store of images (image id -> study id) whose vectors count on from `first`, with the task ``t``."""
    count = len(images)
    manifest = manifest_from_columns(
        {
            "image_id": list(images),
            "path": [f"{image}.png" for image in images],
            "study_id": list(images.values()),
            "patient_id": [f"p{study[1:]}" for study in images.values()],
        }
        | columns,
        source="test",
    )
    with open_writer(root, identity, say=lambda line: None) as writer:
        plan = writer.plan_part(manifest, dataset="t", data_root="r", chunk_rows=count, dtype="float16")
        result = ChunkResult(
            vectors_of(first, first + count),
            content_of(first, first + count),
            dict.fromkeys(failures, (Reason.MISSING, "gone")),
        )
        writer.commit(plan, 0, result)
    labels = LABELS if labels is None else labels
    table = pa.table({"unit_id": list(labels), "finding": pa.array(list(labels.values()), pa.string())})
    options = {"unit": "study", "targets": ("finding",), "classes": ("no", "yes"), "labels": table}
    write_task(root, Task("t", **(options | (task or {}))))
    return open_store(root)


@pytest.fixture
def one(tmp_path: Path) -> Store:
    return make_store(tmp_path / "one", {"a": "s1", "b": "s2", "c": "s2"})


def test_images_follow_the_order_of_the_stores(one: Store, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", {"e": "s3", "d": "s3"}, first=10)
    view = load_views([other, one])
    assert view.image_ids.tolist() == ["e", "d", "a", "b", "c"]
    np.testing.assert_array_equal(view.X, np.concatenate([vectors_of(10, 12), vectors_of(0, 3)]))
    np.testing.assert_array_equal(view.content_sha256, np.concatenate([content_of(10, 12), content_of(0, 3)]))
    assert view.unit_ids.tolist() == ["s3", "s1", "s2"]
    assert view.unit_of_image.tolist() == [0, 0, 1, 2, 2]
    assert view.y.tolist() == [[0], [0], [1]]
    assert view.patients.tolist() == ["p3", "p1", "p2"]


def test_one_store_gives_the_view_of_that_store(one: Store) -> None:
    view, alone = load_views([one]), load_view(one)
    assert view.X.tobytes() == alone.X.tobytes()
    assert view.unit_ids.tolist() == alone.unit_ids.tolist()


def test_a_study_may_have_images_in_both_and_a_patient_is_one_patient(one: Store, tmp_path: Path) -> None:
    other = make_store(
        tmp_path / "other", {"d": "s2", "e": "s3"}, first=10, patient_id=["p2", "p1"], labels={**LABELS}
    )
    view = load_views([one, other])
    assert view.unit_ids.tolist() == ["s1", "s2", "s3"]
    assert view.unit_of_image.tolist() == [0, 1, 1, 1, 2]
    assert view.patients.tolist() == ["p1", "p2", "p1"]


def test_labels_of_either_store_hold_for_the_images_of_both(one: Store, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", {"d": "s2", "e": "s4"}, first=10, labels={"s4": "yes"})
    view = load_views([one, other])
    assert dict(zip(view.unit_ids.tolist(), view.y[:, 0].tolist(), strict=True)) == {
        "s1": 0,
        "s2": 1,
        "s4": 1,
    }
    assert view.unit_of_image.tolist() == [0, 1, 1, 1, 2]
    assert len(view.task.labels) == 4


def test_what_is_left_out_is_counted_over_all_stores(tmp_path: Path) -> None:
    one = make_store(tmp_path / "one", {"a": "s1", "b": "s2", "x": "s9"}, failures=(1,))
    other = make_store(tmp_path / "other", {"c": "s3", "d": "s2", "y": "s8"}, first=10, failures=(0,))
    assert load_views([one, other]).excluded == {"failed: missing": 2, "no label in task t": 2}
    assert one.failures == [Failure(1, Reason.MISSING, "gone")]


def test_a_column_that_one_store_lacks_is_unknown_there(tmp_path: Path) -> None:
    one = make_store(
        tmp_path / "one", {"a": "s1", "b": "s2"}, anatomy=["hand", None], task={"subgroups": ("anatomy",)}
    )
    other = make_store(tmp_path / "other", {"c": "s3"}, first=10, side=["left"])
    view = load_views([one, other], with_columns=["side", "anatomy"])
    assert {name: cells.tolist() for name, cells in view.metadata.items()} == {
        "side": ["", "", "left"],
        "anatomy": ["hand", "", ""],
    }
    assert {name: cells.tolist() for name, cells in view.subgroups.items()} == {"anatomy": ["hand", "", ""]}
    with pytest.raises(UsageError, match=r"has no column 'view'; its columns: image_id, .*anatomy, side"):
        load_views([one, other], with_columns=["view"])


def test_numbers_are_metadata_as_they_are_written(tmp_path: Path) -> None:
    store = make_store(tmp_path / "one", {"a": "s1", "b": "s2"}, field_strength_t=[1.5, None])
    view = load_view(store, with_columns=["field_strength_t"])
    assert view.metadata["field_strength_t"].tolist() == ["1.5", ""]


def test_stores_of_different_identity_never_mix(one: Store, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", {"d": "s3"}, identity=replace(IDENTITY, revision="2"))
    with pytest.raises(IdentityMismatch, match="revision: '1' there, '2' asked"):
        load_views([one, other])


@pytest.mark.parametrize("failures", [(), (1,)])
def test_an_image_in_two_stores_is_refused_also_where_it_failed_in_one(
    one: Store, tmp_path: Path, failures: tuple[int, ...]
) -> None:
    other = make_store(tmp_path / "other", {"d": "s3", "b": "s2"}, first=10, failures=failures)
    with pytest.raises(DataError, match=r"1 images are in store .*one and in store .*other: 'b'; stores"):
        load_views([one, other])


def test_a_store_that_is_named_twice_is_refused(one: Store) -> None:
    with pytest.raises(DataError, match="3 images are in store"):
        load_views([one, one])


def test_each_store_must_have_the_task(one: Store, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", {"d": "s3"}, first=10)
    (other.path / "tasks" / "t").rename(other.path / "tasks" / "u")
    with pytest.raises(UsageError, match=r"store .*other has no task 't'; its tasks: u"):
        load_views([one, other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"unit": "image"},
            "unit must be the same in every store; found 'study' in .*one and 'image' in .*other",
        ),
        ({"classes": ("yes", "no")}, "classes must be the same"),
        ({"class_weights": (1.0, 2.0)}, "class_weights must be the same .* found None"),
        ({"pooling": "max-vector"}, "pooling must be the same"),
        ({"primary_metric": "kappa"}, "primary_metric must be the same"),
    ],
)
def test_tasks_that_ask_another_thing_are_refused(
    one: Store, tmp_path: Path, change: dict, message: str
) -> None:
    other = make_store(tmp_path / "other", {"d": "s3"}, first=10, task=change)
    with pytest.raises(DataError, match=message):
        load_views([one, other])


def test_tasks_of_other_targets_are_refused(one: Store, tmp_path: Path) -> None:
    table = pa.table({"unit_id": ["s3"], "other": ["no"]})
    other = make_store(
        tmp_path / "other", {"d": "s3"}, first=10, task={"targets": ("other",), "labels": table}
    )
    with pytest.raises(DataError, match=r"targets must be the same in every store; found \('finding',\)"):
        load_views([one, other])


@pytest.mark.parametrize(
    ("label", "named"),
    [("no", "'yes' in .*one and 'no' in .*other"), (None, "'yes' in .*one and nothing in .*other")],
)
def test_a_study_with_two_labels_is_refused(
    one: Store, tmp_path: Path, label: str | None, named: str
) -> None:
    other = make_store(tmp_path / "other", {"d": "s3"}, first=10, labels={**LABELS, "s2": label})
    with pytest.raises(DataError, match=f"study 's2' is labelled {named}"):
        load_views([one, other])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"patient_id": ["p7"]}, "study 's2' has images of more than one patient: 'p2' and 'p7'"),
        ({"split": ["test"]}, "study 's2' has images of more than one split: '' and 'test'"),
    ],
)
def test_a_study_of_two_patients_or_splits_in_two_stores_is_refused(
    one: Store, tmp_path: Path, column: dict, message: str
) -> None:
    other = make_store(tmp_path / "other", {"d": "s2"}, first=10, **column)
    with pytest.raises(DataError, match=message):
        load_views([one, other])


def test_labels_that_fit_no_image_of_any_store_are_refused(tmp_path: Path) -> None:
    stores = [
        make_store(tmp_path / name, {name: "s1"}, first=10 * row, labels={"s9": "no"})
        for row, name in enumerate(("one", "other"))
    ]
    with pytest.raises(
        DataError, match="labels 1 study ids, but none of them is among the 2 extracted images"
    ):
        load_views(stores)


def test_a_view_names_its_stores_and_data_sets_without_the_paths_of_a_machine(tmp_path):
    a = make_store(tmp_path / "a.store", {"i1": "s1"})
    b = make_store(tmp_path / "b.store", {"i2": "s2"}, first=1)
    plan = replace(b.parts[0].plan, dataset="mura", root="/home/someone/MURA-v1.1", phantom=True)
    b = replace(b, parts=(replace(b.parts[0], plan=plan),))
    sources = [source.to_json() for source in load_views([a, b], "t").sources]
    assert sources == [
        {"store": "a.store", "dataset": "t", "folder": "r", "phantom": False},
        {"store": "b.store", "dataset": "mura", "folder": "MURA-v1.1", "phantom": True},
    ]


def test_the_masks_of_several_stores_follow_one_another(tmp_path: Path) -> None:
    rules = {"images_of_target": {"finding": ImageRule("plane", ("axial",))}}
    one = make_store(
        tmp_path / "one", {"a": "s1", "b": "s1", "c": "s2"}, plane=["axial", "sagittal", "axial"], task=rules
    )
    other = make_store(tmp_path / "other", {"d": "s3"}, first=10, task=rules)
    view = load_views([one, other])
    # The other store has no such column, so none of its images is axial.
    assert view.image_ids.tolist() == ["a", "c"]
    assert view.image_of_target is not None
    assert view.image_of_target.tolist() == [[True], [True]]
    assert view.excluded == {"image for no target of task t": 2}


def test_stores_whose_image_rules_differ_are_not_joined(one: Store, tmp_path: Path) -> None:
    rules = {"images_of_target": {"finding": ImageRule("plane", ("axial",))}}
    other = make_store(tmp_path / "other", {"d": "s3"}, first=10, plane=["axial"], task=rules)
    with pytest.raises(DataError, match="images_of_target must be the same in every store"):
        load_views([one, other])


def test_results_may_be_split_by_what_readers_ask_for_and_by_columns_that_are_named(tmp_path):
    one = make_store(
        tmp_path / "one",
        {"a": "s1", "b": "s2", "c": "s2"},
        PatientSex_DICOM=["F", "M", "M"],
        series_description=["T1", "T1", "T2"],
        ward=["w", None, None],
    )
    view = load_view(one)
    assert view.task.subgroups == ()
    assert {name: cells.tolist() for name, cells in view.subgroups.items()} == {
        "PatientSex_DICOM": ["F", "M"],
        "series_description": ["T1", "several"],
    }
    named = load_view(one, subgroups=["ward"])
    assert named.task.subgroups == ("ward",)
    assert named.subgroups["ward"].tolist() == ["w", ""]
    with pytest.raises(UsageError, match=r"has no column 'wart'.*Did you mean 'ward'"):
        load_view(one, subgroups=["wart"])
