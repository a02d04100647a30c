"""Files are found by the paths of another place, and never outside of the folder of the images."""

import unicodedata

import pytest

from embedstore.datasets.table import Table
from embedstore.errors import DataError
from embedstore.paths.found_files import find_files
from embedstore.paths.path_search import PathRefused


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "CheXpert"
    for file in ("train/p1/a.png", "train/p2/B b.png", unicodedata.normalize("NFD", "train/röntgen.png")):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x")
    return folder


def found(root, *paths):
    files = find_files(root, paths)
    return files.paths, files.absent, "; ".join(remark.words for remark in files.remarks)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("train/p1/a.png", ""),
        ("train\\p1\\a.png", "1 path with backslashes read with slashes"),
        ("CheXpert-v1.0/train/p1/a.png", "1 path found without 'CheXpert-v1.0/' in front"),
        ("/data/of/someone/train/p1/a.png", "1 path found without 'data/of/someone/' in front"),
        (
            "C:\\data\\train\\p1\\a.png",
            "1 path with backslashes read with slashes; 1 path found without 'C:/data/' in front",
        ),
        ("TRAIN/P1/A.PNG", "1 path found in another letter case"),
        ("./train//p1/a.png", "1 path written in another way"),
        ("train/x/../p1/a.png", "1 path written in another way"),
        ("file:///x/train/p1/a.png", "1 path read as a file:// address"),
        ("train/p1/a", "1 path found by the name without its ending"),
        ("a.png", "1 path of a name alone found in a folder below"),
        ("../../train/p1/a.png", "1 path found without '../../' in front"),
    ],
)
def test_a_path_of_another_place_is_found_and_said(root, written, said):
    paths, absent, words = found(root, written)
    assert (paths, absent) == (["train/p1/a.png"], [])
    assert words.startswith(said) if said else words == ""


def test_percent_codes_and_unicode_forms_are_found(root):
    composed = unicodedata.normalize("NFC", "train/röntgen.png")
    paths, absent, words = found(root, "train/p2/B%20b.png", composed)
    assert paths == ["train/p2/B b.png", unicodedata.normalize("NFD", composed)]
    assert absent == []
    assert words == "1 path with percent codes decoded; 1 path found in another Unicode form"


def test_absolute_paths_below_the_root_are_made_relative_absent_ones_too(root):
    paths, absent, _ = found(root, f"{root}/train/p1/a.png", f"{root}/train/p9/z.png")
    assert (paths, absent) == (["train/p1/a.png", "train/p9/z.png"], [1])


def test_the_front_that_others_lack_is_left_out_of_absent_paths_too(root):
    paths, absent, _ = found(root, "X/train/p1/a.png", "X/train/p2/B b.png", "X/train/p3/c.png")
    assert (paths[2], absent) == ("train/p3/c.png", [2])


def test_names_that_fit_by_accident_are_no_match(root):
    (root / "1.png").write_bytes(b"x")
    paths, absent, words = found(root, "p7/1.png", "p8/1.png", "train/p1/a.png")
    assert (paths[:2], absent) == (["p7/1.png", "p8/1.png"], [0, 1])
    assert "CheXpert has no folder 'p7', 'p8'" in words
    assert "`images_root`" in words


def test_two_files_that_differ_only_in_case_are_not_guessed_between(root):
    (root / "train/p1/A.png").write_bytes(b"y")
    if len(list((root / "train/p1").iterdir())) < 2:
        pytest.skip("this file system does not tell letter case apart")
    assert found(root, "train/p1/A.png")[0] == ["train/p1/A.png"]
    with pytest.raises(PathRefused, match=r"'A.PNG' may be 'A.png' or 'a.png'") as refused:
        found(root, "train/p1/a.png", "train/p1/A.PNG")
    assert refused.value.row == 1


@pytest.mark.parametrize(
    "written", ["/etc/passwd", "../secret.png", "file:///etc/passwd", "x/../../secret.png"]
)
def test_nothing_outside_of_the_root_is_found(root, written):
    (root.parent / "secret.png").write_bytes(b"x")
    with pytest.raises(PathRefused, match="must be relative to the folder of the images and stay below it"):
        found(root, written)


def test_percent_codes_do_not_lead_out_either(root):
    (root.parent / "secret.png").write_bytes(b"x")
    assert found(root, "%2e%2e/secret.png")[:2] == (["%2e%2e/secret.png"], [0])


def test_images_may_lie_elsewhere_than_their_table(root, tmp_path):
    table = tmp_path / "tables" / "t.csv"
    table.parent.mkdir()
    table.write_text("path\n../CheXpert/train/p1/a.png\n")
    with pytest.raises(DataError, match=r"t.csv: line 2: .*`images_root`"):
        Table().read(table)
    collection = Table(images_root=root).read(table)
    assert (collection.root, collection.manifest.column("path")) == (root, ["train/p1/a.png"])
    with pytest.raises(DataError, match="`images_root` must be a folder"):
        Table(images_root=root / "nothing").read(table)


def test_composed_names_are_the_image_ids_however_files_are_named(root):
    (root / "t.csv").write_text(
        "path\n" + unicodedata.normalize("NFC", "train/röntgen.png") + "\n", encoding="utf-8"
    )
    manifest = Table().read(root / "t.csv").manifest
    assert manifest.column("image_id") == [unicodedata.normalize("NFC", "train/röntgen.png")]
    assert manifest.column("path") == [unicodedata.normalize("NFD", "train/röntgen.png")]


def test_files_of_one_folder_are_found_each_in_its_own_way(root):
    for name in ("B.png", "c.png", "d.png", "e f.png"):
        (root / "train/p1" / name).write_bytes(b"x")
    names = ("a.png", "c.png", "b.png", "e%20f.png", "gone.png")
    paths, absent, words = found(root, *(f"x/train/p1/{name}" for name in names), "x/train/p1\\d.png")
    assert paths == [
        f"train/p1/{name}" for name in ("a.png", "c.png", "B.png", "e f.png", "gone.png", "d.png")
    ]
    assert absent == [4]
    assert words == (
        "1 path found in another letter case; 1 path with percent codes decoded; "
        "1 path with backslashes read with slashes; 5 paths found without 'x/' in front"
    )
