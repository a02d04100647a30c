"""The data set is the truth about a store's rows: what it says otherwise is taken over, whole, or not at all."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from embedstore.datasets.base import Collection
from embedstore.errors import CorruptStore, Reason
from embedstore.extraction.dry_run import dry_run
from embedstore.extraction.extract import ExtractOptions, Observer, extract
from embedstore.files import FAILPOINT_EXIT_CODE, FAILPOINT_VARIABLE, failpoint_names
from embedstore.manifest import Manifest, manifest_from_table
from embedstore.revisions.compare import changes_of
from embedstore.revisions.revise import revise, withdraw
from embedstore.store.documents import read_document, write_document
from embedstore.store.reader import open_store
from embedstore.store.repair import repair_store
from embedstore.store.verify import verify_store
from tests.pictures import collection_of, expected_vectors, write_pictures
from tests.stores import MeanEncoder, TokenEncoder, make_store, manifest_of

OPTIONS = ExtractOptions(chunk_rows=4, batch_size=3, workers=1)
COUNT = 10


@pytest.fixture
def folder(tmp_path):
    write_pictures(tmp_path / "images", range(COUNT))
    extract(collection_of(tmp_path / "images", COUNT), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    return tmp_path


def with_column(
    name: str, cells: list[object], *, count: int = COUNT, kind: pa.DataType | None = None
) -> Manifest:
    table = manifest_of(count).table
    column = pa.array(cells, kind)
    place = table.column_names.index(name) if name in table.column_names else None
    table = table.append_column(name, column) if place is None else table.set_column(place, name, column)
    return manifest_from_table(table, source="test")


def run(folder, manifest: Manifest, **options):
    lines: list[str] = []
    encoder = options.pop("encoder", MeanEncoder())
    summary = extract(
        Collection("test", folder / "images", manifest),
        folder / "s",
        encoder,
        options=OPTIONS,
        observer=Observer(say=lines.append),
        **options,
    )
    return summary, lines


def test_corrected_patients_reach_the_manifest_and_no_vector_is_computed(folder):
    before = open_store(folder / "s")
    vectors = before.embeddings().vectors
    patients = ["new" if number < 4 else f"patient{number // 4}" for number in range(COUNT)]
    summary, lines = run(folder, with_column("patient_id", patients))
    store = open_store(folder / "s")
    assert store.table.column("patient_id").to_pylist() == patients
    np.testing.assert_array_equal(store.embeddings().vectors, vectors)
    assert (summary.computed, summary.revised) == (0, {"patient_id": 4})
    assert lines == ["revised, patient_id: 4 rows changed"]
    assert verify_store(folder / "s").findings == ()
    (revision,) = store.parts[0].plan.revisions
    assert (revision.before, revision.after) == (
        before.parts[0].plan.manifest_sha256,
        store.parts[0].plan.manifest_sha256,
    )
    assert revision.columns == {"patient_id": 4}


def test_a_reader_that_was_open_still_sees_its_own_state(folder):
    before = open_store(folder / "s")  # its manifest is not read yet
    run(folder, with_column("split", ["valid"] * COUNT))
    assert before.table.column("split").to_pylist() == manifest_of(COUNT).column("split")
    # Of two revisions ago nothing is left, which it says.
    again = open_store(folder / "s")
    run(folder, with_column("split", ["test"] * COUNT))
    run(folder, with_column("split", ["train"] * COUNT))
    with pytest.raises(CorruptStore, match="manifest"):
        _ = again.parts[0].manifest
    assert open_store(folder / "s").table.column("split").unique().to_pylist() == ["train"]


def test_columns_come_and_go_with_the_data_set(folder):
    _, lines = run(folder, with_column("age", [50 + number for number in range(COUNT)]))
    assert lines == ["revised, new column: age"]
    assert open_store(folder / "s").table.column("age").to_pylist() == list(range(50, 60))
    # The same number in another type is no change; a cell that is empty now is one.
    _, lines = run(folder, with_column("age", [50.0 + number for number in range(COUNT)]))
    assert lines == []
    _, lines = run(folder, with_column("age", [None, *(51 + number for number in range(COUNT - 1))]))
    assert lines == ["revised, age: 1 row changed"]
    _, lines = run(folder, manifest_of(COUNT))
    assert lines == ["revised, column that the data set no longer has: age"]
    assert "age" not in open_store(folder / "s").table.column_names
    assert len(open_store(folder / "s").parts[0].plan.revisions) == 3


def test_rows_that_the_data_set_no_longer_has_keep_their_facts(folder):
    everything = with_column("age", [50 + number for number in range(COUNT)])
    run(folder, everything)
    fewer = manifest_from_table(
        pc_replace(everything.table.slice(0, 6), "split", ["test"] * 6), source="test"
    )
    _, lines = run(folder, fewer)
    assert lines[0] == "revised, split: 6 rows changed"
    assert lines[1].startswith("4 images of the store are not in the data set")
    table = open_store(folder / "s").table
    assert table.column("split").to_pylist() == ["test"] * 6 + manifest_of(COUNT).column("split")[6:]
    assert table.column("age").to_pylist() == list(range(50, 60))


def pc_replace(table: pa.Table, name: str, cells: list[object]) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(cells))


def test_what_would_change_pixels_is_computed_again(folder):
    frames = [0] * COUNT
    manifest = with_column("frame", frames, kind=pa.int32())
    run(folder, manifest)
    frames[3] = 7  # a PNG has one frame
    summary, lines = run(folder, with_column("frame", frames, kind=pa.int32()))
    assert "1 image will be computed again: what the data set says of the pixels changed" in lines
    assert sum(summary.failed.values()) == 1
    store = open_store(folder / "s")
    assert [failure.row for failure in store.failures] == [3]
    assert store.failures[0].reason is not Reason.CHANGED
    # Put right, it has its vector again.
    summary, _ = run(folder, manifest)
    np.testing.assert_array_equal(
        open_store(folder / "s").embeddings().vectors, expected_vectors(COUNT).astype(np.float16)
    )
    assert verify_store(folder / "s").findings == ()


def test_a_file_that_was_replaced_is_computed_again_and_a_file_that_is_gone_is_not(folder):
    write_pictures(folder / "other", range(20, 21))
    os.replace(folder / "other" / "image20.png", folder / "images" / "image5.png")
    (folder / "images" / "image6.png").unlink()
    found = dry_run(Collection("test", folder / "images", manifest_of(COUNT)), folder / "s", MeanEncoder())
    assert (found.images, found.again) == (0, 1)
    summary, lines = run(folder, manifest_of(COUNT))
    assert lines == ["1 image will be computed again: the files were changed since they were read"]
    assert (summary.computed, summary.valid) == (1, COUNT)
    expected = expected_vectors(21).astype(np.float16)
    found_vectors = open_store(folder / "s").embeddings().vectors
    np.testing.assert_array_equal(found_vectors, expected[[0, 1, 2, 3, 4, 20, 6, 7, 8, 9]])
    assert verify_store(folder / "s").findings == ()
    assert run(folder, manifest_of(COUNT))[0].computed == 0


def test_a_file_that_failed_is_tried_again_once_it_is_another(folder):
    content = (folder / "images" / "image5.png").read_bytes()
    (folder / "images" / "image5.png").write_bytes(content[:60])
    (folder / "images" / "image7.png").rename(folder / "away.png")
    extract(collection_of(folder / "images", COUNT), folder / "t", MeanEncoder(), options=OPTIONS)
    again = extract(collection_of(folder / "images", COUNT), folder / "t", MeanEncoder(), options=OPTIONS)
    assert (again.computed, again.failed) == (0, {"missing": 1, "unreadable": 1})
    (folder / "images" / "image5.png").write_bytes(content)
    (folder / "away.png").rename(folder / "images" / "image7.png")
    again = extract(collection_of(folder / "images", COUNT), folder / "t", MeanEncoder(), options=OPTIONS)
    assert (again.computed, again.failed, again.valid) == (2, {}, COUNT)


def test_a_file_that_was_only_touched_gets_the_same_vector(folder):
    os.utime(folder / "images" / "image2.png", (1, 1))
    summary, _ = run(folder, manifest_of(COUNT))
    assert summary.computed == 0
    np.testing.assert_array_equal(
        open_store(folder / "s").embeddings().vectors, expected_vectors(COUNT).astype(np.float16)
    )


def test_another_path_to_the_same_file_keeps_the_vector_and_to_another_file_does_not(folder):
    (folder / "images" / "moved").mkdir()
    os.rename(folder / "images" / "image1.png", folder / "images" / "moved" / "image1.png")
    paths = manifest_of(COUNT).column("path")
    paths[1] = "moved/image1.png"
    summary, lines = run(folder, with_column("path", paths))
    assert (summary.computed, lines) == (0, ["revised, path: 1 row changed"])
    paths[2] = "image9.png"
    summary, _ = run(folder, with_column("path", paths))
    assert summary.computed == 1
    rows = [0, 1, 9, 3, 4, 5, 6, 7, 8, 9]
    np.testing.assert_array_equal(
        open_store(folder / "s").embeddings().vectors, expected_vectors(COUNT).astype(np.float16)[rows]
    )


def test_a_store_from_before_receipts_kept_files_goes_on_as_it_is(folder):
    document, _ = read_document(folder / "s" / "store.json")
    write_document(folder / "s" / "store.json", document | {"format_version": 2}, label="store")
    for path in (folder / "s" / "parts" / "0000" / "receipts").iterdir():
        receipt, _ = read_document(path)
        del receipt["sources"]
        write_document(path, receipt, label="receipt")
    assert open_store(folder / "s").rows == COUNT
    os.utime(folder / "images" / "image2.png", (1, 1))
    summary, _ = run(folder, manifest_of(COUNT))
    assert summary.computed == 0
    document, _ = read_document(folder / "s" / "store.json")
    assert document["format_version"] == 3


def test_several_parts_are_revised_at_once(folder):
    write_pictures(folder / "images", range(COUNT, 15))
    run(folder, manifest_of(15))
    _, lines = run(folder, with_column("split", ["test"] * 15, count=15))
    assert lines == ["revised, split: 15 rows changed"]
    store = open_store(folder / "s")
    assert [len(part.plan.revisions) for part in store.parts] == [1, 1]
    assert store.table.column("split").unique().to_pylist() == ["test"]


def test_a_dry_run_says_what_would_be_revised_and_writes_nothing(folder):
    files = {path: path.read_bytes() for path in (folder / "s").rglob("*") if path.is_file()}
    manifest = with_column("split", ["test"] * COUNT)
    found = dry_run(Collection("test", folder / "images", manifest), folder / "s", MeanEncoder())
    assert found.revised == (f"split: {COUNT} rows changed",)
    assert {path: path.read_bytes() for path in (folder / "s").rglob("*") if path.is_file()} == files


POINTS = failpoint_names("manifest", "part", "store", "receipt", "vectors", "further", "content")


@pytest.mark.parametrize("point", POINTS)
def test_dying_at_a_failpoint_of_a_revision_leaves_before_or_after(tmp_path, point):
    root = tmp_path / "s"
    make_store(root, rows=COUNT, chunk_rows=4, identity=TokenEncoder().identity)
    splits = ["test"] * COUNT
    changed = with_column("split", splits)
    frames = pa.array([3 if number == 5 else None for number in range(COUNT)], pa.int32())
    changed = Manifest(changed.table.set_column(2, "frame", frames))
    child = os.fork()
    if child == 0:
        os.environ[FAILPOINT_VARIABLE] = point
        try:
            revise(root, changes_of(open_store(root), changed))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == FAILPOINT_EXIT_CODE
    after = point in ("store.renamed", "store.durable")
    store = open_store(root)
    expected = changed if after else manifest_of(COUNT)
    assert store.table.column("split").to_pylist() == expected.column("split")
    # Row 5 has its vector, or says that it has none any more: never under the frame that it is not of.
    ids = store.embeddings().image_ids.tolist()
    if "image5" in ids:
        assert store.table.column("frame")[5].as_py() is None
    else:
        assert [(failure.row, failure.reason) for failure in store.failures] == [(5, Reason.CHANGED)]
    rest = [number for number in range(COUNT) if number != 5]
    np.testing.assert_array_equal(
        store.select([f"image{number}" for number in rest]).vectors[:, 0], np.array(rest, np.float16)
    )
    damaged = [finding for finding in verify_store(root).findings if "interrupted" not in finding.problem]
    assert damaged == []
    repair_store(root)
    # Whoever comes next finishes it.
    revise(root, changes_of(open_store(root), changed))
    assert open_store(root).table.column("split").to_pylist() == splits
    assert verify_store(root).findings == ()


def test_a_lost_store_json_is_rebuilt_with_the_last_revision(folder):
    run(folder, with_column("split", ["test"] * COUNT))
    (folder / "s" / "store.json").unlink()
    repair_store(folder / "s")
    assert open_store(folder / "s").table.column("split").unique().to_pylist() == ["test"]
    assert verify_store(folder / "s").findings == ()


def test_withdrawn_rows_are_nan_for_whoever_reads_the_arrays(folder):
    import zarr

    part = open_store(folder / "s").parts[0]
    withdraw(part, {2: "why"})
    vectors = zarr.open_group(str(part.layout.folder), mode="r")["vectors"][:]
    assert np.isnan(vectors[2]).all()
    assert not np.isnan(np.delete(vectors, 2, axis=0)).any()
    summary, _ = run(folder, manifest_of(COUNT))
    assert (summary.computed, summary.valid) == (1, COUNT)


def test_comparing_and_revising_do_not_depend_on_the_order_of_the_table(folder):
    table = with_column("split", ["test"] * COUNT).table
    shuffled = manifest_from_table(table.take(pa.array([3, 1, 9, 0, 2, 8, 7, 6, 5, 4])), source="test")
    run(folder, shuffled)
    store = open_store(folder / "s")
    assert store.table.column("image_id").to_pylist() == manifest_of(COUNT).column("image_id")
    assert pc.all(pc.equal(store.table.column("split"), "test")).as_py()
    assert changes_of(store, shuffled) == []


def test_numbers_in_one_part_and_words_in_another_are_text(folder):
    run(folder, with_column("age", list(range(COUNT)), kind=pa.int64()))
    write_pictures(folder / "images", range(COUNT, COUNT + 2))
    ages = [*map(str, range(COUNT)), "old", None]
    run(folder, with_column("age", ages, count=COUNT + 2))
    assert open_store(folder / "s").table.column("age").to_pylist() == ages


def test_parts_of_two_number_formats_are_tried_again_each_in_its_own(folder):
    write_pictures(folder / "images", range(COUNT, COUNT + 4))
    for count in (COUNT + 2, COUNT + 4):
        lines: list[str] = []
        extract(
            collection_of(folder / "images", count),
            folder / "s",
            MeanEncoder(),
            options=ExtractOptions(chunk_rows=4, batch_size=3, workers=1, store_dtype="float32"),
            observer=Observer(say=lines.append),
        )
        assert lines == []


def test_a_first_frame_and_a_series_of_radiographs_decide_no_pixels(folder):
    summary, lines = run(folder, with_column("frame", [0] * COUNT, kind=pa.int32()))
    assert (summary.computed, lines) == (0, [f"revised, frame: {COUNT} rows changed"])
    table = with_column("frame", [0] * COUNT, kind=pa.int32()).table
    series = pa.array([f"series{number % 2}" for number in range(COUNT)])
    manifest = Manifest(table.set_column(table.column_names.index("series_id"), "series_id", series))
    summary, lines = run(folder, manifest)
    assert (summary.computed, lines) == (0, [f"revised, series_id: {COUNT} rows changed"])
