"""Phantom lumbar MR: drawn spines as DICOM series in the layout of the RSNA 2024 Lumbar Spine competition.

With what makes the real set hard to read: series of both kinds twice, axial series of two stacks, numbers
that run against the position, three transfer syntaxes, series without description, empty label cells.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.lumbar.levels import CLASSES, CONDITIONS, LEVELS, TARGETS
from embedstore.phantoms.folder import claim_folder
from embedstore.phantoms.mr_slice import MrSlice, SliceGeometry, write_slice
from embedstore.phantoms.spine import DISC_Z_MM, Spine, draw_signal

FOLDER = "rsna-2024-lumbar-spine-degenerative-classification"
DEFAULT_STUDIES = 24
SYNTAXES = ("explicit", "implicit", "rle", "jpeg2000")
_SYNTAX_OF_TURN = (0, 0, 1, 0, 2, 0, 3, 0, 0)
_MISSING_SHARE = 0.02  # of label cells; 572 of 49,375 in the competition
# Degeneration grows downwards and peaks at L4/L5. With these thresholds 77, 16 and 6 % of cells are of the
# three classes, as in the competition's training set.
_LEVEL_BURDEN = np.array((-0.8, -0.3, 0.1, 0.6, 0.1))
_THRESHOLDS = (0.76, 1.6)
# Narrowing by class overlaps, as readers do.
_NARROWING = ((0.0, 0.38), (0.3, 0.68), (0.6, 1.0))
_SAGITTAL_X_MM = np.linspace(-26.0, 26.0, 11)
_SAGITTAL_PX, _SAGITTAL_SPACING_MM = 192, 1.35
_AXIAL_PX, _AXIAL_SPACING_MM = 128, 1.3
_AIM = 1  # names the stream of aims
_TEST_STUDY = 1_000_000  # its stream, apart from every training study's


@dataclass(frozen=True)
class LumbarSummary:
    """What was written: the folder, and counts over train and test."""

    root: Path
    studies: int
    series: int
    images: int


@dataclass(frozen=True)
class _Series:
    series_id: int
    description: str
    listed_description: str
    syntax: str
    slices: tuple[tuple[int, SliceGeometry], ...]  # InstanceNumber and place


@dataclass(frozen=True)
class _Study:
    study_id: int
    tree: str
    labels: npt.NDArray[np.int64]  # (5 conditions, 5 levels) class
    missing: npt.NDArray[np.bool_]
    spine: Spine
    series: tuple[_Series, ...]


def write_phantom_lumbar(
    root: StrPath, *, studies: int = DEFAULT_STUDIES, seed: int = 0, off_centre_mm: float = 0.0
) -> LumbarSummary:
    """Write a phantom of the competition's folder.

    Parameters
    ----------
    root
        The folder that will hold ``rsna-2024-lumbar-spine-degenerative-classification``.
    studies
        Labelled studies; one test study without labels comes on top, as in the public download.
    seed
        The same seed and number give the same bytes; a larger tree begins with the smaller one.
    off_centre_mm
        How far sagittal series are aimed too high or too low (standard deviation, a third of it to the front or back),
        each by its own chance. Without it all spines lie in the middle, and their mean place names every level.

    Raises
    ------
    UsageError
        If `studies` is less than 1, or `seed` or `off_centre_mm` is negative.
    DataError
        If the folder is there already and is not this phantom.

    Examples
    --------
    >>> es.write_phantom_lumbar("phantoms", studies=1).root.name
    'rsna-2024-lumbar-spine-degenerative-classification'
    """
    if studies < 1 or seed < 0 or not off_centre_mm >= 0:
        raise UsageError(
            "studies must be at least 1, seed and off_centre_mm at least 0; found "
            f"{studies}, {seed} and {off_centre_mm}"
        )
    folder = Path(root) / FOLDER
    claim_folder(
        folder,
        "These MR images are phantoms drawn by a computer. They show no patient, and the competition is not\n"
        "their source; only the folders, names and tables are laid out as in its download.\n"
        f"studies={studies} seed={seed}{f' off_centre_mm={off_centre_mm:g}' if off_centre_mm else ''}\n",
    )
    planned = [_plan_study(index, seed, "train", off_centre_mm) for index in range(studies)]
    planned.append(_plan_study(_TEST_STUDY, seed, "test", off_centre_mm))
    jobs = [(study, series) for study in planned for series in study.series]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(lambda job: _write_series(folder, *job, seed=seed), jobs):
            pass
    _write_tables(folder, planned)
    images = sum(len(series.slices) for _, series in jobs)
    return LumbarSummary(root=folder, studies=len(planned), series=len(jobs), images=images)


def _plan_study(index: int, seed: int, tree: str, off_centre_mm: float = 0.0) -> _Study:
    chance = np.random.default_rng([seed, index])
    # The golden ratio spreads the studies' burden evenly, so that a small tree has severe cases, too.
    share = (0.5 + (index + seed) * (5**0.5 - 1) / 2) % 1.0
    study_burden = 0.7 * NormalDist().inv_cdf(min(max(share, 1e-3), 1.0 - 1e-3))
    burden = study_burden + _LEVEL_BURDEN + 0.7 * chance.standard_normal((5, 5))
    labels = np.searchsorted(_THRESHOLDS, burden).astype(np.int64)
    low, high = np.array(_NARROWING)[labels].transpose(2, 0, 1)
    narrowing = chance.uniform(low, high)
    spine = Spine(
        narrowing=narrowing,
        size=float(np.clip(chance.normal(1.0, 0.05), 0.85, 1.15)),
        lordosis_mm=float(chance.uniform(6.0, 16.0)),
        degeneration=np.clip(0.55 * narrowing[0] + chance.uniform(0.0, 0.45, 5), 0.0, 1.0),
    )
    return _Study(
        study_id=4_003_253 + 1_117 * index,
        tree=tree,
        labels=labels,
        missing=chance.random((5, 5)) < _MISSING_SHARE,
        spine=spine,
        series=tuple(_plan_series(index, spine, chance, _aims(index, seed, off_centre_mm))),
    )


def _aims(index: int, seed: int, off_centre_mm: float) -> npt.NDArray[np.float64]:
    """Return how far each series of a study is aimed off, (4, 3) mm; a stream of its own moves nothing else."""
    aside = np.random.default_rng([seed, index, _AIM]).standard_normal((4, 3))
    return np.asarray(aside * np.array([0.0, off_centre_mm / 3, off_centre_mm]), np.float64)


def _plan_series(
    index: int, spine: Spine, chance: np.random.Generator, aims: npt.NDArray[np.float64]
) -> list[_Series]:
    descriptions = ["Sagittal T1", "Sagittal T2/STIR", "Axial T2"]
    if index % 6 == 1:  # 340 of 1,975 studies have a description twice
        descriptions.append(descriptions[1 + index // 6 % 2])
    series = []
    for order, description in enumerate(descriptions):
        axial = description == "Axial T2"
        places = (
            _axial_places(spine, index % 5 in {0, 2}, chance)
            if axial
            else _sagittal_places(chance, aims[order])
        )
        numbers = np.arange(1, len(places) + 1) + int(chance.integers(0, 3))
        if (index + order) % 3 == 1:
            numbers = numbers[::-1]
        series.append(
            _Series(
                series_id=int(chance.integers(10**6, 4 * 10**9)),
                description=description,
                listed_description="" if order > 2 and index % 24 == 7 else description,
                syntax=SYNTAXES[_SYNTAX_OF_TURN[(3 * index + order) % len(_SYNTAX_OF_TURN)]],
                slices=tuple(zip(numbers.tolist(), places, strict=True)),
            )
        )
    return series


def _sagittal_places(chance: np.random.Generator, aim: npt.NDArray[np.float64]) -> list[SliceGeometry]:
    turn = np.radians(chance.normal(0.0, 2.0))  # nobody lies quite straight
    along_columns = np.array([np.sin(turn), np.cos(turn), 0.0])
    along_rows = np.array([0.0, 0.0, -1.0])
    middle = np.array([chance.normal(0.0, 1.5), 8.0, chance.normal(0.0, 4.0)]) + aim
    return [
        SliceGeometry.around(
            middle + np.array([x, 0.0, 0.0]),
            along_columns,
            along_rows,
            side_px=_SAGITTAL_PX,
            spacing_mm=_SAGITTAL_SPACING_MM,
        )
        for x in _SAGITTAL_X_MM
    ]


def _axial_places(spine: Spine, two_stacks: bool, chance: np.random.Generator) -> list[SliceGeometry]:
    """Three slices through each disc: all level, or L5/S1 as a stack of its own along its tilt."""
    last_tilt = np.radians(18.0) if two_stacks else 0.0
    places = []
    for level, z in enumerate(DISC_Z_MM):
        tilt = last_tilt if level == 4 else 0.0
        along_rows = np.array([0.0, np.cos(tilt), -np.sin(tilt)])
        y = spine.canal_point_mm(level)[1] - 8.0
        for step in (-4.0, 0.0, 4.0):
            middle = np.array([chance.normal(0.0, 0.5), y, z * spine.size + step])
            places.append(
                SliceGeometry.around(
                    middle,
                    np.array([1.0, 0.0, 0.0]),
                    along_rows,
                    side_px=_AXIAL_PX,
                    spacing_mm=_AXIAL_SPACING_MM,
                )
            )
    return places[::-1]


def _write_series(folder: Path, study: _Study, series: _Series, *, seed: int) -> None:
    target = folder / f"{study.tree}_images" / str(study.study_id) / str(series.series_id)
    target.mkdir(parents=True, exist_ok=True)
    gain = np.random.default_rng([seed, series.series_id]).uniform(250.0, 900.0)  # MR has no unit
    weighting = "T1" if series.description == "Sagittal T1" else "T2"
    for number, place in series.slices:
        noise = np.random.default_rng([seed, study.study_id, series.series_id, number])
        signal = draw_signal(study.spine, place.points_mm(), weighting=weighting)
        grain = noise.standard_normal((2, *signal.shape)) * 0.035
        # Magnitude of a noisy complex signal: MR noise is Rician, and never negative.
        levels = np.rint(gain * np.hypot(signal + grain[0], grain[1])).astype(np.uint16)
        write_slice(
            target / f"{number}.dcm",
            MrSlice(str(study.study_id), str(series.series_id), number, series.description, place, levels),
            syntax=series.syntax,
        )


def _write_tables(folder: Path, studies: list[_Study]) -> None:
    train = [study for study in studies if study.tree == "train"]
    test = [study for study in studies if study.tree == "test"]
    lines = [",".join(("study_id", *TARGETS))]
    for study in train:
        names = np.where(study.missing, "", np.array(CLASSES)[study.labels])
        lines.append(",".join((str(study.study_id), *names.ravel().tolist())))
    _write_csv(folder / "train.csv", lines)
    for tree, members in (("train", train), ("test", test)):
        lines = ["study_id,series_id,series_description"]
        lines += [
            f"{study.study_id},{series.series_id},{series.listed_description}"
            for study in members
            for series in study.series
        ]
        _write_csv(folder / f"{tree}_series_descriptions.csv", lines)
    _write_csv(
        folder / "train_label_coordinates.csv",
        [
            "study_id,series_id,instance_number,condition,level,x,y",
            *(line for study in train for line in _coordinates(study)),
        ],
    )
    rows = [
        f"{study.study_id}_{target},0.333333,0.333333,0.333333"
        for study in test
        for target in sorted(TARGETS)
    ]
    _write_csv(folder / "sample_submission.csv", ["row_id,normal_mild,moderate,severe", *rows])


def _write_csv(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")


def _coordinates(study: _Study) -> list[str]:
    """Mark each labelled place on the slice nearest to it, in the series in which readers mark it."""
    series_for = {"spinal": "Sagittal T2/STIR", "neural": "Sagittal T1", "subarticular": "Axial T2"}
    spine, lines = study.spine, []
    for row, condition in enumerate(CONDITIONS):
        side = -1 if condition.startswith("right") else 1
        kind = condition.removeprefix("left_").removeprefix("right_").partition("_")[0]
        series = next(entry for entry in study.series if entry.description == series_for[kind])
        for column, level in enumerate(LEVELS):
            if study.missing[row, column]:
                continue
            point = {
                "spinal": spine.canal_point_mm(column),
                "neural": spine.foramen_point_mm(column, side),
                "subarticular": spine.recess_point_mm(column, side),
            }[kind]
            number, place = min(series.slices, key=lambda entry: abs(entry[1].distance_mm(point)))
            x, y = place.pixel(point)
            names = f"{condition.replace('_', ' ').title()},{level.upper().replace('_', '/')}"
            lines.append(f"{study.study_id},{series.series_id},{number},{names},{x:.4f},{y:.4f}")
    return lines
