"""The recipes of docs/data.md for public sets, as typed there, on small files in the publishers' own format."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import subprocess

import numpy as np
import pytest
from PIL import Image

from cli.main import run
from embedstore.store.reader import open_store
from embedstore.store.tasks import read_task
from tests.dicom_objects import dicom_object, save, with_pixels
from tests.paths import PROJECT

CHEXPERT_FINDINGS = (
    "Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,"
    "Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
MIMIC_FINDINGS = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
    "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
PADCHEST_HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,"
    "PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,"
    "WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,"
    "RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,labelCUIS,"
    "LocalizationsCUIS"
)
VINDR_FINDINGS = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,Edema,Emphysema,"
    "Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,Mediastinal shift,Nodule/Mass,Pleural effusion,"
    "Pleural thickening,Pneumothorax,Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,"
    "Tuberculosis,Other diseases,No finding"
)


def follow(name):
    """Run the blocks of a recipe in the current folder; `embed` in this process, the rest as bash and Python do."""
    page = (PROJECT / "docs/data.md").read_text()
    recipe = page.partition(f"\n### {name}\n")[2].partition("\n##")[0]
    blocks = re.findall(r"```(bash|python)\n(.*?)```", recipe, re.DOTALL)
    assert blocks
    for kind, block in blocks:
        if kind == "python":
            exec(block, {})
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("embed "):
                assert run(shlex.split(line)[1:]) == 0, line
            else:
                subprocess.run(["bash", "-e", "-c", line], check=True)


def picture(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (24, 20)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def labels_of(store, task):
    """Return unit -> target -> label."""
    table = read_task(store, task).labels.to_pylist()
    return {row.pop("unit_id"): row for row in table}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_nih_chestxray14(tmp_path, capsys):
    lines = [
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],",
        "00000001_000.png,Cardiomegaly,0,1,58,M,PA,2682,2749,0.143,0.143,",
        "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143,",
        "00000002_000.png,No Finding,0,2,81,M,PA,2500,2048,0.171,0.171,",
        "00000003_000.png,Hernia,0,3,81,F,PA,2582,2991,0.143,0.143,",
    ]
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000002_000.png\n")
    (tmp_path / "test_list.txt").write_text("00000003_000.png\n")
    for number, line in enumerate(lines[1:]):
        picture(tmp_path / "images" / line.partition(",")[0], number)
    follow("NIH ChestX-ray14")
    said = capsys.readouterr().out
    assert "joined split.csv" in said
    assert "4 of 4 rows have a match" in said
    store = open_store("nih.store")
    assert store.table.column("patient_id").to_pylist() == ["1", "1", "2", "3"]
    assert store.table.column("split").to_pylist() == ["train", "train", "train", "test"]
    assert read_task("nih.store", "Finding-Labels").unit == "image"
    assert [list(row.values()) for row in labels_of("nih.store", "Finding-Labels").values()] == [
        ["1", "0", "0"],
        ["1", "1", "0"],
        ["0", "0", "0"],
        ["0", "0", "1"],
    ]


def test_chexpert(tmp_path):
    header = f"Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,{CHEXPERT_FINDINGS}"
    start = "CheXpert-v1.0-small"
    train = [
        header,
        f"{start}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
        f"{start}/train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,1.0,,,,,,,,,0.0,,,,1.0",
        f"{start}/train/patient00002/study1/view1_frontal.jpg,Male,60,Frontal,PA,,0.0,-1.0,1.0,,,,,,,,,1.0,",
    ]
    states = ",".join(["1.0"] + ["0.0"] * 12)
    valid = [header, f"{start}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,{states}"]
    (tmp_path / "train.csv").write_text("\n".join(train) + "\n")
    (tmp_path / "valid.csv").write_text("\n".join(valid) + "\n")
    for number, line in enumerate(train[1:] + valid[1:]):
        picture(tmp_path / line.partition(",")[0].removeprefix(f"{start}/"), number)
    follow("CheXpert")
    store, task = open_store("chexpert.store"), read_task("chexpert.store", "findings")
    assert store.table.column("patient_id").to_pylist() == ["patient00001"] * 2 + [
        "patient00002",
        "patient64541",
    ]
    assert store.table.column("split").to_pylist() == ["train"] * 3 + ["valid"]
    assert task.unit == "study"
    labels = labels_of("chexpert.store", "findings")
    assert list(labels) == ["patient00001/study1", "patient00002/study1", "patient64541/study1"]
    # Lung Lesion, Edema, Consolidation, Pneumonia, Atelectasis have a label in the study of valid.csv only.
    assert labels["patient00001/study1"] == dict.fromkeys(CHEXPERT_FINDINGS.split(",")) | {
        "Pneumothorax": "0",
        "Support Devices": "1",
    }
    assert labels["patient00002/study1"]["Cardiomegaly"] is None
    assert labels["patient00002/study1"]["Lung Opacity"] == "1"
    assert set(labels["patient64541/study1"].values()) == {"0", "1"}


def write_mimic(folder):
    codes = "CHEST,postero-anterior"
    tables = {
        "metadata": [
            "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
            "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning",
            f'aa-1,10000032,50414267,"CHEST (PA AND LAT)",PA,3056,2544,21800506,213014.531,{codes},Erect',
            f'bb-2,10000032,50414267,"CHEST (PA AND LAT)",LATERAL,3056,2544,21800506,213014.531,{codes},Erect',
            f"cc-3,11000011,51029426,CHEST (PORTABLE AP),AP,2705,2539,21310926,53508.250,{codes},",
        ],
        "split": [
            "dicom_id,study_id,subject_id,split",
            "cc-3,51029426,11000011,validate",
            "aa-1,50414267,10000032,train",
            "bb-2,50414267,10000032,train",
        ],
        "chexpert": [
            f"subject_id,study_id,{MIMIC_FINDINGS}",
            "10000032,50414267,,,,,,,,,1.0,0.0,,,,",
            "11000011,51029426,-1.0,1.0,,,,,,,,1.0,,,,",
        ],
    }
    for name, lines in tables.items():
        with gzip.open(folder / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")
    for number, place in enumerate(
        ["p10/p10000032/s50414267/aa-1", "p10/p10000032/s50414267/bb-2", "p11/p11000011/s51029426/cc-3"]
    ):
        picture(folder / "files" / f"{place}.jpg", number)


def test_mimic_cxr(tmp_path, capsys):
    write_mimic(tmp_path)
    follow("MIMIC-CXR-JPG")
    said = capsys.readouterr().out
    assert "validate as valid" in said
    store = open_store("mimic.store")
    assert list(store.image_ids) == ["aa-1", "bb-2", "cc-3"]
    assert store.table.column("split").to_pylist() == ["train", "train", "valid"]
    task = read_task("mimic.store", "findings")
    # Every other column has no label in these three rows.
    assert (task.unit, task.targets) == ("study", ("Atelectasis", "Cardiomegaly", "Pleural Effusion"))
    assert labels_of("mimic.store", "findings") == {
        "50414267": {"Atelectasis": None, "Cardiomegaly": None, "Pleural Effusion": "0"},
        "51029426": {"Atelectasis": None, "Cardiomegaly": "1", "Pleural Effusion": "1"},
    }
    assert run(["info", "mimic.store", "--task", "findings", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts_of_target"]["Pleural Effusion"] == {"0": 1, "1": 1}


def test_padchest(tmp_path):
    rows = [
        ("1.png", "0", "S1", "P1", "['pleural effusion', ' alveolar pattern']"),
        ("2.png", "0", "S1", "P1", "['pleural effusion', ' alveolar pattern']"),
        ("3.png", "14", "S2", "P2", "['normal']"),
        ("4.png", "14", "S3", "P3", "['Alveolar pattern', \"hiatal hernia\", '']"),
        ("5.png", "15", "S4", "P4", ""),
    ]
    names = PADCHEST_HEADER.split(",")
    lines = [PADCHEST_HEADER]
    for number, (image, folder, study, patient, labels) in enumerate(rows):
        cells = dict.fromkeys(names, "") | {
            "": str(number),
            "ImageID": image,
            "ImageDir": folder,
            "StudyID": study,
        }
        cells |= {
            "PatientID": patient,
            "Labels": f'"{labels.replace(chr(34), chr(34) * 2)}"',
            "Modality_DICOM": "CR",
        }
        lines.append(",".join(cells[name] for name in names))
        picture(tmp_path / folder / image, number)
    (tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text("\n".join(lines) + "\n")
    follow("PadChest")
    assert labels_of("padchest.store", "Labels") == {
        "S1": {"alveolar pattern": "1", "hiatal hernia": "0", "pleural effusion": "1"},
        "S2": {"alveolar pattern": "0", "hiatal hernia": "0", "pleural effusion": "0"},
        "S3": {"alveolar pattern": "1", "hiatal hernia": "1", "pleural effusion": "0"},
        "S4": {"alveolar pattern": None, "hiatal hernia": None, "pleural effusion": None},
    }


def test_vindr_cxr(tmp_path):
    findings = VINDR_FINDINGS.split(",")
    said = {
        "a": ({"Cardiomegaly"}, {"Cardiomegaly", "Nodule/Mass"}, set()),
        "b": (set(), set(), {"Cardiomegaly"}),
    }
    lines = [f"image_id,rad_id,{VINDR_FINDINGS}"]
    for number, (image, readers) in enumerate(said.items()):
        for reader, found in enumerate(readers):
            cells = [str(int(name in found or (name == "No finding" and not found))) for name in findings]
            lines.append(f"{image},R{reader},{','.join(cells)}")
        (tmp_path / "train").mkdir(exist_ok=True)
        pixels = (np.arange(480).reshape(24, 20) + number).astype(np.uint16)
        save(
            with_pixels(dicom_object("1.2.840.10008.5.1.4.1.1.1.1", "DX"), pixels[None]),
            tmp_path / f"train/{image}.dicom",
        )
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/image_labels_train.csv").write_text("\n".join(lines) + "\n")
    follow("VinDr-CXR")
    task = read_task("vindr.store", "findings")
    assert task.targets == tuple(findings[:-1])
    labels = labels_of("vindr.store", "findings")
    assert {unit: [name for name, label in row.items() if label == "1"] for unit, row in labels.items()} == {
        "a": ["Cardiomegaly"],
        "b": [],
    }
