"""Files give the answer of the store to the last digit, in every reader's layout, however their paths are typed."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydicom import uid

from cli.main import run
from embedstore.encoders.hog import HogEncoder
from embedstore.inputs.file_units import WantedUnits, units_of_files
from embedstore.inputs.input_rows import InputSources
from embedstore.inputs.user_files import find_files
from embedstore.keys.key_file import read_key
from embedstore.phantoms.mura import write_phantom_mura
from embedstore.queries.image_files import ImageFiles
from embedstore.store.reader import open_store
from embedstore.store.tasks import write_task
from embedstore.task import Task
from tests.dicom_objects import AXIAL, SAGITTAL, dicom_object, save, with_pixels

STUDIES, SLICES = 16, 3
PLANES = {"Sagittal T1": SAGITTAL, "Axial T2": AXIAL}


def grey(study: int, piece: int, side: int = 24, top: int = 900) -> np.ndarray:
    """Return noise; every second study has a bright square in the middle."""
    pixels = np.random.default_rng(100 * study + piece).integers(0, top // 3, (side, side))
    if study % 2:
        pixels[side // 3 : side // 2, side // 3 : side // 2] += top // 2
    return pixels.astype(np.uint16)


def write_slice(path: Path, study: int, series: int, number: int) -> None:
    """Write one slice of a series whose slices have ranges of their own, so that only the whole tells the range."""
    orientation = (SAGITTAL, AXIAL)[series]
    made = dicom_object(
        uid.MRImageStorage,
        "MR",
        StudyInstanceUID=f"1.2.826.0.1.{study + 1}",
        SeriesInstanceUID=f"1.2.826.0.1.{study + 1}.{series + 1}",
        SOPInstanceUID=f"1.2.826.0.1.{study + 1}.{series + 1}.{number + 1}",
        PatientID=f"P{study}",
        BodyPartExamined="LSPINE",
        InstanceNumber=number + 1,
        ImageOrientationPatient=list(orientation),
        ImagePositionPatient=[4.0 * number, 0.0, 0.0] if series == 0 else [0.0, 0.0, 4.0 * number],
        PixelSpacing=[1.0, 1.0],
    )
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    save(with_pixels(made, (grey(study, 10 * series + number) * (1 + number))[None]), path)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_lumbar() -> None:
    rows = []
    for study in range(STUDIES):
        for series, description in enumerate(PLANES):
            for number in range(SLICES):
                write_slice(
                    Path(f"data/train_images/{study + 10}/{series + 1}/{number + 1}.dcm"),
                    study,
                    series,
                    number,
                )
            rows.append({"study_id": study + 10, "series_id": series + 1, "series_description": description})
    write_csv(Path("data/train_series_descriptions.csv"), rows)


def make_hospital() -> None:
    for study in range(STUDIES):
        for series in range(2):
            for number in range(SLICES):
                write_slice(Path(f"data/PAT{study}/ST0/SE{series}/1.2.{number}"), study, series, number)
        loop = dicom_object(
            uid.UltrasoundMultiFrameImageStorage,
            "US",
            StudyInstanceUID=f"1.2.826.0.1.{study + 1}",
            PatientID=f"P{study}",
        )
        frames = np.stack([grey(study, 50 + frame).astype(np.uint8) for frame in range(2)])
        save(with_pixels(loop, frames), Path(f"data/PAT{study}/ST0/SE9/loop"))
        Path(f"data/PAT{study}/ST0/report.pdf").write_bytes(b"%PDF-1.4 no image")


def make_pneumonia() -> None:
    rows = []
    for study in range(STUDIES):
        made = dicom_object(
            uid.ComputedRadiographyImageStorage, "CR", StudyInstanceUID=f"1.2.826.0.2.{study + 1}"
        )
        save(
            with_pixels(made, grey(study, 0)[None]),
            Path(f"data/stage_2_train_images/00a{study}-x.dcm"),
        )
        box = ("5", "5", "4", "4") if study % 2 else ("", "", "", "")
        rows.append(
            {
                "patientId": f"00a{study}-x",
                **dict(zip(("x", "y", "width", "height"), box, strict=True)),
                "Target": study % 2,
            }
        )
    write_csv(Path("data/stage_2_train_labels.csv"), rows)


def make_table() -> None:
    rows = []
    for study in range(STUDIES):
        folder = Path(f"data/scans/{study}")
        folder.mkdir(parents=True)
        pages = [Image.fromarray((grey(study, page) // 4).astype(np.uint8)) for page in range(2)]
        pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
        Image.fromarray((grey(study, 7) // 4).astype(np.uint8)).save(folder / "view, one.png")
        facts = {"patient_id": f"P{study}", "study_id": f"study {study}", "site": "AB"[study % 3 == 0]}
        rows += [{"path": f"scans/{study}/{name}", **facts} for name in ("pages.tif", "view, one.png")]
    write_csv(Path("data/table.csv"), rows)


@dataclass(frozen=True)
class DataSet:
    """A data set, and where one study of it lies: its folder, a part of it, and the unit's name in a path."""

    reader: str
    make: Callable[[], None]
    study: str
    part: str
    root: str = "data"
    column: str = ""
    options: tuple[str, ...] = ()
    task: str = "mark"


