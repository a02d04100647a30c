"""Studies in the layout of the RSNA lumbar competition, drawn from any signal and cut along any planes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.encaps import encapsulate

from embedstore.codecs.jpeg2000 import encode_jpeg2000
from embedstore.lumbar.level_points import LevelPoints, points_from_rows
from tests.dicom_objects import dicom_object, save, with_pixels

Signal = Callable[[np.ndarray], np.ndarray]
SAGITTAL_AXES = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
AXIAL_AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
DIGEST = "ab" * 32


@dataclass(frozen=True)
class Series:
    """A series: parallel slices through `middles_mm`, in the order of their instance numbers.

    Parameters
    ----------
    name
        A number, as the competition names series.
    description
        As its table says; empty for none.
    axes
        Directions of growing column and row index.
    middles_mm
        The middle of each slice.
    shape
        Rows, columns.
    spacing_mm
        Between rows, between columns.
    syntax
        ``explicit``, ``implicit``, ``rle`` or ``jpeg2000``.
    elements
        Further DICOM elements; None takes one away.
    """

    name: str
    description: str
    axes: tuple[Sequence[float], Sequence[float]]
    middles_mm: Sequence[Sequence[float]]
    shape: tuple[int, int] = (72, 60)
    spacing_mm: tuple[float, float] = (1.5, 1.25)
    syntax: str = "explicit"
    elements: Mapping[str, object] = field(default_factory=dict)

    def turned(self, *, columns: bool = False, rows: bool = False, exchanged: bool = False) -> Series:
        """Return the series as another scanner would store it: the same places, other order of pixels."""
        along_columns, along_rows = (np.array(axis, float) for axis in self.axes)
        along_columns, along_rows = along_columns * (-1 if columns else 1), along_rows * (-1 if rows else 1)
        if not exchanged:
            return replace(self, axes=(tuple(along_columns), tuple(along_rows)))
        return replace(
            self,
            axes=(tuple(along_rows), tuple(along_columns)),
            shape=self.shape[::-1],
            spacing_mm=self.spacing_mm[::-1],
        )


def blobs(places_mm: np.ndarray, *, width_mm: float = 2.5, background: float = 60.0) -> Signal:
    """Return a signal of bright balls at places over a dim background."""
    places = np.asarray(places_mm, float).reshape(-1, 3)

    def signal(points_mm: np.ndarray) -> np.ndarray:
        apart = np.linalg.norm(points_mm[..., None, :] - places, axis=-1)
        return background + 900.0 * np.exp(-((apart / width_mm) ** 2)).max(axis=-1)

    return signal


def write_study(root: Path, study: str, series: Sequence[Series], signal: Signal) -> None:
    """Write the slices of a study and add it to the table of descriptions."""
    for entry in series:
        for number, middle in enumerate(entry.middles_mm, start=1):
            path = root / "train_images" / study / entry.name / f"{number}.dcm"
            _write_slice(path, study, entry, number, np.array(middle, float), signal)
    table = root / "train_series_descriptions.csv"
    lines = table.read_text().splitlines() if table.exists() else ["study_id,series_id,series_description"]
    lines += [f"{study},{entry.name},{entry.description}" for entry in series]
    table.write_text("\n".join(lines) + "\n")


def _write_slice(
    path: Path, study: str, series: Series, number: int, middle: np.ndarray, signal: Signal
) -> None:
    along_columns, along_rows = (np.array(axis, float) for axis in series.axes)
    rows, columns = series.shape
    row_mm, column_mm = series.spacing_mm
    corner = middle - along_columns * (columns - 1) / 2 * column_mm - along_rows * (rows - 1) / 2 * row_mm
    places = (
        corner
        + along_columns * (np.arange(columns) * column_mm)[None, :, None]
        + along_rows * (np.arange(rows) * row_mm)[:, None, None]
    )
    levels = np.rint(signal(places)).astype(np.uint16)
    made = dicom_object(
        uid.MRImageStorage, "MR", PatientID=study, StudyInstanceUID=f"1.2.826.0.1.{study}",
        SeriesInstanceUID=f"1.2.826.0.1.{study}.{series.name}", InstanceNumber=number,
        ImagePositionPatient=[f"{value:.6f}" for value in corner],
        ImageOrientationPatient=[f"{value:.8f}" for value in (*along_columns, *along_rows)],
        PixelSpacing=[f"{row_mm:.4f}", f"{column_mm:.4f}"], SliceThickness="4",
    )  # fmt: skip
    with_pixels(made, levels[None])
    for name, value in series.elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    if series.syntax == "rle":
        made.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    elif series.syntax == "jpeg2000":
        made.PixelData = encapsulate([encode_jpeg2000(levels, 16)])
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
        made.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    if series.syntax in ("explicit", "implicit"):
        save(made, path, implicit=series.syntax == "implicit")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save_as(path, enforce_file_format=True)


def usual_series(
    *, sagittal_x_mm: Sequence[float] = (-20, -15, -10, -5, 0, 5, 10, 15, 20), **more: object
) -> list[Series]:
    """Return the three series of a study: sagittal T1 and T2, and an axial T2 of three slices at two levels."""
    sagittal = [(x, 4.0, 2.0) for x in sagittal_x_mm]
    axial = [(0.0, 4.0, z + step) for z in (20.0, -14.0) for step in (-4.0, 0.0, 4.0)]
    return [
        replace(Series("101", "Sagittal T1", SAGITTAL_AXES, sagittal), **more),
        replace(Series("102", "Sagittal T2/STIR", SAGITTAL_AXES, sagittal), **more),
        replace(Series("103", "Axial T2", AXIAL_AXES, axial, shape=(72, 61)), **more),
    ]


def level_points(
    places: Mapping[tuple[str, str, str], Sequence[float]],
    *,
    origin: str = "localised",
    digest: str = DIGEST,
    unsure: bool = False,
) -> LevelPoints:
    """Return level points: (study, structure, level) -> millimetres."""
    rows = [
        {
            "study_id": study,
            "structure": structure,
            "level": level,
            "xyz_mm": xyz,
            "series_id": "",
            "confidence": 0.875 if origin == "localised" else np.nan,
            "unsure": unsure,
        }
        for (study, structure, level), xyz in places.items()
    ]
    return points_from_rows(rows, origin=origin, digest=digest, left_out={})


# Off the grid of pixels, and up to 2 mm off the slices.
PLACES = {
    ("canal", "l3_l4"): (0.6, 8.3, 20.9),
    ("left_foramen", "l3_l4"): (16.2, 5.1, 24.2),
    ("right_foramen", "l3_l4"): (-14.3, 6.4, 23.3),
    ("left_subarticular", "l3_l4"): (8.7, 7.2, 21.3),
    ("right_subarticular", "l3_l4"): (-9.1, 6.6, 19.4),
    ("canal", "l4_l5"): (-0.8, 9.7, -13.1),
    ("left_foramen", "l4_l5"): (15.6, 7.7, -9.9),
    ("right_foramen", "l4_l5"): (-15.9, 8.2, -8.8),
}


def usual_points(study: str, **more: object) -> LevelPoints:
    """Return `PLACES` as the level points of a study; at L4/L5 no subarticular ones."""
    return level_points({(study, *name): xyz for name, xyz in PLACES.items()}, **more)
