"""Stores of crops: ordinary records, whose vectors are those of the picture at their place and of no other."""

from __future__ import annotations

import io
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pydicom
import pytest
from PIL import Image

from cli.jobs.describe_store import describe_store
from embedstore.crops.crop_collection import with_crops
from embedstore.datasets.base import read_dataset
from embedstore.decoding.decode import DecodeJob, SerialDecoder
from embedstore.encoders.base import OfCrops
from embedstore.errors import IdentityMismatch, UsageError
from embedstore.extraction.dry_run import dry_run
from embedstore.extraction.extract import Choose, ExtractOptions, Observer, OfCropsSource, extract
from embedstore.images.preprocess import PreprocessSpec
from embedstore.keys.key_file import read_key
from embedstore.manifest import path_from_manifest
from embedstore.pipeline.chunk_work import box_of
from embedstore.pipeline.embed_images import EmbedOptions, embed_records
from embedstore.queries.thumbnails import SIZE_PX, thumbnails_of_units
from embedstore.store.reader import open_store
from embedstore.store.verify import verify_store
from tests.lumbar_studies import blobs, usual_points, usual_series, write_study
from tests.stores import MeanEncoder, store_bytes

BALLS = np.random.default_rng(5).uniform((-30, -25, -40), (30, 35, 45), (25, 3))
OPTIONS = ExtractOptions(chunk_rows=16, batch_size=8, workers=1)
CONDITIONS = {
    "Spinal Canal Stenosis": ("102", 5),
    "Left Neural Foraminal Narrowing": ("101", 8),
    "Right Neural Foraminal Narrowing": ("101", 2),
}


def coordinates():
    """Readers' points of study 1 at two levels, and of study 2 at one."""
    lines = ["study_id,series_id,instance_number,condition,level,x,y"]
    for place, (condition, (series, instance)) in enumerate(CONDITIONS.items()):
        for level, y in (("L3/L4", 12.5), ("L4/L5", 34.0)):
            lines.append(f"1,{series},{instance},{condition},{level},{20.25 + place},{y}")
    return "\n".join([*lines, "2,102,2,Spinal Canal Stenosis,L3/L4,20,12"]) + "\n"


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Two studies, the second of three slices a series."""
    root = tmp_path_factory.mktemp("rsna")
    series = usual_series(shape=(48, 40))
    write_study(root, "1", series, blobs(BALLS, width_mm=5.0))
    few = [
        replace(entry, middles_mm=entry.middles_mm[start : start + 3])
        for entry, start in zip(series, (3, 3, 0), strict=True)
    ]
    write_study(root, "2", few, blobs(BALLS, width_mm=5.0))
    (root / "train_label_coordinates.csv").write_text(coordinates())
    return read_dataset("rsna-lumbar", root)


@pytest.fixture(scope="module")
def filled(slices, tmp_path_factory):
    """A store of the crops of study 1, around localised points."""
    path = tmp_path_factory.mktemp("filled") / "crops.store"
    extract(slices, path, MeanEncoder(), crops=usual_points("1"), options=OPTIONS)
    return open_store(path)


def with_points(slices, *, studies=("1", "2"), shift_px=0.0):
    """Return the data set with the readers' points of some studies, the first `shift_px` farther to the right."""
    table = slices.tables["coordinates"].to_pylist()
    table[0]["x"] += shift_px
    kept = pa.Table.from_pylist(
        [row for row in table if row["study_id"] in studies], slices.tables["coordinates"].schema
    )
    return replace(slices, tables={"coordinates": kept})


def bring_up_to_date(slices, store, **more):
    lines = []
    observer = Observer(say=lines.append)
    more = {"crops": "oracle"} | more
    return extract(slices, store, MeanEncoder(), options=OPTIONS, observer=observer, **more), lines


def test_crops_are_shown_over_the_values_of_their_whole_series(filled, slices):
    """The range by NumPy over every file of a series, the crop by the decoder, the vector by the encoder alone."""
    collection = with_crops(slices, usual_points("1"))
    encoder = MeanEncoder()
    records = list(collection.manifest.records())
    assert list(filled.image_ids) == [record.image_id for record in records]
    assert filled.rows == 30
    ranges = {}
    for series in ("101", "102", "103"):
        files = sorted((slices.root / "train_images" / "1" / series).glob("*.dcm"))
        values = np.stack([pydicom.dcmread(file).pixel_array for file in files])
        ranges[f"1/{series}"] = tuple(np.percentile(values, [1, 99]))
    jobs = [
        DecodeJob(
            str(path_from_manifest(slices.root, record.path)),
            0,
            "MR",
            ranges[record.series_id],
            crop=box_of(record),
        )
        for record in records
    ]
    pictures = [found.pixels for found in SerialDecoder(encoder.preprocess).decode(jobs)]
    wanted = encoder.encode(np.stack(pictures))
    np.testing.assert_allclose(filled.select(filled.image_ids).vectors, wanted, atol=0.13)  # float16
    assert np.ptp(wanted[:, 0]) > 20
    # Two crops of one slice are two images.
    assert len(np.unique(filled.content_sha256(), axis=0)) == 30


