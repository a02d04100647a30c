"""Crops of studies from their files: the vectors of the store, whatever a scanner or a sender made of the series."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from embedstore.datasets.base import dataset_reader
from embedstore.encoders.registry import image_encoder
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.inputs.file_units import WantedUnits, units_of_files
from embedstore.inputs.input_rows import InputSources
from embedstore.inputs.study_crops import HEADER_COLUMNS, NO_CROP, LookAgain, StudyCrops, crops_of_files
from embedstore.inputs.unit_chunks import FileUnitsChunk
from embedstore.inputs.user_files import find_files
from embedstore.lumbar.crop_rule import rule_from_json
from embedstore.lumbar.level_points import LevelPoints
from embedstore.lumbar.series_grid import StudyGrids
from embedstore.lumbar.target_images import rules_of_slices
from embedstore.queries.load_view import load_units
from embedstore.store.reader import open_store
from embedstore.view import PLACE, Units
from tests.lumbar_studies import PLACES, blobs, level_points, usual_series, write_study

BALLS = np.random.default_rng(5).uniform((-30, -25, -40), (30, 35, 45), (25, 3))
AS_USUAL, OTHERWISE, NO_AXIAL, NOWHERE = "1", "2", "3", "4"
# What the headers of files that lie elsewhere say of each series.
WORDS = {"101": "t1_tse_sag", "102": "t2 sag", "103": "T2 TRA"}


def points_of(*studies: str) -> LevelPoints:
    return level_points({(study, *name): xyz for study in studies for name, xyz in PLACES.items()})


class Localiser:
    """Finds the same points in every study that shows a sagittal series, and remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[StudyGrids] = []

    def __call__(self, grids: StudyGrids, identity: object) -> LevelPoints:
        self.shown.append(grids)
        return points_of(grids.study_id) if grids.series else level_points({})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One spine, scanned in four ways."""
    folder = tmp_path_factory.mktemp("rsna")
    signal = blobs(BALLS, width_mm=5.0)
    series = usual_series(sagittal_x_mm=(-15, -10, 0, 5, 15), shape=(48, 40))
    turned = [
        replace(entry.turned(columns=True, rows=number == 1), middles_mm=entry.middles_mm[::-1])
        for number, entry in enumerate(series)
    ]
    write_study(folder, AS_USUAL, series, signal)
    write_study(folder, OTHERWISE, turned, signal)
    write_study(folder, NO_AXIAL, series[:2], signal)
    lost = [replace(entry, elements={"ImageOrientationPatient": None}) for entry in series[:1]]
    write_study(folder, NOWHERE, lost, signal)
    return folder


@pytest.fixture(scope="module")
def store(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crops") / "crops.store"
    points = points_of(AS_USUAL, OTHERWISE, NO_AXIAL)
    extract("rsna-lumbar", path, "hog", root=root, crops=points, options=ExtractOptions(workers=1))
    return path


def studies(
    inputs: Sequence[Path],
    store: Path,
    locate: Localiser,
    *,
    found: LevelPoints | None = None,
    again: LookAgain | None = None,
    known: bool = True,
    slices: Sequence[Path] = (),
) -> StudyCrops:
    sources = InputSources(
        store=open_store(store) if known else None,
        readers=[dataset_reader("rsna-lumbar")],
        header_columns=HEADER_COLUMNS,
    )
    rule = rule_from_json(open_store(store).identity.crop or {}, source="the store")
    wanted = WantedUnits(unit="study", columns=["crop,level,side"])
    return crops_of_files(
        find_files(inputs).files,
        sources,
        wanted,
        rule,
        locate,
        again=again,
        found=found,
        slices=[open_store(path) for path in slices],
    )


def embedded(crops: StudyCrops, stopping: object = lambda: False) -> list[FileUnitsChunk]:
    encoder = image_encoder("hog", tokens=8)
    return list(crops.embed(encoder, store_dtype="float16", workers=1, stopping=stopping))


@pytest.fixture(scope="module")
def answered(root: Path, store: Path) -> tuple[Localiser, Mapping[str, FileUnitsChunk], StudyCrops]:
    """All studies from their files, by name."""
    locate = Localiser()
    crops = studies([root / "train_images"], store, locate)
    chunks = embedded(crops)
    names = [unit.name for unit in crops.units]
    return locate, dict(zip(names, chunks, strict=True)), crops


def by_crop(chunk: FileUnitsChunk) -> dict[tuple[str, int], np.ndarray]:
    keys = zip(
        chunk.units.metadata["crop,level,side"].tolist(),
        chunk.table.column("offset").to_pylist(),
        strict=True,
    )
    return dict(zip(keys, chunk.units.X, strict=True))


def test_files_of_the_store_have_its_vectors_and_names(answered, store):
    whole = load_units(open_store(store), "study")
    for study in (AS_USUAL, OTHERWISE, NO_AXIAL):
        units = answered[1][study].units
        own = whole.unit_of_image == whole.unit_ids.tolist().index(study)
        assert units.unit_ids.tolist() == [study]
        assert units.image_ids.tolist() == whole.image_ids[own].tolist()
        assert answered[1][study].stored_ids == whole.image_ids[own].tolist()
        np.testing.assert_array_equal(units.X, whole.X[own])
        np.testing.assert_array_equal(units.content_sha256, whole.content_sha256[own])
        assert answered[1][study].known == [own.sum()]


def test_the_localiser_sees_the_tokens_of_sagittal_slices_where_they_lie(answered):
    shown = {grids.study_id: grids for grids in answered[0].shown}
    assert {study: [grid.kind for grid in grids.series] for study, grids in shown.items()} == {
        AS_USUAL: ["T1", "T2"],
        OTHERWISE: ["T1", "T2"],
        NO_AXIAL: ["T1", "T2"],
        NOWHERE: [],
    }
    (t1, _), (again, _) = shown[AS_USUAL].series, shown[OTHERWISE].series
    assert t1.tokens.shape == (5, 12, 12, 8)
    assert t1.tokens.dtype == np.float16
    assert shown[OTHERWISE].turned
    np.testing.assert_allclose(t1.planes.positions_mm, again.planes.positions_mm, atol=1e-6)


def test_mirrored_and_reversed_series_give_the_same_vectors(answered):
    usual, otherwise = by_crop(answered[1][AS_USUAL]), by_crop(answered[1][OTHERWISE])
    assert usual.keys() == otherwise.keys()
    assert len(usual) > 20
    for crop, vector in usual.items():
        np.testing.assert_allclose(otherwise[crop], vector, atol=1e-6)


def test_what_a_study_lacks_is_said_and_the_rest_goes_on(answered):
    assert answered[1][NO_AXIAL].lacking["studies without axial T2"] == 1
    assert set(answered[1][NO_AXIAL].table.column("crop").to_pylist()) == {
        "canal_sagittal_t2",
        "foramen_sagittal_t1",
    }
    nowhere = answered[1][NOWHERE]
    assert len(nowhere.units.unit_ids) == 0
    assert nowhere.lacking["slices without a place in the patient"] == 5
    ((place, why),) = nowhere.failed
    assert place.endswith(f"train_images/{NOWHERE}/101")
    assert why == f"study {NOWHERE}: {NO_CROP}"
    assert [chunk.images for chunk in answered[1].values()] == [16, 16, 10, 5]
    assert answered[2].images == 47


def test_levels_that_the_localiser_knows_of_these_series_are_taken(root, store):
    known = points_of(AS_USUAL)
    moved = replace(known, xyz_mm=known.xyz_mm + np.array([0.0, 3.0, 0.0]))
    of_series = {"101": f"{AS_USUAL}/101", "other": "another/101"}
    got = {}
    for name, series in of_series.items():
        locate = Localiser()
        found = replace(moved, series_ids=np.full(len(moved), series, object))
        (chunk,) = embedded(studies([root / "train_images" / AS_USUAL / "101"], store, locate, found=found))
        got[name] = chunk
        assert len(locate.shown) == (0 if name == "101" else 1)
        assert chunk.known[0] > len(chunk.units.X)  # the other series were not given
    tops = {name: chunk.table.column("crop_left_px")[0].as_py() for name, chunk in got.items()}
    assert tops["101"] == pytest.approx(tops["other"] + 3.0 / 1.25)


def test_a_study_whose_files_are_called_otherwise_is_known_by_the_pixels_of_its_slices(root, store, tmp_path):
    slices = tmp_path / "slices.store"
    extract("rsna-lumbar", slices, "hog", root=root, options=ExtractOptions(workers=1))
    for series, words in WORDS.items():
        _described(root / "train_images" / AS_USUAL / series, tmp_path / "sent" / series, words)
    (nobody,) = embedded(studies([tmp_path / "sent"], store, Localiser(), found=points_of(AS_USUAL)))
    assert len(nobody.units.unit_ids) == 1
    assert nobody.units.unit_ids.tolist() != [AS_USUAL]
    # The levels that the localiser has of it are taken, so that its crops are the store's.
    known = replace(
        points_of(AS_USUAL), series_ids=np.full(len(points_of(AS_USUAL)), f"{AS_USUAL}/101", object)
    )
    (chunk,) = embedded(studies([tmp_path / "sent"], store, Localiser(), found=known, slices=[slices]))
    assert chunk.units.unit_ids.tolist() == [AS_USUAL]
    assert chunk.stored_ids
    assert all(name.startswith(f"train_images/{AS_USUAL}/") for name in chunk.stored_ids)
    # Of some of its files the levels are found anew; whose they are is known all the same.
    (part,) = embedded(studies([tmp_path / "sent" / "102"], store, Localiser(), found=known, slices=[slices]))
    assert part.units.unit_ids.tolist() == [AS_USUAL]
    moved = replace(known, xyz_mm=known.xyz_mm + np.array([0.0, 3.0, 0.0]))
    (other,) = embedded(studies([tmp_path / "sent"], store, Localiser(), found=moved, slices=[slices]))
    tops = [each.table.column("crop_left_px")[0].as_py() for each in (chunk, other)]
    assert tops[1] == pytest.approx(tops[0] + 3.0 / 1.25)


def test_crops_are_cut_around_the_points_of_a_second_look(root, store):
    shown = []

    def refine(points, looks, tokens, identity):
        shown.append((points, looks, tokens, identity))
        return replace(points, xyz_mm=points.xyz_mm + np.array([0.0, 2.5, 0.0]))

    rule = replace(rule_from_json(open_store(store).identity.crop or {}, source="the store"), size_mm=40.0)
    usual = embedded(studies([root / "train_images" / AS_USUAL], store, Localiser()))[0]
    again = LookAgain(rule=rule, refine=refine)
    (chunk,) = embedded(studies([root / "train_images" / AS_USUAL], store, Localiser(), again=again))
    ((points, looks, tokens, identity),) = shown
    assert identity.crop == rule.to_json()
    # A look at each point in each series that shows it, through the nearest slice alone; T2 recesses on axial slices.
    seen = {(kind, points.structures[at]) for kind, at in zip(looks.kinds, looks.points, strict=True)}
    assert ("canal_sagittal_t2", "canal") in seen
    assert ("foramen_sagittal_t1", "left_foramen") in seen
    assert tokens.shape == (len(looks), 12, 12, 8)
    # The middle of a look is its point, but for what lies across the slice.
    middle = looks.planes.positions_mm + looks.in_patient_mm(looks.planes.spacings_mm[:, ::-1] * 5.5)
    off = looks.in_plane_mm(points.xyz_mm[looks.points] - middle)
    assert np.abs(off).max() < 1e-3
    first = {
        name: chunk.table.column("crop_left_px")[0].as_py() for name, chunk in (("1", usual), ("2", chunk))
    }
    assert first["2"] == pytest.approx(first["1"] + 2.5 / 1.25)


def test_a_study_is_over_before_the_next_begins_and_a_stop_abandons_the_one_at_hand(root, store):
    locate = Localiser()
    crops = studies([root / "train_images"], store, locate, known=False)
    encoder = image_encoder("hog", tokens=8)
    chunks = crops.embed(encoder, store_dtype="float16", workers=1, stopping=lambda: len(locate.shown) > 1)
    first = next(chunks)
    assert [grids.study_id for grids in locate.shown] == [AS_USUAL]
    assert first.stored_ids == [""] * len(first.units.X)
    assert list(chunks) == []
    assert len(locate.shown) == 2


def test_files_of_no_known_layout_are_told_by_their_headers(root, store, tmp_path):
    for series, words in WORDS.items():
        _described(root / "train_images" / AS_USUAL / series, tmp_path / "described" / series, words)
    locate = Localiser()
    (chunk,) = embedded(studies([tmp_path / "described"], store, locate))
    whole = load_units(open_store(store), "study")
    own = whole.X[whole.unit_of_image == whole.unit_ids.tolist().index(AS_USUAL)]
    np.testing.assert_array_equal(np.sort(chunk.units.X, axis=0), np.sort(own, axis=0))
    # Its pixels are the store's, whatever it is called.
    assert all(name.startswith(f"train_images/{AS_USUAL}/") for name in chunk.stored_ids)


def test_whole_slices_have_the_kinds_and_places_of_the_store_also_without_its_tables(root, tmp_path):
    path, study = tmp_path / "slices.store", root / "train_images" / AS_USUAL
    # A test tree of one study: extracting the others would say no more.
    for series, words in WORDS.items():
        _described(study / series, tmp_path / "described" / series, words)
    (tmp_path / "rsna" / "train_images").mkdir(parents=True)
    (tmp_path / "rsna" / "train_images" / AS_USUAL).symlink_to(study)
    shutil.copy(root / "train_series_descriptions.csv", tmp_path / "rsna")
    extract("rsna-lumbar", path, "hog", root=tmp_path / "rsna", options=ExtractOptions(workers=1))
    rules = list(rules_of_slices().values())
    store = load_units(open_store(path), "study", with_columns=[PLACE], image_rules=rules)
    assert sorted(set(store.metadata[PLACE].tolist()))[:2] == ["axial T2 1/8", "axial T2 2/8"]
    for inputs, headers in (([study], frozenset()), ([tmp_path / "described"], HEADER_COLUMNS)):
        sources = InputSources(readers=[dataset_reader("rsna-lumbar")], header_columns=headers)
        wanted = WantedUnits(unit="study", image_rules=rules, columns=[PLACE])
        files = units_of_files(find_files(inputs).files, sources, wanted)
        (chunk,) = files.embed(image_encoder("hog"), store_dtype="float16", workers=1, stopping=lambda: False)
        expected, found = _rows_by_pixels(store), _rows_by_pixels(chunk.units)
        assert found.keys() == expected.keys()
        for pixels, (place, speaks, vector) in expected.items():
            assert found[pixels][0] == place
            np.testing.assert_array_equal(found[pixels][1], speaks)
            np.testing.assert_array_equal(found[pixels][2], vector)


def _rows_by_pixels(units: Units) -> dict[bytes, tuple[str, np.ndarray, np.ndarray]]:
    assert units.image_of_target is not None
    rows = zip(units.metadata[PLACE].tolist(), units.image_of_target, units.X, strict=True)
    return {digest.tobytes(): row for digest, row in zip(units.content_sha256, rows, strict=True)}


def _described(source: Path, target: Path, words: str) -> None:

    target.mkdir(parents=True)
    for file in source.iterdir():
        made = pydicom.dcmread(file)
        made.SeriesDescription = words
        made.save_as(target / file.name)
