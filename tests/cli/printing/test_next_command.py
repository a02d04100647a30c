"""What a command says to type next works as it is typed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.main import run
from embedstore.store.reader import open_store

EXTRACT = "extract --dataset table --root images.csv --workers 1 --store"


@pytest.fixture
def images(tmp_path):
    """Twelve pictures of twelve patients, half of them inverted, one file missing."""
    generator = np.random.default_rng(0)
    lines = ["path,patient_id,study_id,modality,dark"]
    for number in range(12):
        pixels = generator.integers(0, 60, (16, 16), dtype=np.uint8) + np.uint8(0 if number % 2 else 180)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,p{number},s{number},DX,{'yes' if number % 2 else 'no'}")
    lines.append("gone.png,p12,s12,CR,yes")
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def next_command(printed: str) -> list[str]:
    """Return the words behind ``Next: embed``."""
    lines = [line for line in printed.splitlines() if line.startswith("Next: embed ")]
    assert len(lines) == 1, printed
    return shlex.split(lines[0].removeprefix("Next: embed ").partition(" (")[0])


def test_after_an_extraction_comes_a_probe_of_that_store(images, capsys):
    assert run([*EXTRACT.split(), "my images.store", "--label", "dark", "--max-failed", "1"]) == 0
    words = next_command(capsys.readouterr().out)
    assert words == ["probe", "--store", "my images.store"]
    assert run([*words, "--folds", "2", "--draws", "20"]) == 0


def test_where_embed_toml_names_the_store_nothing_more_is_needed(images, capsys):
    (images / "embed.toml").write_text('store = "t.store"\n')
    assert run([*EXTRACT.split(), "t.store", "--label", "dark", "--max-failed", "1"]) == 0
    assert next_command(capsys.readouterr().out) == ["probe"]


def test_without_a_task_the_next_is_how_to_get_one_and_with_several_it_is_named(images, capsys):
    assert run([*EXTRACT.split(), "t.store", "--max-failed", "1"]) == 0
    words = next_command(capsys.readouterr().out)
    assert words == ["label", "--help"]
    assert run(words) == 0
    capsys.readouterr()
    (images / "labels.csv").write_text(
        "study_id,dark\n" + "".join(f"s{n},{'yes' if n % 2 else 'no'}\n" for n in range(12))
    )
    for name in ("first", "second"):
        assert run(["label", "t.store", "--name", name, "--csv", "labels.csv"]) == 0
    printed = capsys.readouterr().out
    assert "Next: embed probe --task second --store t.store" in printed
    assert run(["probe", "--task", "second", "--store", "t.store", "--folds", "2", "--draws", "20"]) == 0


def test_failures_name_the_command_that_lists_them_however_few(images, capsys):
    assert run([*EXTRACT.split(), "t.store", "--max-failed", "1"]) == 0
    printed = capsys.readouterr().out
    assert "  failed, missing: 1\n  which they are: embed info --failures --store t.store\n" in printed
    assert run(["info", "--failures", "--store", "t.store"]) == 0
    assert "failed: gone.png: missing: the file does not exist" in capsys.readouterr().out


def test_an_extraction_that_has_work_left_names_no_next(images, capsys, monkeypatch):
    monkeypatch.setattr("cli.commands.extract.stop_on_signal", _Stopped)
    assert run([*EXTRACT.split(), "t.store", "--label", "dark"]) == 130
    printed = capsys.readouterr().out
    assert "run the same command to continue" in printed
    assert "Next:" not in printed


class _Stopped:
    def __enter__(self):
        return lambda: True

    def __exit__(self, *_):
        return None


def test_where_the_time_went_is_said_to_those_who_ask(images, capsys):
    assert run([*EXTRACT.split(), "a.store", "--max-failed", "1"]) == 0
    quiet = capsys.readouterr().out
    assert "bound by" not in quiet
    assert "device idle" not in quiet
    assert run([*EXTRACT.split(), "b.store", "--max-failed", "1", "--verbose"]) == 0
    told = capsys.readouterr().out
    assert "bound by the " in told
    assert "device idle " in told
    assert run([*EXTRACT.split(), "c.store", "--max-failed", "1", "--json"]) == 0
    assert {"bound_by", "device_idle_share"} <= set(json.loads(capsys.readouterr().out))


def test_a_dry_run_and_the_extraction_agree_on_what_fails(images, capsys):
    (images / "0.png").write_bytes(b"")
    (images / "1.png").write_text("no picture")
    (images / "2.png").unlink()
    (images / "2.png").mkdir()
    (images / "3.png").unlink()
    (images / "3.png").symlink_to("3.png")
    assert run([*EXTRACT.split(), "t.store", "--dry-run", "--json"]) == 0
    dry = json.loads(capsys.readouterr().out)
    expected = {image_id: reason for reason, image_ids in dry["absent"].items() for image_id in image_ids}
    expected |= {image_id: refusal["reason"] for image_id, refusal in dry["refused"].items()}
    assert dry["complete"]
    assert run([*EXTRACT.split(), "t.store", "--max-failed", "1", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    store = open_store("t.store")
    failed = {store.image_ids[failure.row]: failure.reason.value for failure in store.failures}
    assert failed == expected
    assert (dry["images"], dry["computable"]) == (done["images"], done["valid"]) == (13, 8)
    assert run([*EXTRACT.split(), "u.store", "--dry-run"]) == 0
    assert "would compute 8 of 13 images; 0 are in the store already" in capsys.readouterr().out
    # What failed is settled, unless it is asked for again.
    assert run([*EXTRACT.split(), "t.store", "--dry-run"]) == 0
    assert "would compute 0 of 0 images; 13 are in the store already" in capsys.readouterr().out
    assert run([*EXTRACT.split(), "t.store", "--dry-run", "--retry-failed"]) == 0
    assert "would compute 0 of 5 images; 8 are in the store already" in capsys.readouterr().out


def test_a_long_list_of_refusals_says_how_many_more(images, capsys):
    for number in range(12):
        (images / f"{number}.png").write_text("no picture")
    assert run([*EXTRACT.split(), "t.store", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("neither DICOM nor a known picture") == 10
    assert "  and 2 more; --json lists all\n" in printed
    assert run([*EXTRACT.split(), "t.store", "--max-failed", "1"]) == 0
    capsys.readouterr()
    assert run(["info", "t.store"]) == 0
    printed = capsys.readouterr().out
    assert "  failed, unreadable: 12 images\n    0.png: " in printed
    assert printed.count("neither DICOM nor a known picture") == 3
    assert "    and 9 more; --failures lists all\n" in printed
    assert "  failed, missing: 1 image\n    gone.png: the file does not exist\n" in printed


def test_info_repeats_whose_images_they_are(images, capsys):
    assert run([*EXTRACT.split(), "t.store", "--max-failed", "1"]) == 0
    capsys.readouterr()
    assert run(["info", "t.store"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "data 13 patients, 13 studies" in printed
    assert "modality CR 1, DX 12" in printed
    assert run(["info", "t.store", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["data"] == {
        "images": 13,
        "patients": 13,
        "studies": 13,
        "images_by": {"modality": {"CR": 1, "DX": 12}},
    }
    assert document["failed_by_reason"] == {
        "missing": {
            "images": 1,
            "first": [{"image_id": "gone.png", "message": "the file does not exist"}],
        }
    }


def test_a_mistyped_store_gets_the_nearest(images, capsys):
    assert run([*EXTRACT.split(), "mine.store", "--max-failed", "1"]) == 0
    capsys.readouterr()
    assert run(["info", "mien.store"]) == 1
    assert "Did you mean 'mine.store'?" in capsys.readouterr().err
    # The suffix alone is no likeness.
    assert run(["info", "hospital.store"]) == 1
    assert "Did you mean" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_tells_machines_what_it_made(tmp_path, capsys):
    assert run(["demo", "--out", "demo", "--patients", "40", "--lumbar-studies", "2", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert Path(made["folder"]) == tmp_path / "demo"
    assert made["stores"] == ["lumbar.store", "mura.store"]
    assert made["runs"] == ["runs/abnormal-logistic"]
    assert (made["steps"][-1].split()[:2], made["exit_code"]) == (["embed", "extract"], 0)