def test_a_filled_store_is_left_alone_and_verified(filled, slices):
    before = store_bytes(filled.path)
    summary, lines = bring_up_to_date(slices, filled.path, crops=usual_points("1"))
    assert (summary.valid, summary.pending, lines) == (30, 0, [])
    assert store_bytes(filled.path) == before
    assert verify_store(filled.path).findings == ()


def test_an_interrupted_extraction_of_crops_goes_on_to_the_same_store(filled, slices, tmp_path):
    asked = iter(range(100))
    observer = Observer(stopping=lambda: next(asked) > 17)  # in the second of two chunks
    more = {"crops": usual_points("1"), "options": OPTIONS}
    summary = extract(slices, tmp_path / "s.store", MeanEncoder(), observer=observer, **more)
    assert summary.interrupted
    assert summary.pending == 14
    extract(slices, tmp_path / "s.store", MeanEncoder(), **more)
    assert store_bytes(tmp_path / "s.store") == store_bytes(filled.path)


def test_another_localiser_is_refused_and_so_is_another_rule(filled, slices):
    for changed, match in [
        ({"crops": usual_points("1", digest="cd" * 32)}, "preprocess.crop.localiser_sha256: 'abab"),
        ({"crops": "oracle"}, "preprocess.crop.points: 'localised' there, 'oracle' asked"),
        ({"crops": usual_points("1"), "crop_mm": 40.0}, "size_mm: 50.0 there, 40.0 asked"),
        ({"crops": usual_points("1"), "crop_neighbours": 2}, "neighbours: 1 there, 2 asked"),
        ({"crops": None}, "holds vectors of crops around level points.*Give `crops`"),
    ]:
        with pytest.raises(IdentityMismatch, match=match):
            bring_up_to_date(slices, filled.path, **changed)


def test_size_and_neighbours_of_a_store_hold_for_what_is_added(slices, tmp_path):
    store = tmp_path / "s.store"
    bring_up_to_date(with_points(slices, studies=["1"]), store, crop_mm=40.0, crop_neighbours=0)
    summary, _ = bring_up_to_date(slices, store)
    table = open_store(store).table
    assert summary.valid == table.num_rows
    assert set(table.column("crop_width_px").to_pylist()) == {32.0}  # 40 mm of 1.25 mm
    assert set(table.column("offset").to_pylist()) == {0}
    assert (
        table.column("study_id").to_pylist().count("2") == 3
    )  # the canal, and both sides of the axial slice


def test_a_point_that_was_moved_has_its_crops_computed_again(slices, tmp_path):
    store, fresh = tmp_path / "s.store", tmp_path / "fresh.store"
    bring_up_to_date(with_points(slices, studies=["1"]), store)
    moved = with_points(slices, studies=["1"], shift_px=2.5)
    summary, lines = bring_up_to_date(moved, store)
    # Three sagittal crops of the canal, and the axial crops around it, three slices for each side.
    assert [line for line in lines if "crop_" in line] == [
        "revised, crop_left_px: 3 rows changed",
        "revised, crop_top_px: 6 rows changed",
    ]
    assert "9 images will be computed again: what the data set says of the pixels changed" in lines
    bring_up_to_date(moved, fresh)
    one, other = open_store(store), open_store(fresh)
    assert summary.valid == one.rows == other.rows
    np.testing.assert_array_equal(one.select(other.image_ids).vectors, other.select(other.image_ids).vectors)


def test_crops_of_a_slice_that_cannot_be_read_fail_with_its_reason(slices, tmp_path):
    store = tmp_path / "s.store"
    broken = replace(slices, root=shutil.copytree(slices.root, tmp_path / "root"))
    paths = [broken.root / "train_images/1/102/5.dcm", broken.root / "train_images/1/101/8.dcm"]
    whole = [path.read_bytes() for path in paths]
    paths[0].write_bytes(whole[0][:-500])
    paths[1].unlink()
    summary, _ = bring_up_to_date(broken, store)
    held = open_store(store)
    failures = {held.image_ids[failure.row]: str(failure.reason) for failure in held.failures}
    assert {name.partition("#")[0]: reason for name, reason in failures.items()} == {
        "train_images/1/102/5.dcm": "unreadable",
        "train_images/1/101/8.dcm": "missing",
    }
    assert sum(summary.failed.values()) == len(failures) == 4  # two levels of each
    assert summary.valid > 15
    for path, content in zip(paths, whole, strict=True):
        path.write_bytes(content)
    summary, _ = bring_up_to_date(broken, store, choose=Choose.NEW_OR_FAILED)
    assert (dict(summary.failed), summary.pending) == ({}, 0)


