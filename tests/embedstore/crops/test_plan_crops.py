"""What lies at a known millimetre of the patient is in the middle of its crops, however slices are stored."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pydicom
import pytest
from scipy.ndimage import map_coordinates

from embedstore.crops.crop_collection import with_crops
from embedstore.crops.plan_crops import axes_of
from embedstore.datasets.rsna_lumbar import RsnaLumbar
from embedstore.decoding.decode import DecodeJob, SerialDecoder
from embedstore.images.preprocess import PreprocessSpec
from embedstore.manifest import path_from_manifest
from embedstore.pipeline.chunk_work import box_of
from tests.lumbar_studies import PLACES, blobs, level_points, usual_series, write_study

SIZE_PX = 56
RANGE = (0.0, 1000.0)
SYNTAXES = ("explicit", "implicit", "rle", "jpeg2000")
ACROSS = np.array([-1, 1, 1])
SIDES = {"left": "right", "right": "left"}
TURNS = {
    "2": {"columns": True},
    "3": {"rows": True},
    "4": {"columns": True, "rows": True, "exchanged": True},
}
MIRRORED = "5"
TILT = np.radians(17.0)


def pictures_of(collection):
    """Return the crops of a collection: a list of (row of the manifest, picture)."""
    rows = collection.manifest.table.to_pylist()
    jobs = [
        DecodeJob(
            str(path_from_manifest(collection.root, record.path)),
            record.frame,
            record.modality,
            RANGE,
            crop=box_of(record),
        )
        for record in collection.manifest.records()
    ]
    pictures = SerialDecoder(PreprocessSpec("pad", SIZE_PX)).decode(jobs)
    return [(row, found.pixels) for row, found in zip(rows, pictures, strict=True)]


def places_of(*studies):
    return {(study, *name): place for study in studies for name, place in PLACES.items()}


def by_name(crops):
    return {(row["crop"], row["level"], row["side"], row["offset"]): picture for row, picture in crops}


def middle_mm(picture, size_mm):
    """Return where the bright ball in the middle of a crop lies from the middle, in mm to the right and down."""
    steps = (np.arange(SIZE_PX) + 0.5) / SIZE_PX * size_mm - size_mm / 2
    near = np.hypot(steps[None], steps[:, None]) < 4.0
    bright = np.where(near, np.clip(picture.astype(float) - 20.0, 0.0, None), 0.0)
    return (bright.sum(axis=0) @ steps) / bright.sum(), (bright.sum(axis=1) @ steps) / bright.sum()


def turned_about_x(series):
    """Tilt an axial series, as a stack along L5/S1 is."""
    return replace(series, axes=((1.0, 0.0, 0.0), (0.0, np.cos(TILT), -np.sin(TILT))))


def test_a_marker_at_a_known_millimetre_is_in_the_middle_of_its_crops(tmp_path):
    for study, syntax in enumerate(SYNTAXES, start=1):
        series = usual_series(syntax=syntax)
        series[0] = series[0].turned(columns=True)
        series[1] = series[1].turned(exchanged=True)
        series[2] = turned_about_x(series[2])
        write_study(tmp_path, f"{study}", series, blobs(list(PLACES.values()), width_mm=2.0))
    points = level_points(places_of("1", "2", "3", "4"))
    found = pictures_of(with_crops(RsnaLumbar().read(tmp_path), points, size_mm=40, neighbours=0))
    for row, picture in found:
        assert row["distance_mm"] <= 2.5
        # Stored pixels are 1.25 x 1.5 mm; the ball may lie 2.5 mm beside its slice.
        assert np.hypot(*middle_mm(picture, 40)) < 0.4, row["image_id"]
    assert len(found) == 4 * (2 + 4 + 4)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A patient of many balls, the same stored in three other ways, and the patient in the mirror."""
    balls = np.random.default_rng(3).uniform((-30, -25, -40), (30, 35, 45), (20, 3))
    root = tmp_path_factory.mktemp("scene")
    signal = blobs(balls, width_mm=6.0)
    write_study(root, "1", usual_series(), signal)
    for study, turn in TURNS.items():
        series = [
            replace(entry.turned(**turn), middles_mm=entry.middles_mm[::-1]) for entry in usual_series()
        ]
        write_study(root, study, series, signal)
    series = [
        replace(entry, middles_mm=[ACROSS * np.array(middle) for middle in entry.middles_mm])
        for entry in usual_series()
    ]
    write_study(root, MIRRORED, series, blobs(balls * ACROSS, width_mm=6.0))
    points = places_of("1", *TURNS)
    for (structure, level), place in PLACES.items():
        side, _, rest = structure.partition("_")
        points[MIRRORED, f"{SIDES[side]}_{rest}" if rest else structure, level] = np.array(place) * ACROSS
    return RsnaLumbar().read(root), level_points(points)


@pytest.fixture(scope="module")
def crops(scene):
    """Study -> its crops."""
    found = pictures_of(with_crops(*scene))
    return {
        study: [(row, picture) for row, picture in found if row["study_id"] == study]
        for study in ("1", *TURNS, MIRRORED)
    }