DATA_SETS = {
    data_set.reader: data_set
    for data_set in (
        DataSet(
            "mura",
            lambda: write_phantom_mura(Path(), patients=40, seed=0),
            "",
            "",
            root="MURA-v1.1",
            column="anatomy",
            task="abnormal",
        ),
        DataSet(
            "rsna-lumbar",
            make_lumbar,
            "data/train_images/13",
            "data/train_images/13/2",
            column="plane",
        ),
        DataSet(
            "dicom-folder",
            make_hospital,
            "data/PAT3/ST0",
            "data/PAT3/ST0/SE1",
            column="plane",
            options=("--key-file", "key"),
        ),
        DataSet(
            "rsna-pneumonia",
            make_pneumonia,
            "data/stage_2_train_images/00a3-x.dcm",
            "",
            task="opacity",
            column="modality",
        ),
        DataSet(
            "table",
            make_table,
            "data/scans/3",
            "data/scans/3/pages.tif",
            root="data/table.csv",
            column="site",
        ),
    )
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder for each reader, made once: data, store, a run with a metadata column, and embed.toml."""
    made: dict[str, Path] = {}

    def folder_of(reader: str) -> Path:
        if reader not in made:
            made[reader] = tmp_path_factory.mktemp(reader)
            with contextlib.chdir(made[reader]):
                _fill(DATA_SETS[reader])
        return made[reader]

    return folder_of


def _fill(data_set: DataSet) -> None:
    data_set.make()
    where = ["--dataset", data_set.reader, "--root", data_set.root, *data_set.options, "--store", "s"]
    dtype = "float32" if data_set.reader == "rsna-lumbar" else "float16"
    assert run(["extract", *where, "--encoder", "hog", "--store-dtype", dtype]) == 0
    if data_set.task == "mark":
        store = open_store("s")
        files = ImageFiles(read_key("key") if data_set.options else None).paths(store)
        top = Path("data").resolve()
        studies = {
            row["study_id"]: _number(files[row["image_id"]].resolve().relative_to(top).as_posix()) % 2
            for row in store.table.to_pylist()
        }
        labels = pa.table(
            {"unit_id": list(studies), "mark": [("no", "yes")[label] for label in studies.values()]}
        )
        write_task(Path("s"), Task("mark", "study", ("mark",), ("no", "yes"), labels))
    probe = ["probe", "--store", "s", "--task", data_set.task, "--preset", "google-lr", "--draws", "20"]
    with_column = ["--with", data_set.column] if data_set.column else []
    assert run([*probe, "--folds", "3", *with_column, "--out", "run", "--no-thumbnails"]) == 0
    options = 'key_file = "key"\n' if data_set.options else ""
    Path("toml").write_text(
        f'dataset = "{data_set.reader}"\nroot = "{data_set.root}"\nstore = "s"\n{options}'
    )


def _number(path: str) -> int:
    """Return the number of a study, that of its folder but for what a layout adds."""
    names = path.split("/")
    return int(names[1].removeprefix("PAT")) if not names[0].startswith("PAT") else int(names[0][3:])


@pytest.fixture(params=sorted(DATA_SETS))
def data_set(
    request: pytest.FixtureRequest,
    folders: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[DataSet]:
    folder = folders(request.param)
    monkeypatch.chdir(folder)
    capsys.readouterr()
    yield DATA_SETS[request.param]
    Path("embed.toml").unlink(missing_ok=True)


Predict = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def predict(capsys: pytest.CaptureFixture[str]) -> Predict:
    def answers(*arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
        assert run(["predict", "--probe", "run", "--neighbors", "0", *map(str, arguments)]) == code
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return answers


def by_unit(answers: list[dict[str, Any]]) -> dict[str, Any]:
    said = {
        answer["unit_id"]: (answer["targets"], answer["images"], answer["metadata"]) for answer in answers
    }
    assert len(said) == len(answers)
    return said


def top_of(data_set: DataSet) -> str:
    return data_set.root if Path(data_set.root).is_dir() else str(Path(data_set.root).parent)


@pytest.mark.parametrize("known_by", ["store", "layout"])
def test_a_whole_tree_gives_every_answer_of_the_store(
    data_set: DataSet, predict: Predict, known_by: str
) -> None:
    stored = by_unit(predict("s"))
    assert len(stored) >= STUDIES
    shutil.copy("toml", "embed.toml")
    if known_by == "layout":
        Path("embed.toml").write_text(Path("toml").read_text().replace('store = "s"\n', ""))
    assert by_unit(predict(top_of(data_set))) == stored


def test_a_study_has_one_id_and_one_answer_however_it_is_typed(data_set: DataSet, predict: Predict) -> None:
    shutil.copy("toml", "embed.toml")
    study = Path(data_set.study or next(str(path) for path in sorted(Path().glob("MURA-v1.1/valid/*/*/*"))))
    (one,) = predict(study)
    assert {one["unit_id"]: (one["targets"], one["images"], one["metadata"])}.items() <= by_unit(
        predict("s")
    ).items()
    assert not one["partial"]
    assert one["image_id"] in set(open_store("s").image_ids)
    assert Path(one["path"]).is_file()
    Path("elsewhere").mkdir(exist_ok=True)
    Path("elsewhere/link").unlink(missing_ok=True)
    Path("elsewhere/link").symlink_to(study.absolute().parent)
    for typed in (
        [study.absolute(), f"./{study.parent}/../{study.parent.name}/{study.name}"],
        [f"elsewhere/link/{study.name}"],
    ):
        assert predict(*typed) == [one]
    if study.is_dir():
        files = sorted(path for path in study.rglob("*") if path.is_file() and path.suffix != ".pdf")
        assert predict(*reversed(files)) == [one]
        with contextlib.chdir(study):
            (inside,) = _inside(predict)
        assert {name: inside[name] for name in ("unit_id", "targets")} == {
            name: one[name] for name in ("unit_id", "targets")
        }
    Path("elsewhere/link").unlink()


def _inside(predict: Predict) -> list[dict[str, Any]]:
    top = next(folder for folder in Path.cwd().parents if (folder / "embed.toml").is_file())
    return predict("--probe", top / "run", ".")


def test_a_part_of_a_study_is_answered_once_and_said_to_be_one(
    data_set: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    if not data_set.part:
        pytest.skip("its studies have no parts")
    shutil.copy("toml", "embed.toml")
    whole, images = {}, 0
    for typed in (data_set.study, data_set.part):
        capsys.readouterr()
        assert run(["predict", "--probe", "run", "--neighbors", "0", typed]) == 0
        printed = capsys.readouterr()
        (answer,) = [json.loads(line) for line in printed.out.splitlines()]
        if not whole:
            whole, images = answer, answer["images"]
    assert answer["unit_id"] == whole["unit_id"]
    assert answer["partial"]
    assert answer["images"] < images
    assert (
        f"from a part of their images: {answer['unit_id']} ({answer['images']} of {images} images)"
        in printed.err
    )


@pytest.mark.parametrize("data_set", ["dicom-folder"], indirect=True)
def test_a_copy_of_an_image_elsewhere_is_no_image_of_its_own(data_set: DataSet, predict: Predict) -> None:
    shutil.copy("toml", "embed.toml")
    Path("copies").mkdir(exist_ok=True)
    shutil.copy(f"{data_set.part}/1.2.0", "copies/copy.dcm")
    for typed in ([data_set.study, "copies"], ["copies", data_set.study]):
        (answer,) = predict(*typed)
        assert answer["images"] == 8
        assert not answer["partial"]
        assert [answer] == predict(data_set.study)
    shutil.rmtree("copies")


@pytest.mark.parametrize("data_set", ["mura"], indirect=True)
def test_copies_of_several_studies_in_one_folder_are_these_studies(
    data_set: DataSet, predict: Predict
) -> None:
    shutil.copy("toml", "embed.toml")
    Path("mixed").mkdir()
    stored, studies = by_unit(predict("s")), sorted(Path().glob("MURA-v1.1/valid/*/*/*"))[:3]
    for number, study in enumerate(studies):
        shutil.copy(min(study.iterdir()), f"mixed/{number}.png")
    answers = predict("mixed", "--with", "anatomy=XR_HAND")
    assert [answer["unit_id"] for answer in answers] == [
        str(path.relative_to("MURA-v1.1")) for path in studies
    ]
    assert {answer["unit_id"] for answer in answers} <= stored.keys()
    assert [answer["images"] for answer in answers] == [1, 1, 1]
    # An image that nobody knows may be of any of them: then it is the folder that is answered.
    drawn = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    drawn.save("mixed/drawn.png")
    (answer,) = predict("mixed", "--with", "anatomy=XR_HAND")
    assert answer["images"] == 4
    shutil.rmtree("mixed")


def test_a_file_alone_has_the_vector_that_it_has_among_its_series(data_set: DataSet) -> None:
    if not data_set.part:
        pytest.skip("its studies have no parts")
    stored = open_store("s")
    key = read_key("key") if data_set.options else None
    part = Path(data_set.part)
    for file in sorted(path for path in part.rglob("*") if path.is_file()) or [part]:
        files = find_files([file]).files
        units = units_of_files(files, InputSources(store=stored, key=key), WantedUnits(unit="study"))
        (chunk,) = units.embed(HogEncoder(), store_dtype=str(stored.dtype), workers=1, stopping=lambda: False)
        np.testing.assert_array_equal(
            chunk.units.X, stored.select(chunk.stored_ids, dtype=np.float32).vectors
        )
        assert chunk.units.image_ids.tolist() == list(chunk.stored_ids)
