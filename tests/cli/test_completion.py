"""What the shell offers after TAB, through click's own completion classes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from cli.main import COMMANDS, cli
from embedstore.store.tasks import write_task
from embedstore.task import Task
from tests.stores import make_store


def offered(*words: str, shell: type[ShellComplete] = BashComplete) -> list[str]:
    """Return what is offered for the last of `words`."""
    complete = shell(cli, {}, "embed", "_EMBED_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "s.store"
    make_store(store)
    labels = pa.table({"unit_id": ["study0", "study1"], "sharp": ["no", "yes"]})
    write_task(store, Task("sharp", "study", ("sharp",), ("no", "yes"), labels))
    (tmp_path / "embed.toml").write_text('store = "s.store"\n')
    for name in ("sharp-knn", "sharp-mlp"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    (tmp_path / "runs" / "no-run").mkdir()
    return tmp_path


@pytest.mark.parametrize("shell", [BashComplete, ZshComplete, FishComplete])
def test_commands_are_offered_in_every_shell(shell):
    assert offered("pr", shell=shell) == ["probe", "predict"]
    assert offered("", shell=shell) == list(COMMANDS)


def test_commands_are_offered_without_importing_them():
    program = (
        "import sys, cli.main; from click.shell_completion import BashComplete as B;"
        "B(cli.main.cli, {}, 'embed', 'X').get_completions([], '');"
        "print([name for name in sys.modules if name.startswith(('cli.commands.', 'cli.comparing', 'numpy', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("probe", "--head", ""),
            ["attention", "knn", "logistic", "mlp", "xgboost", "zeroshot", "blend", "all"],
        ),
        (("probe", "--head", "x"), ["xgboost"]),
        (("probe", "--preset", "dino"), ["dinov2-logreg", "dinov2-knn"]),
        (("probe", "--task", ""), ["sharp"]),
        (("probe", "--target", "sh"), ["sharp"]),
        (("probe", "--with", "im"), ["image_id"]),
        (("probe", "--store", "gone.store", "--task", ""), []),
        (("extract", "--encoder", "med"), ["medgemma-896", "medsiglip-448"]),
        (("extract", "--dataset", "rsna"), ["rsna-lumbar", "rsna-pneumonia"]),
        (("extract", "--preprocess", ""), ["pad", "eval", "hf"]),
        (("init", "--dataset", "mu"), ["mura"]),
        (("doctor", "--encoder", "h"), ["hog"]),
        (("predict", "--probe", ""), ["runs/sharp-knn", "runs/sharp-mlp"]),
        (("report", "runs/sharp-m"), ["runs/sharp-mlp"]),
    ],
)
def test_names_are_offered(project, words, expected):
    assert offered(*words) == expected


def test_the_runs_folder_of_the_project_is_looked_into(project):
    (project / "embed.toml").write_text('runs = "elsewhere"\n')
    (project / "elsewhere" / "one").mkdir(parents=True)
    (project / "elsewhere" / "one" / "run.json").write_text("{}")
    assert offered("predict", "--probe", "") == ["elsewhere/one"]


def test_where_no_name_fits_folders_are_offered_by_the_shell(project):
    complete = BashComplete(cli, {}, "embed", "_EMBED_COMPLETE")
    assert [item.type for item in complete.get_completions(["report"], "other/")] == ["dir"]


def test_a_damaged_project_offers_less_and_says_nothing(project, capsys):
    (project / "embed.toml").write_text("hede = 1\n")
    assert "logistic" in offered("probe", "--head", "")
    assert offered("probe", "--task", "") == []
    (project / "s.store" / "store.json").write_text("{")
    assert offered("probe", "--store", "s.store", "--with", "") == []
    assert capsys.readouterr() == ("", "")


def test_the_lines_of_the_readme_turn_it_on(tmp_path):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    for shell, marker in (("bash", "complete -o nosort"), ("fish", "complete --no-files")):
        assert f"_EMBED_COMPLETE={shell}_source embed" in text
        kind = {"bash": BashComplete, "fish": FishComplete}[shell]
        assert marker in kind(cli, {}, "embed", "_EMBED_COMPLETE").source()