def test_nothing_is_written_by_a_dry_run(slices, tmp_path):
    collection = with_crops(slices, usual_points("1"))
    found = dry_run(collection, tmp_path / "none.store", MeanEncoder(), options=OPTIONS)
    assert (found.images, found.sampled, found.refused) == (30, 30, {})
    assert not (tmp_path / "none.store").exists()


def test_whole_images_do_not_pass_for_crops_nor_crops_for_images(slices):
    collection = with_crops(slices, usual_points("1"))
    (crop,), (whole,) = collection.manifest.records(0, 1), collection.images.records(0, 1)
    with pytest.raises(UsageError, match="is a crop, and these vectors are of whole images"):
        embed_records([crop], slices.root, MeanEncoder())
    with pytest.raises(UsageError, match="these vectors are of crops around level points"):
        embed_records([whole], slices.root, OfCrops(MeanEncoder(), collection.crop))


def test_crops_outside_a_store_have_the_vectors_of_the_store(filled, slices):
    """As a new study is answered: the crops alone, with all slices for the ranges of their series."""
    collection = with_crops(slices, usual_points("1"))
    records = list(collection.manifest.records())[::4]
    options = EmbedOptions(members=list(collection.images.records()))
    found = embed_records(records, slices.root, OfCrops(MeanEncoder(), collection.crop), options)
    stored = filled.select([record.image_id for record in records])
    np.testing.assert_array_equal(found.vectors, stored.vectors)


def test_a_thumbnail_shows_the_crop_and_not_its_slice(filled, slices):
    (found,) = thumbnails_of_units([filled], ["1"], "study").values()
    (record,) = filled.parts[0].manifest.records(0, 1)
    job = DecodeJob(str(path_from_manifest(slices.root, record.path)), crop=box_of(record))
    decoder = SerialDecoder(PreprocessSpec(size_px=SIZE_PX))
    crop, whole = (
        next(decoder.decode([asked])).pixels.astype(int) for asked in (job, replace(job, crop=None))
    )
    shown = np.asarray(Image.open(io.BytesIO(found)))
    assert np.abs(shown - crop).mean() < 3 < np.abs(shown - whole).mean()


def test_crops_of_a_folder_of_dicom_keep_no_path(filled, tmp_path):
    times = [("12", "600"), ("100", "3500"), ("100", "3500")]
    series = [
        replace(entry, elements={"EchoTime": echo, "RepetitionTime": repetition})
        for entry, (echo, repetition) in zip(usual_series(shape=(48, 40)), times, strict=True)
    ]
    write_study(tmp_path / "rsna", "1", series, blobs(BALLS, width_mm=5.0))
    key = tmp_path / "key"
    key.write_bytes(b"secret of sixteen bytes or more")
    collection = read_dataset("dicom-folder", tmp_path / "rsna" / "train_images", {"key_file": key})
    (study,) = set(collection.manifest.column("study_id"))
    extract(collection, tmp_path / "s.store", MeanEncoder(), crops=usual_points(study), options=OPTIONS)
    store = open_store(tmp_path / "s.store")
    assert set(store.table.column("path").to_pylist()) == {None}
    kept = b"".join(store_bytes(store.path).values())
    assert b"train_images" not in kept
    # The owner finds the slice of a crop by the map beside the key.
    assert len(thumbnails_of_units([store], [study], "study", key=read_key(key))) == 1
    for one, other in zip(_named(store), _named(filled), strict=True):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1], other[1])


def _named(store):
    """What each crop is, and its vector, in an order of their own."""
    names = [store.table.column(name).to_pylist() for name in ("crop", "level", "side", "offset")]
    vectors = store.select(store.image_ids).vectors
    return sorted(zip(zip(*names, strict=True), vectors, strict=True), key=lambda entry: entry[0])


def test_what_a_store_of_crops_is_stands_in_its_description(filled):
    said = describe_store(filled.path)
    assert said["data"]["images_by"]["crop"] == {
        "axial_t2": 12,
        "canal_sagittal_t2": 6,
        "foramen_sagittal_t1": 12,
    }
    assert said["data"]["images_by"]["points"] == {"localised": 30}
    assert said["identity"]["preprocess"]["crop"]["size_mm"] == 50.0


def test_an_extraction_of_crops_travels_to_the_processes_of_other_devices(slices, filled):
    collection = with_crops(slices, usual_points("1"))
    sent = pickle.loads(pickle.dumps((collection, OfCropsSource(_built, collection.crop))))
    assert sent[0] == collection
    assert list(sent[0].manifest.records()) == list(collection.manifest.records())
    assert sent[1](device="cpu").identity == filled.identity


def _built(*, device):
    del device
    return MeanEncoder()
