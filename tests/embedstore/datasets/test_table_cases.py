"""Tables that went wrong once, each in the form in which it was met: what spreadsheets, R and data frames write."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedstore.datasets.table import Table

COUNT = 40


def read(folder, lines, name="t.csv", encoding="utf-8", **options):
    for number in range(COUNT):
        (folder / f"i{number}.png").touch()
    (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return Table(**options).read(folder / name)


def test_trailing_blanks_split_no_patient_and_no_class(tmp_path):
    lines = ["path,patient_id,label"]
    for number in range(COUNT):
        blank = " " * (number % 2), " " * (number % 5 == 0)
        lines.append(f"i{number}.png,{number // 2:05d}{blank[0]},{('no', 'yes')[number % 2]}{blank[1]}")
    collection = read(tmp_path, lines, label="label")
    assert collection.summary["patients"] == 20
    assert collection.tasks[0].classes == ("no", "yes")
    assert collection.summary["column patient_id"] == "20 values had blanks, trimmed"
    assert collection.summary["column label"] == "8 values had blanks, trimmed"


def test_na_of_r_is_no_class_and_no_common_patient(tmp_path):
    lines = ["path,patient_id,label"]
    for number in range(COUNT):
        patient = f"{number // 2:05d}" if number % 3 else "NA"
        label = ("no", "yes")[number % 2] if number % 5 else "NA"
        lines.append(f"i{number}.png,{patient},{label}")
    collection = read(tmp_path, lines, label="label")
    assert collection.manifest.column("patient_id").count(None) == 14  # 0, 3, ..., 39
    (task,) = collection.tasks
    assert task.classes == ("no", "yes")
    assert task.labels.column("label").null_count == 8  # 0, 5, ..., 35
    assert collection.summary["column patient_id"] == "14 values 'NA' taken as missing"


def test_the_index_of_a_data_frame_and_a_comma_at_the_end_are_no_columns(tmp_path):
    cells = [f"i{number}.png,P{number // 2},{number % 2}" for number in range(COUNT)]
    index = [",path,patient_id,label", *(f"{number},{line}" for number, line in enumerate(cells))]
    trailing = ["path,patient_id,label,", *(f"{line}," for line in cells)]
    for lines in (index, trailing):
        collection = read(tmp_path, lines, label="label")
        assert collection.summary["patients"] == 20
        assert collection.manifest.extra_columns == []
        assert "which has no name, left out" in str(collection.summary["table"])


@pytest.mark.parametrize(
    ("mark", "encoding", "said"),
    [
        (";", "utf-8", "separated by semicolons"),
        ("\t", "utf-8", "separated by tabs"),
        (",", "utf-16", "UTF-16 text"),
        (",", "cp1252", "Windows-1252 text"),
    ],
)
def test_what_spreadsheets_export_is_one_table(tmp_path, mark, encoding, said):
    lines = [mark.join(("path", "patient_id", "label", "site"))]
    lines += [
        mark.join((f"i{number}.png", f"P{number // 2}", str(number % 2), "h\xf4pital"))
        for number in range(COUNT)
    ]
    collection = read(tmp_path, lines, encoding=encoding, label="label")
    assert (collection.summary["images"], collection.summary["patients"]) == (COUNT, 20)
    assert set(collection.manifest.column("site")) == {"h\xf4pital"}
    assert collection.summary["table"] == said


def test_study1_of_every_patient_is_a_study_of_its_own(tmp_path):
    lines = ["path,patient_id,study_id,label"]
    for number in range(COUNT):
        study = number // 2 % 2
        lines.append(f"i{number}.png,P{number // 4},study{study + 1},{study}")
    collection = read(tmp_path, lines, label="label")
    assert (collection.summary["patients"], collection.summary["studies"]) == (10, 20)
    assert collection.manifest.column("study_id")[:3] == ["P0/study1", "P0/study1", "P0/study2"]


def test_whole_numbers_beyond_64_bits_keep_every_digit(tmp_path):
    names = [f"i{number}.png" for number in range(20)]
    hashes = [2**63 + number for number in range(20)]
    labels = [number % 2 for number in range(20)]
    table = pa.table({"path": names, "phash": pa.array(hashes, pa.uint64()), "label": labels})
    pq.write_table(table, tmp_path / "t.parquet")
    assert Table(label="label").read(tmp_path / "t.parquet").manifest.column("phash") == list(
        map(str, hashes)
    )
    lines = [
        json.dumps({"path": name, "accession": 12345678901234567890 + number, "label": number % 2})
        for number, name in enumerate(names)
    ]
    manifest = read(tmp_path, lines, "t.jsonl", label="label").manifest
    assert manifest.column("accession")[-1] == "12345678901234567909"
