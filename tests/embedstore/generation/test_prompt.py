"""The question: what becomes of its places, and which files are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedstore.errors import DataError
from embedstore.generation.prompt import Prompt, read_prompt
from embedstore.lumbar.severity_codes import CONDITION_KEYS, LEVEL_KEYS


def test_views_and_their_number_are_named_and_the_braces_of_json_stay() -> None:
    text = Prompt().of(["sagittal-t2", "sagittal-t1", "axial-t2"])
    assert "3 slices" in text
    assert "Sagittal T2, Sagittal T1, Axial T2." in text
    assert '{"L1L2":{"canal":"N","lf":"N","rf":"N","ls":"N","rs":"N"}' in text
    assert all(key in text for key in (*LEVEL_KEYS, *CONDITION_KEYS))


def test_a_file_is_read_without_the_blanks_around_it(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text('\ufeff{count} images ({views}): {"L1L2"}\n\n')
    prompt = read_prompt(path)
    assert prompt.of(["axial-t2"]) == '1 images (Axial T2): {"L1L2"}'
    assert prompt.sha256 == Prompt('{count} images ({views}): {"L1L2"}').sha256 != Prompt().sha256


def test_files_that_are_no_prompt_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    with pytest.raises(DataError, match="found no such file"):
        read_prompt(path)
    path.write_text(" \n")
    with pytest.raises(DataError, match="must hold a prompt of 1 to 100,000 characters; found 0"):
        read_prompt(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="found other bytes"):
        read_prompt(path)
