"""Our rendering against dcmtk's, over pairs of everything that a header may say of its pixels.

1,008 files by default; ``EMBEDSTORE_GRID_FILES=10000`` for more, ``EMBEDSTORE_GRID_SEED`` for others. A failure names
the number of a file, and ``EMBEDSTORE_GRID_KEEP=folder`` keeps the files.

What is compared is the picture before it is resized. dcmtk renders the same frame with 16 bits; the test stretches its
values to 0 ... 255 and makes padding black, as docs/data.md says for radiographs. Both round, so one grey level may
differ, and three where a lossy codec's inverse cosine transform is one of several that ITU-T T.83 allows.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import ImageRefused
from embedstore.images.dicom import open_dicom
from embedstore.images.hostile import open_regular
from embedstore.images.rendering import render
from tests.differential import dcmtk
from tests.differential.cases import DCT, FACTORS, Case, made_possible, make_case
from tests.differential.pairwise import pairwise_rows
from tests.image_files import dataset, dicom_bytes

FILES = int(os.environ.get("EMBEDSTORE_GRID_FILES", "1008"))
SEED = int(os.environ.get("EMBEDSTORE_GRID_SEED", "20261128"))
KEEP = os.environ.get("EMBEDSTORE_GRID_KEEP", "")


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    rows = pairwise_rows(FACTORS, made_possible, count=FILES, seed=SEED)
    return [make_case(number, row, seed=SEED) for number, row in enumerate(rows)]


def test_pairs_of_levels_meet_in_few_rows():
    factors = {"a": (1, 2, 3), "b": ("x", "y", "z"), "c": (False, True), "d": (0, 1, 2, 3)}

    def never_1_with_x(row):
        return row | {"b": "y"} if (row["a"], row["b"]) == (1, "x") else row

    rows = list(pairwise_rows(factors, never_1_with_x, count=20, seed=0))
    met = {(one, row[one], two, row[two]) for row in rows for one in factors for two in factors if one < two}
    # All pairs of levels of two factors, of which one cannot be.
    assert len(met) == 9 + 6 + 12 + 6 + 12 + 8 - 1
    assert rows == list(pairwise_rows(factors, never_1_with_x, count=20, seed=0))


@pytest.mark.skipif(not dcmtk.is_installed(), reason=dcmtk.MISSING)
@pytest.mark.timeout(0 if FILES > 1008 else 300)
def test_every_file_of_the_grid_is_shown_as_dcmtk_shows_it(cases, tmp_path):
    folder = Path(KEEP) if KEEP else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    paths = [case.write(folder) for case in cases]
    calls = [
        (case.dcmtk_program(), case.dcmtk_options(), theirs, folder / str(case.number))
        for case, (_, theirs) in zip(cases, paths, strict=True)
    ]
    dcmtk.render(calls, folder)
    found = {}
    for case, (ours, _) in zip(cases, paths, strict=True):
        difference = difference_of(case, ours, folder)
        if difference:
            found[case] = difference
    lines = [f"{difference}\n  {case}" for case, difference in found.items()]
    assert not lines, f"{len(lines)} of {len(cases)} files differ:\n" + "\n".join(lines[:20])


def difference_of(case: Case, path: Path, folder: Path) -> str:
    """Return how our pictures of a file differ from dcmtk's, or nothing."""
    reference = dcmtk.rendered(folder / str(case.number), case.frames)
    if reference is None:
        return "dcmtk does not render it"
    try:
        with open_regular(str(path), max_bytes=1 << 24) as file:
            source = open_dicom(file, max_pixels=1 << 20, max_frames=9, max_inflated_bytes=1 << 24)
            ours = np.stack([render(source.read(frame), None) for frame in range(source.frames)])
    except ImageRefused as refusal:
        return f"refused: {refusal}"
    expected = np.stack([shown(*frame, case) for frame in zip(reference, case.padding, strict=True)])
    if case.is_colour and ours.ndim == 3 and (np.ptp(expected, axis=-1) == 0).all():
        expected = expected[..., 0]
    if ours.shape != expected.shape:
        return f"shape {ours.shape}, dcmtk's {expected.shape}"
    off = np.abs(ours.astype(int) - expected)
    allowed = allowed_difference(case)
    return f"{off.max()} grey levels, {(off > allowed).mean():.0%} of pixels" if off.max() > allowed else ""


def allowed_difference(case: Case) -> int:
    """Return how many grey levels two right decoders may differ by."""
    if case.row["syntax"] in DCT:
        # A window stretches one stored value to several grey levels.
        return 3 if case.row["voi"] in ("none", "width 0") else 8
    # YCbCr becomes RGB by fractions (PS3.3 C.7.6.3.1.2), which dcmtk rounds one by one.
    return 2 if case.row["photometric"] == "YBR_FULL" else 1


def shown(reference: np.ndarray, padding: np.ndarray, case: Case) -> np.ndarray:
    """Return the picture that docs/data.md promises, from dcmtk's 16-bit rendering of one frame."""
    if case.is_colour:
        return np.rint(reference / 257)
    used = reference[~padding]
    low, high = used.min(), used.max()
    stretched = np.rint(np.clip((reference - low) / max(high - low, 1), 0, 1) * 255)
    return np.where(padding, 0, stretched)


@pytest.mark.skipif(not dcmtk.is_installed(), reason=dcmtk.MISSING)
@pytest.mark.parametrize(
    "spacing",
    [
        {"PixelAspectRatio": ["2", "1"]}, {"PixelAspectRatio": ["3", "4"]}, {"PixelSpacing": ["0.1", "0.3"]},
        {"ImagerPixelSpacing": ["0.2", "0.1"]}, {"PixelSpacing": ["0.2", "0.2"]},
    ],
    ids=str,
)  # fmt: skip
def test_pixels_that_are_not_square_have_the_shape_that_dcmtk_gives_them(spacing, tmp_path):
    path = tmp_path / "image.dcm"
    pixels = np.arange(60 * 90, dtype=np.uint16).reshape(60, 90)
    path.write_bytes(dicom_bytes(dataset(pixels, SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", **spacing)))
    dcmtk.render([("dcm2pnm", ("-W", "+Sxf", "1.0"), path, tmp_path / "image")], tmp_path)
    height, width = dcmtk.rendered(tmp_path / "image", 1).shape[1:]
    with open_regular(str(path), max_bytes=1 << 24) as file:
        image = open_dicom(file, max_pixels=1 << 20, max_frames=9, max_inflated_bytes=1 << 24).read(0)
    assert width == 90
    assert abs(60 * image.pixel_aspect - height) <= 1
