"""The pictures of studies: the slices of the rule, decoded as the store decodes them, whoever knows their range."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedstore.decoding.decode import DecodeJob, SerialDecoder, decode
from embedstore.errors import DataError, UsageError
from embedstore.generation.slice_choice import StudySlices, slice_rule
from embedstore.generation.study_images import Studies, StudyImages, decoded_studies, plan_studies
from embedstore.queries.image_files import ImageFiles
from embedstore.store.reader import Store, open_store

EIGHT = slice_rule("8")
SIZE_PX = 42


@pytest.fixture(scope="module")
def store(lumbar_store: Path) -> Store:
    return open_store(lumbar_store)


def decoded(studies: Studies) -> list[StudyImages]:
    return list(decoded_studies(studies, studies.plans, SerialDecoder(studies.spec(SIZE_PX)), ahead=2))


def test_every_study_shows_its_views_in_order(store: Store) -> None:
    studies = plan_studies(store, EIGHT)
    known = dict.fromkeys(store.table.column("study_id").to_pylist())
    assert [plan.study_id for plan in studies.plans] == list(known)
    table = store.table
    for plan in studies.plans:
        assert [image.view for image in plan.shown] == [
            "sagittal-t2",
            *["sagittal-t1"] * 2,
            *["axial-t2"] * 5,
        ]
        assert plan.lacking == ()
        rows = np.array(
            [row for row in range(table.num_rows) if table["study_id"][row].as_py() == plan.study_id]
        )
        expected = StudySlices(table, holder="").choose(rows, EIGHT)
        assert [image.record.image_id for image in plan.shown] == [
            table["image_id"][at.row].as_py() for at in expected
        ]


def test_pictures_are_those_of_the_stores_own_decoder_and_range(store: Store) -> None:
    (study,) = decoded(plan_studies(store, EIGHT, limit=1))
    paths, ranges = ImageFiles().paths(store), store.series_ranges()
    spec = plan_studies(store, EIGHT).spec(SIZE_PX)
    assert len(study.pictures) == 8
    assert not study.failed
    for image, pixels in zip(study.shown, study.pictures, strict=True):
        job = DecodeJob(
            str(paths[image.record.image_id]), 0, "MR", value_range=ranges[image.record.series_id]
        )
        assert np.array_equal(pixels, decode(job, spec, SerialDecoder(spec).limits).pixels)
        assert np.ptp(pixels) > 100


def test_a_range_that_no_store_knows_is_counted_over_the_whole_series(store: Store) -> None:
    studies = plan_studies(store, EIGHT, limit=1)
    records = [
        (image.record, image.root)
        for image in plan_studies(store, slice_rule("sagittal-t2=80,sagittal-t1=80,axial-t2=80"))
        .plans[0]
        .shown
    ]
    members: dict[Path, dict[str, list]] = {}
    for record, root in records:
        members.setdefault(root, {}).setdefault(record.series_id, []).append(record)
    assert sum(map(len, members[records[0][1]].values())) > 3 * 8, "more than what is shown"
    unknown = replace(studies, known_ranges={}, members=members)
    for one, other in zip(decoded(studies)[0].pictures, decoded(unknown)[0].pictures, strict=True):
        assert np.array_equal(one, other)


def test_studies_are_chosen_by_id_label_condition_and_number(store: Store) -> None:
    names = [plan.study_id for plan in plan_studies(store, EIGHT).plans]
    assert [plan.study_id for plan in plan_studies(store, EIGHT, ids=[names[1]]).plans] == names[1:2]
    assert [plan.study_id for plan in plan_studies(store, EIGHT, labelled=names[1:]).plans] == names[1:]
    assert len(plan_studies(store, EIGHT, limit=2).plans) == 2
    sagittal = plan_studies(store, EIGHT, where=["plane=sagittal"])
    assert all(plan.lacking == ("axial-t2",) for plan in sagittal.plans)
    assert all(len(plan.shown) == 3 for plan in sagittal.plans)


def test_what_leaves_no_study_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match="has no unit or image '0815'"):
        plan_studies(store, EIGHT, ids=["0815"])
    with pytest.raises(DataError, match="the task must label studies of store"):
        plan_studies(store, EIGHT, labelled=["0815"])
    with pytest.raises(DataError, match="plane=coronal leaves none"):
        plan_studies(store, EIGHT, where=["plane=coronal"])
    with pytest.raises(UsageError, match="has no column 'plain'"):
        plan_studies(store, EIGHT, where=["plain=axial"])
    with pytest.raises(UsageError, match="`limit` must be 1 or more; found 0"):
        plan_studies(store, EIGHT, limit=0)


def test_a_slice_that_cannot_be_read_is_left_out_with_its_reason(lumbar_store: Path, tmp_path: Path) -> None:
    shutil.copytree(lumbar_store.parent, tmp_path / "lumbar")
    broken = open_store(tmp_path / "lumbar/lumbar.store")
    studies = plan_studies(broken, EIGHT, limit=1)
    first, second = studies.plans[0].shown[:2]
    (first.root / first.record.path).write_bytes(b"no DICOM")
    (second.root / second.record.path).unlink()
    (found,) = decoded(studies)
    assert found.views == ["sagittal-t1", *["axial-t2"] * 5]
    assert len(found.pictures) == 6
    assert list(found.failed) == [first.record.image_id, second.record.image_id]
    assert found.failed[first.record.image_id].startswith("unreadable: ")
    assert found.failed[second.record.image_id].startswith("missing: ")


def test_stores_without_studies_are_refused(store: Store) -> None:
    nobody = store.table.set_column(
        store.table.column_names.index("study_id"), "study_id", pa.nulls(store.rows, pa.string())
    )
    anonymous = Store(store.path, store.identity, store.parts)
    anonymous.__dict__["table"] = nobody
    with pytest.raises(DataError, match="must hold images of studies; found none with a study_id"):
        plan_studies(anonymous, EIGHT)


def test_a_store_of_crops_is_refused_and_crops_among_slices_are_not_shown(store: Store) -> None:
    expected = [plan.shown for plan in plan_studies(store, EIGHT).plans]
    views = store.table.column("plane").to_pylist()
    for crops, holds_slices in ((["canal"] * store.rows, False), ([None] * store.rows, True)):
        cropped = Store(store.path, store.identity, store.parts)
        cropped.__dict__["table"] = store.table.append_column("crop", pa.array(crops, pa.string()))
        if holds_slices:
            assert [plan.shown for plan in plan_studies(cropped, EIGHT).plans] == expected
        else:
            with pytest.raises(DataError, match="must hold whole slices; found crops"):
                plan_studies(cropped, EIGHT)
    axial = [None if view == "sagittal" else "axial_t2" for view in views]
    mixed = Store(store.path, store.identity, store.parts)
    mixed.__dict__["table"] = store.table.append_column("crop", pa.array(axial, pa.string()))
    assert all(plan.lacking == ("axial-t2",) for plan in plan_studies(mixed, EIGHT).plans)
