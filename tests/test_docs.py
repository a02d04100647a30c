"""What the README says is what happens: its tour is run, its output compared, its other commands parsed."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"```(console|bash)\n(.*?)```", re.DOTALL)


def commands_of(page: Path) -> list[str]:
    """Return the `embed` command lines of a page's console and bash blocks; continued lines are joined."""
    lines = []
    for _, block in _BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            text = line.removeprefix("$ ").split("  #")[0].strip()
            if text.startswith("embed "):
                lines.append(text)
    return lines


DOCUMENTED = [(page.name, line) for page in PAGES for line in commands_of(page)]


@pytest.mark.parametrize(("page", "line"), DOCUMENTED)
def test_every_documented_command_and_option_exists(page, line):
    words = shlex.split(line)[1:]
    if words[0].startswith("-"):
        return
    assert words[0] in COMMANDS, (page, line)
    command = cli.get_command(None, words[0])
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    given = {word.partition("=")[0] for word in words[1:] if word.startswith("-") and not word[1:2].isdigit()}
    assert given <= known, (page, line)


def masked(line: str) -> str:
    """Replace what may differ between two runs: numbers, digests, anatomies, bounds, and runs of spaces."""
    line = re.sub(r"\b[0-9a-f]{12,64}\b", "#", line)
    line = re.sub(r"(negative|positive|abnormal\"|normal\")", "label", line)
    line = re.sub(r"(<= )?[-+]?\d[\d,.:]*", "#", line)
    return re.sub(r"\s+", " ", line).strip()


@pytest.mark.slow
def test_the_tour_prints_what_the_readme_shows(tmp_path):
    """Numbers are masked here; `embed demo` prints the README's own, up to timings, on the machine named there.

    Half of its lumbar studies take half of the time.
    """
    tour = (ROOT / "README.md").read_text().partition("## Five-minute tour")[2].partition("\n## ")[0]
    blocks = [block for kind, block in _BLOCK.findall(tour) if kind == "console"]
    assert blocks
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "demo", "--lumbar-studies", "20"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    printed = {masked(line) for line in (done.stdout + done.stderr).splitlines()}
    ran = {line.removeprefix("$ ") for line in done.stdout.splitlines() if line.startswith("$ ")}
    shown_commands, missing = set(), []
    folder = tmp_path / "demo"
    for block in blocks:
        pieces = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        for piece in pieces:
            line, _, output = piece.partition("\n")
            shown_commands.add(line)
            if (
                masked(line) not in {masked(command) for command in ran}
                and line.startswith("embed ")
                and (not line.startswith("embed demo"))
            ):
                more = subprocess.run(
                    [sys.executable, "-m", "cli.main", *shlex.split(line)[1:]],
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert more.returncode == 0, (line, more.stderr)
                printed |= {masked(row) for row in (more.stdout + more.stderr).splitlines()}
            rows = [row for row in output.splitlines() if row.strip() not in ("", "...")]
            missing += [row for row in rows if masked(row) not in printed]
    assert not missing
    assert shown_commands


def test_every_command_stands_in_the_readme():
    text = (ROOT / "README.md").read_text()
    for name in cli.list_commands(None):
        assert f"embed {name}" in text, name


def test_the_tree_in_the_readme_names_what_is_there():
    tree = (ROOT / "README.md").read_text().partition("## Inside")[2]
    for folder in ("embedstore", "heads", "finetune", "cli", "tests", "docs", "benchmarks", "examples"):
        assert f"\n{folder}/" in tree
        assert (ROOT / folder).is_dir()
    for room in ("embedstore", "heads", "finetune", "cli"):
        for init in sorted((ROOT / room).glob("*/__init__.py")):
            assert f" {init.parent.name}/" in tree, init
    for name in re.findall(r"^  (\w+\.py|\w+/) ", tree, flags=re.MULTILINE):
        assert any((ROOT / room / name).exists() for room in ("embedstore", "heads", "finetune", "cli")), name


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), (page.name, target)


def test_the_project_does_not_hold_a_path_of_a_machine():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".cfg", ".toml", ".txt", ".html", "") and path.is_file():
            text = path.read_text(errors="replace")
            assert "/wo" + "rk/" not in text, name
            assert "/ro" + "ot/" not in text, name


def python_blocks(page: Path) -> list[str]:
    return [
        block
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        if block.startswith(">>>")
    ]


@pytest.mark.slow
def test_the_python_of_the_pages_prints_what_they_show(capsys):
    """In one folder, one block after the other; the README's last, on the store that docs/python.md makes."""
    blocks = [
        (name, block) for name in ("docs/python.md", "README.md") for block in python_blocks(ROOT / name)
    ]
    assert len(blocks) > 8
    names: dict[str, object] = {}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for at, (name, block) in enumerate(blocks):
        if "to_pandas(" in block and importlib.util.find_spec("pandas") is None:
            continue
        example = doctest.DocTestParser().get_doctest(block, names, f"{name}, block {at}", name, 0)
        runner.run(example, clear_globs=False)
        names |= example.globs
    assert not runner.failures, capsys.readouterr().out


def test_the_page_on_python_lists_what_has_no_example():
    from tests.test_public_names import WITHOUT_EXAMPLE

    rows = re.findall(r"^\| ([\w ]+) \| (`.+`) \|$", (ROOT / "docs/python.md").read_text(), re.MULTILINE)
    assert {name: why for why, names in rows for name in re.findall(r"`(\w+)`", names)} == WITHOUT_EXAMPLE


def test_pages_name_the_public_roots_only():
    """Except the pages on how the project is built."""
    deep = re.compile(r"\b(?:from|import) (?:embedstore|heads)\.\w+")
    for page in PAGES:
        if page.name not in ("design.md", "plugins.md"):
            assert not deep.search(page.read_text()), page.name