def test_all_crops_of_a_level_are_there(crops):
    crops = crops["1"]
    assert sorted(by_name(crops)) == sorted(
        (kind, level, side, offset)
        for level in ("l3_l4", "l4_l5")
        for kind, sides in (
            ("canal_sagittal_t2", ["middle"]),
            ("foramen_sagittal_t1", ["left", "right"]),
            ("axial_t2", ["left", "right"]),
        )
        for side in sides
        for offset in (-1, 0, 1)
    )
    assert len({row["image_id"] for row, _ in crops}) == len(crops) == 30
    assert {row["mirrored"] for row, _ in crops if row["side"] == "right"} == {True}
    assert {row["mirrored"] for row, _ in crops if row["side"] != "right"} == {False}
    # Crops of one slice follow each other.
    paths = [row["path"] for row, _ in crops]
    assert len(set(paths)) == 1 + sum(one != other for one, other in pairwise(paths))


def test_axial_crops_are_around_the_subarticular_points_where_there_are_some(crops):
    rows = [row for row, _ in crops["1"] if row["crop"] == "axial_t2"]
    centres = {(row["level"], row["side"]): row["structure"] for row in rows}
    assert centres == {
        ("l3_l4", "left"): "left_subarticular",
        ("l3_l4", "right"): "right_subarticular",
        ("l4_l5", "left"): "canal",
        ("l4_l5", "right"): "canal",
    }
    plain, mirrored = (by_name(crops["1"])["axial_t2", "l4_l5", side, 0] for side in ("left", "right"))
    assert np.abs(plain[:, ::-1].astype(int) - mirrored).max() <= 1


def test_a_crop_shows_the_anatomy_at_its_millimetres(scene, crops):
    """Every pixel of three crops, placed in the patient by hand and looked up in the file by pydicom and SciPy."""
    away = (np.arange(SIZE_PX) + 0.5) / SIZE_PX * 50 - 25
    shown = {
        "canal_sagittal_t2": ("canal", (0, 1, 0), (0, 0, -1)),
        "foramen_sagittal_t1": ("right_foramen", (0, 1, 0), (0, 0, -1)),
        "axial_t2": ("right_subarticular", (-1, 0, 0), (0, 1, 0)),
    }
    compared = 0
    for row, picture in crops["1"]:
        structure, columns, rows = shown[row["crop"]]
        if row["structure"] != structure or row["level"] != "l3_l4" or row["offset"]:
            continue
        file = pydicom.dcmread(scene[0].root / row["path"])
        along_columns, along_rows = np.array(file.ImageOrientationPatient, float).reshape(2, 3)
        places = (
            np.array(PLACES[structure, "l3_l4"])
            + away[None, :, None] * np.array(columns)
            + away[:, None, None] * np.array(rows)
        ) - np.array(file.ImagePositionPatient, float)
        spacing = [float(value) for value in file.PixelSpacing]
        at = np.array([places @ along_rows / spacing[0], places @ along_columns / spacing[1]])
        grey = np.clip(file.pixel_array / 1000 * 255, 0, 255)
        wanted = map_coordinates(grey, at, order=1)
        assert np.abs(picture - wanted).max() <= 2.0, row["image_id"]
        compared += 1
    assert compared == 3


@pytest.mark.parametrize("study", TURNS)
def test_mirroring_or_reversing_a_series_changes_no_crop(crops, study):
    plain, turned = by_name(crops["1"]), by_name(crops[study])
    assert turned.keys() == plain.keys()
    for name, picture in plain.items():
        assert np.abs(turned[name].astype(int) - picture).max() <= 1, name


def test_the_right_of_a_mirrored_patient_is_the_left(crops):
    plain, mirrored = by_name(crops["1"]), by_name(crops[MIRRORED])
    compared = 0
    for (kind, level, side, offset), picture in plain.items():
        if side in SIDES:
            other = mirrored[kind, level, SIDES[side], offset]
            assert np.abs(other.astype(int) - picture).max() <= 1, (kind, level, side, offset)
            assert picture.std() > 5
            compared += 1
    assert compared == 24


def test_crops_of_another_size_and_number(scene):
    rows = with_crops(*scene, size_mm=30, neighbours=2).manifest.table.to_pylist()
    # Pixels of 1.5 x 1.25 mm; the axial slabs have three slices each.
    sizes = {(row["crop_height_px"], row["crop_width_px"]) for row in rows if row["study_id"] == "1"}
    assert sizes == {(20.0, 24.0)}
    assert {row["offset"] for row in rows if row["crop"] != "axial_t2"} == {-2, -1, 0, 1, 2}
    assert {row["offset"] for row in rows if row["crop"] == "axial_t2"} == {-1, 0, 1}


def test_tilted_slices_are_laid_by_their_nearest_axes():
    tilts = np.radians([-40.0, 0.0, 40.0])
    axial = np.array([(1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)) for tilt in tilts])
    assert axes_of(axial, "axial") == ["+c+r"] * 3
    assert axes_of(-axial, "axial") == ["-c-r"] * 3
    assert axes_of(axial[:, [3, 4, 5, 0, 1, 2]], "axial") == ["+r+c"] * 3
