"""Enhanced files are stacks too: each frame lies where its functional groups say."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    SecondaryCaptureImageStorage,
    XRayAngiographicImageStorage,
)

from embedstore.datasets.dicom_folder import DicomFolder
from embedstore.headers.file_frames import frame_id
from tests.dicom_objects import AXIAL, SAGITTAL, dicom_object, enhanced, group, item, save, with_pixels

RESCALE = item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")


@pytest.fixture
def read(tmp_path):
    def read_folder():
        collection = DicomFolder(tmp_path / "key").read(tmp_path / "files")
        return collection, {
            frame_id(collection.manifest.paths[row["image_id"]], row["frame"]): row
            for row in collection.manifest.table.to_pylist()
        }

    return read_folder


def cells(rows, name):
    return [row[name] for row in rows.values()]


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        (EnhancedCTImageStorage, "CT"),
        (EnhancedMRImageStorage, "MR"),
        (EnhancedPETImageStorage, "PT"),
        (LegacyConvertedEnhancedCTImageStorage, "CT"),
    ],
)
@pytest.mark.parametrize("implicit", [False, True])
def test_frames_are_placed_by_their_positions_whatever_their_order(
    tmp_path, read, sop_class, modality, implicit
):
    shared = group(
        orientation=AXIAL, spacing=(0.5, 0.25), thickness=2, PixelValueTransformationSequence=RESCALE
    )
    own = [group(position=(-10, 20, z)) for z in (6, 2, 4, 0)]
    save(enhanced(sop_class, modality, shared, own), tmp_path / "files/one.dcm", implicit=implicit)
    collection, rows = read()
    assert list(rows) == ["one.dcm", "one.dcm#1", "one.dcm#2", "one.dcm#3"]
    assert cells(rows, "plane") == ["axial"] * 4
    assert cells(rows, "stack") == [0] * 4
    assert cells(rows, "position_mm") == [6, 2, 4, 0]
    assert cells(rows, "slice_index") == [3, 1, 2, 0]
    assert cells(rows, "position_fraction") == pytest.approx([1, 1 / 3, 2 / 3, 0], abs=1e-6)
    # The centre's x: -10 + 0.25 mm between columns x (6 - 1) / 2.
    assert cells(rows, "left_right_mm") == [-9.375] * 4
    assert cells(rows, "row_spacing_mm") == [0.5] * 4
    assert cells(rows, "column_spacing_mm") == [0.25] * 4
    assert cells(rows, "slice_thickness_mm") == [2] * 4
    assert collection.summary["files of several frames"] == "1 with 4 frames"
    assert collection.summary["images by plane"] == "axial 4"


def test_a_frame_s_own_groups_win_over_the_shared_ones(tmp_path, read):
    shared = group(orientation=AXIAL, spacing=(1, 1), thickness=3)
    own = [
        group(position=(0, 0, 5)),
        group(position=(7, 0, 0), orientation=SAGITTAL, spacing=(2, 3), thickness=4),
    ]
    save(enhanced(EnhancedMRImageStorage, "MR", shared, own), tmp_path / "files/scout.dcm")
    _, rows = read()
    assert cells(rows, "plane") == ["axial", "sagittal"]
    assert cells(rows, "stack") == [0, 1]
    assert cells(rows, "position_mm") == [5, 7]
    assert cells(rows, "row_spacing_mm") == [1, 2]
    assert cells(rows, "column_spacing_mm") == [1, 3]
    assert cells(rows, "slice_thickness_mm") == [3, 4]


def test_stacks_that_the_file_tells_apart_stay_apart_at_one_orientation(tmp_path, read):
    shared = group(orientation=AXIAL, spacing=(1, 1), thickness=3)
    own = [
        group(position=(0, 0, z), content=item(StackID=stack, InStackPositionNumber=number))
        for z, stack, number in ((0, "L5", 1), (50, "L1", 1), (3, "L5", 2), (53, "L1", 2))
    ]
    save(enhanced(EnhancedMRImageStorage, "MR", shared, own), tmp_path / "files/discs.dcm")
    _, rows = read()
    assert cells(rows, "stack") == [0, 1, 0, 1]  # numbered by first appearance
    assert cells(rows, "slice_index") == [0, 0, 1, 1]
    assert cells(rows, "position_fraction") == [0, 0, 1, 1]


def test_frames_without_a_position_are_ranked_by_their_number_in_the_stack(tmp_path, read):
    own = [group(content=item(StackID="1", InStackPositionNumber=number)) for number in (3, 1, 2)]
    save(enhanced(EnhancedMRImageStorage, "MR", group(spacing=(1, 1)), own), tmp_path / "files/one.dcm")
    _, rows = read()
    assert cells(rows, "slice_index") == [2, 0, 1]
    assert cells(rows, "stack") == [0] * 3
    assert cells(rows, "plane") == cells(rows, "position_mm") == [None] * 3


def test_frames_without_a_position_are_ranked_by_the_dimension_that_counts_positions(tmp_path, read):
    # The second dimension points to InStackPositionNumber (0020,9057), the first to TemporalPositionIndex.
    pointers = [item(DimensionIndexPointer=0x00209128), item(DimensionIndexPointer=0x00209057)]
    own = [group(content=item(DimensionIndexValues=[1, number])) for number in (2, 3, 1)]
    made = enhanced(EnhancedMRImageStorage, "MR", group(), own, DimensionIndexSequence=pointers)
    save(made, tmp_path / "files/one.dcm")
    _, rows = read()
    assert cells(rows, "slice_index") == [1, 2, 0]


def test_frames_at_one_place_keep_their_order(tmp_path, read):
    own = [group(position=(0, 0, z)) for z in (2, 0, 2, 0)]  # two phases
    shared = group(orientation=AXIAL, spacing=(1, 1))
    save(enhanced(EnhancedMRImageStorage, "MR", shared, own), tmp_path / "files/phases.dcm")
    _, rows = read()
    assert cells(rows, "slice_index") == [2, 0, 3, 1]
    assert cells(rows, "position_fraction") == [1, 0, 1, 0]


def test_breast_tomosynthesis_has_planes_of_its_own(tmp_path, read):
    mlo = (0, 1, 0, -np.sqrt(0.5), 0, -np.sqrt(0.5))  # normal midway between two axes
    own = [group(position=(-z * np.sqrt(0.5), 0, z * np.sqrt(0.5))) for z in (0, 1, 2)]
    made = enhanced(
        BreastTomosynthesisImageStorage, "MG", group(orientation=mlo, spacing=(0.1, 0.1), thickness=1), own
    )
    save(made, tmp_path / "files/dbt.dcm")
    _, rows = read()
    assert cells(rows, "plane") == ["oblique"] * 3
    assert np.abs(np.diff(cells(rows, "position_mm"))) == pytest.approx([1, 1], abs=1e-3)
    assert cells(rows, "slice_index") in ([0, 1, 2], [2, 1, 0])


def test_an_enhanced_file_of_one_frame_is_placed_too(tmp_path, read):
    shared = group(orientation=SAGITTAL, spacing=(1, 1))
    save(
        enhanced(EnhancedMRImageStorage, "MR", shared, [group(position=(4, 0, 0))]),
        tmp_path / "files/one.dcm",
    )
    _, rows = read()
    assert (cells(rows, "plane"), cells(rows, "position_mm")) == (["sagittal"], [4])


def test_classic_and_enhanced_slices_of_one_series_make_one_stack(tmp_path, read):
    pixels = np.zeros((1, 8, 6), np.uint16)
    classic = dicom_object(
        CTImageStorage,
        "CT",
        ImageOrientationPatient=list(AXIAL),
        ImagePositionPatient=[0, 0, 1],
        PixelSpacing=[1, 1],
    )
    save(with_pixels(classic, pixels), tmp_path / "files/a.dcm")
    own = [group(position=(0, 0, z)) for z in (2, 0)]
    save(
        enhanced(EnhancedCTImageStorage, "CT", group(orientation=AXIAL, spacing=(1, 1)), own),
        tmp_path / "files/b.dcm",
    )
    _, rows = read()
    assert cells(rows, "slice_index") == [1, 2, 0]


def test_several_frames_without_functional_groups_lie_nowhere(tmp_path, read):
    loop = dicom_object(
        XRayAngiographicImageStorage, "XA",
        ImageOrientationPatient=list(AXIAL), ImagePositionPatient=[0, 0, 1], PixelSpacing=[1, 1],
    )  # fmt: skip
    save(with_pixels(loop, np.zeros((2, 8, 6), np.uint8)), tmp_path / "files/loop.dcm")
    _, rows = read()
    assert cells(rows, "plane") == [None] * 2


@pytest.mark.parametrize("cells_of_group", [(1, 0, 0), ("x",) * 6, (1, 0, 0, 1, 0, 0)])
def test_impossible_groups_cost_the_place_and_not_the_images(tmp_path, read, cells_of_group):
    made = enhanced(
        EnhancedCTImageStorage, "CT", group(spacing=(1, 1)), [group(position=(0, 0, z)) for z in (0, 1)]
    )
    orientation = item()
    orientation.add_new(0x00200037, "LO", [str(cell) for cell in cells_of_group])
    made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [orientation]
    save(made, tmp_path / "files/one.dcm", implicit=True)
    _, rows = read()
    assert len(rows) == 2
    assert cells(rows, "plane") == [None] * 2


def test_fewer_groups_than_frames_leave_the_rest_without_a_place(tmp_path, read):
    made = enhanced(
        EnhancedCTImageStorage, "CT", group(orientation=AXIAL, spacing=(1, 1)),
        [group(position=(0, 0, z)) for z in (0, 1, 2)],
    )  # fmt: skip
    made.PerFrameFunctionalGroupsSequence = made.PerFrameFunctionalGroupsSequence[:2]
    save(made, tmp_path / "files/one.dcm")
    _, rows = read()
    assert cells(rows, "position_mm") == [0, 1, None]


def test_the_image_type_stands_in_the_manifest_and_a_frame_s_own_type_wins(tmp_path, read):
    for name, kind in (
        ("a", ["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"]),
        ("b", ["DERIVED", "SECONDARY"]),
    ):
        made = dicom_object(CTImageStorage, "CT", ImageType=kind)
        save(with_pixels(made, np.zeros((1, 8, 6), np.uint16)), tmp_path / f"files/{name}.dcm")
    own = [
        group(MRImageFrameTypeSequence=item(FrameType=["ORIGINAL", "PRIMARY", kind, "NONE"]))
        for kind in ("VOLUME", "PHASE_MAP")
    ]
    mixed = ["ORIGINAL", "PRIMARY", "MIXED", "NONE"]
    save(enhanced(EnhancedMRImageStorage, "MR", group(), own, ImageType=mixed), tmp_path / "files/c.dcm")
    named = dicom_object(SecondaryCaptureImageStorage, "OT")
    named.add_new(0x00080008, "LO", ["DERIVED", "Secretname^Anna"])
    save(with_pixels(named, np.zeros((1, 8, 6), np.uint8)), tmp_path / "files/d.dcm")
    collection, rows = read()
    assert cells(rows, "image_type") == [
        "ORIGINAL\\PRIMARY\\LOCALIZER",
        "DERIVED\\SECONDARY",
        "ORIGINAL\\PRIMARY\\VOLUME",
        "ORIGINAL\\PRIMARY\\PHASE_MAP",
        "DERIVED",
    ]
    assert "ORIGINAL\\PRIMARY\\LOCALIZER 1" in collection.summary["images by image type"]
