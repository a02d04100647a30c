"""Made-up answers are read as generated ones, agree with the table as often as is said, and never by its order."""

import json

import numpy as np
import pytest

from embedstore.errors import UsageError
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.phantoms.made_up_responses import write_made_up_responses
from heads.lumbar.response_file import read_responses


def tree(folder, y):
    cells = np.where(y < 0, "", np.array(CLASSES)[y])
    rows = [",".join([str(4000 + at), *row]) for at, row in enumerate(cells.tolist())]
    (folder / "train.csv").write_text("\n".join([",".join(["study_id", *TARGETS]), *rows]) + "\n")
    return folder


def test_half_of_the_codes_and_what_chance_adds_are_the_true_ones(tmp_path):
    y = np.random.default_rng(3).choice(3, size=(400, 25), p=(0.8, 0.15, 0.05))
    y[7, 3] = -1
    assert write_made_up_responses(tmp_path / "a.jsonl", tree(tmp_path, y)) == 400
    read = read_responses(tmp_path / "a.jsonl")
    assert read.study_ids.tolist() == [str(4000 + at) for at in range(400)]
    right = (read.classes == y)[2:]
    # 1/2 + 1/2 (.8 squared + .15 squared + .05 squared) = .8325, to four standard deviations of 9,950 cells.
    assert right.mean() == pytest.approx(0.8325, abs=0.015)
    assert 0 <= read.classes[7, 3] <= 2


def test_two_answers_have_flaws_and_the_same_seed_writes_the_same(tmp_path):
    root = tree(tmp_path, np.zeros((5, 25), int))
    for name, seed in (("a", 1), ("b", 1)):
        write_made_up_responses(tmp_path / name, root, seed=seed)
    counted = read_responses(tmp_path / "a").counts()
    assert counted["flaws_of_responses"]["text around the JSON"] == 1
    assert counted["flaws_of_responses"]["broken JSON"] == counted["unread_responses"] == 1
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert all(json.loads(line)["made_up"] for line in (tmp_path / "a").read_text().splitlines())


def test_a_folder_without_a_table_of_labels_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"train\.csv"):
        write_made_up_responses(tmp_path / "a", tmp_path)
