"""Submission files: the competition's columns, its rows and its checks, there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from embedstore.errors import DataError, UsageError
from embedstore.lumbar.levels import TARGETS
from heads.lumbar.rsna_score import rsna_score
from heads.lumbar.submission import COLUMNS, read_submission, write_submission
from tests.heads.lumbar.golden import SCORED, golden

STUDIES, Y, SAID = golden()


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    """Return the lines of a file of two studies."""
    write_submission(tmp_path / "two.csv", STUDIES[:2], SAID[:2])
    return (tmp_path / "two.csv").read_text().splitlines()


def read_lines(tmp_path: Path, lines: list[str]):
    (tmp_path / "read.csv").write_text("\n".join(lines) + "\n")
    return read_submission(tmp_path / "read.csv")


def test_what_is_written_is_read_to_the_bit_and_scores_as_before(tmp_path: Path) -> None:
    write_submission(tmp_path / "submission.csv", STUDIES, SAID)
    found = read_submission(tmp_path / "submission.csv")
    by_number = sorted(range(len(STUDIES)), key=lambda at: int(STUDIES[at]))
    assert found.study_ids.tolist() == [STUDIES[at] for at in by_number]
    assert np.array_equal(found.probabilities, SAID[by_number])
    score = rsna_score(Y[by_number], found.probabilities, draws=2)["rsna_score"].value
    assert score == pytest.approx(SCORED["as_given"]["score"], abs=1e-9)


def test_another_program_reads_the_competitions_columns_and_rows(tmp_path: Path) -> None:
    columns = np.random.default_rng(0).permutation(len(TARGETS))
    write_submission(
        tmp_path / "s.csv", STUDIES[:3], SAID[:3][:, columns], targets=[TARGETS[at] for at in columns]
    )
    frame = pd.read_csv(tmp_path / "s.csv")
    assert list(frame.columns) == ["row_id", "normal_mild", "moderate", "severe"]
    numbers = sorted(STUDIES[:3], key=int)
    assert frame.row_id.tolist() == [f"{study}_{target}" for study in numbers for target in sorted(TARGETS)]
    row = frame.set_index("row_id").loc[f"{STUDIES[1]}_left_subarticular_stenosis_l4_l5"]
    assert row.tolist() == SAID[1, TARGETS.index("left_subarticular_stenosis_l4_l5")].tolist()


def test_rows_and_columns_may_stand_in_any_order(tmp_path: Path, lines: list[str]) -> None:
    whole = read_lines(tmp_path, lines)
    turned = [",".join(reversed(line.split(","))) for line in [lines[0], *reversed(lines[1:])]]
    found = read_lines(tmp_path, turned)
    assert found.study_ids.tolist() == whole.study_ids.tolist()[::-1]
    assert np.array_equal(found.probabilities[::-1], whole.probabilities)


@pytest.mark.parametrize(
    ("line", "put", "message"),
    [
        (0, "row_id,normal_mild,moderate", "must have the columns row_id, normal_mild, moderate, severe; found row_id"),
        (1, "x,0.2,0.3,0.5", r"line 2: row_id must be STUDY_CONDITION_LEVEL, as .*; found 'x'"),
        (1, "12_spinal_canal_stenosis_l5_l6,0.2,0.3,0.5", "line 2: row_id must be"),
        (1, "{id},0.2,0.3,maybe", "line 2: severe must be a finite number of 0 or more; found 'maybe'"),
        (1, "{id},0.2,,0.8", "line 2: moderate must be a finite number of 0 or more; found None"),
        (1, "{id},-0.2,0.4,0.8", "line 2: normal_mild must be a finite number of 0 or more; found '-0.2'"),
        (1, "{id},inf,0.4,0.8", "line 2: normal_mild must be a finite number"),
        (1, "{id},0.2,0.4,0.8", "line 2: normal_mild, moderate, severe must sum to 1; found 1.4"),
        (3, "{first},0.2,0.3,0.5", r"line 4: row_id must be given once; found .*, which stands on line 2 already"),
        (3, "", "must have 25 rows; found 24, and no "),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path: Path, lines: list[str], line: int, put: str, message: str) -> None:
    changed = [*lines]
    changed[line] = put.format(id=lines[line].split(",")[0], first=lines[1].split(",")[0])
    if line == 0:
        changed = [row.rpartition(",")[0] for row in lines]
    with pytest.raises(DataError, match=message):
        read_lines(tmp_path, [row for row in changed if row])


def test_six_digits_are_enough(tmp_path: Path, lines: list[str]) -> None:
    short = [lines[0]]
    for line in lines[1:]:
        name, *numbers = line.split(",")
        short.append(",".join([name, *(f"{float(number):.6f}" for number in numbers)]))
    assert np.allclose(
        read_lines(tmp_path, short).probabilities, read_lines(tmp_path, lines).probabilities, atol=1e-6
    )


@pytest.mark.parametrize(
    ("studies", "said", "message"),
    [
        (["a", "2"], SAID[:2], "study_ids must be numbers of the competition's studies; found 'a'"),
        (["2", "2"], SAID[:2], "study_ids must hold each study once; found '2' twice"),
        (["1"], SAID[:2], r"probabilities must have shape \(1, 25, 3\); found \(2, 25, 3\)"),
        (["1", "2"], np.where(np.arange(25)[:, None] == 4, np.nan, SAID[:2]),
         "found none of 2, such as study 1, target spinal_canal_stenosis_l5_s1: give what you would say"),
        (["1", "2"], SAID[:2] * 1.1, "must sum to 1 and none be negative; found .* of study 1, target spinal"),
    ],
)  # fmt: skip
def test_what_may_not_be_submitted_is_not_written(tmp_path: Path, studies, said, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_submission(tmp_path / "s.csv", studies, said)
    assert not (tmp_path / "s.csv").exists()


def test_the_columns_are_the_competitions() -> None:
    assert COLUMNS == ("row_id", "normal_mild", "moderate", "severe")
