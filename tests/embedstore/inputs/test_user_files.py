"""Files below what a user names: each once, whatever links lead to it."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedstore.errors import DataError, UsageError
from embedstore.headers.file_frames import split_frame
from embedstore.inputs.user_files import find_files


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return path


def listed(*paths: Path) -> list[str]:
    return [file.path for file in find_files(paths).files]


@pytest.fixture
def tree(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/c/3.jpg", "b/._4.png", ".hidden/5.png"):
        picture(tmp_path / name)
    (tmp_path / "b/notes.txt").write_text("x")
    os.mkfifo(tmp_path / "b/pipe")
    return tmp_path


def test_regular_files_of_a_tree_are_listed_by_path_and_hidden_ones_are_not(tree):
    names = ("a/1.png", "a/2.png", "b/c/3.jpg", "b/notes.txt")
    assert listed(tree) == [str(tree / name) for name in names]


def test_what_is_met_twice_is_taken_once_and_counted(tree):
    found = find_files([tree / "a/2.png", tree / "a", tree / "b/../a/1.png"])
    assert [file.path for file in found.files] == [str(tree / "a/2.png"), str(tree / "a/1.png")]
    assert [file.named for file in found.files] == [True, False]
    assert found.again == 2


def test_links_to_folders_are_followed_once_and_a_circle_ends(tree):
    (tree / "b/again").symlink_to(tree / "a")
    (tree / "b/c/up").symlink_to(tree)
    assert find_files([tree / "b"]).again == 0
    assert listed(tree / "b") == [
        str(tree / name) for name in ("b/again/1.png", "b/again/2.png", "b/c/3.jpg", "b/notes.txt")
    ]
    assert listed(tree / "b/again/1.png") == [str(tree / "a/1.png")]
    assert len(listed(tree)) == 4


def test_a_relative_path_and_an_absolute_one_are_one_file(tree, monkeypatch):
    monkeypatch.chdir(tree / "b")
    assert listed(Path("../a/1.png"), tree / "a/1.png") == [str(tree / "a/1.png")]


def test_names_that_are_not_utf8_are_taken(tree):
    os.rename(tree / "a/1.png", os.fsencode(tree / "a") + b"/\xff\xe9.png")
    assert any(os.fsencode(path).endswith(b"\xff\xe9.png") for path in listed(tree / "a"))


def test_a_store_among_files_is_refused_and_one_in_a_folder_is_passed_over(tree):
    (tree / "s").mkdir()
    (tree / "s/store.json").write_text("{}")
    (tree / "s/chunk").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"s is a store; give it alone"):
        find_files([tree / "a", tree / "s"])
    assert len(listed(tree)) == 4


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        find_files([Path("gone.png")])


def test_a_frame_is_named_behind_the_file_unless_the_file_is_called_so(tree):
    assert split_frame(tree / "a/1.png#3") == (tree / "a/1.png", 3)
    picture(tree / "a/1.png").rename(tree / "a/1.png#3")
    assert split_frame(tree / "a/1.png#3") == (tree / "a/1.png#3", 0)
