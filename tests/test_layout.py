"""The rooms: every module path that stands in a string or a page is there, and tests stand where one looks for them."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import subprocess
from functools import cache

import pytest

from cli.main import COMMANDS, cli
from tests.paths import PROJECT

PACKAGES = ("embedstore", "heads", "finetune", "cli")
_DOTTED = re.compile(rf"(?<![\w./-])((?:{'|'.join(PACKAGES)}|tests|benchmarks)(?:\.\w+)+)")
_IMPORTED = re.compile(rf"\bfrom ((?:{'|'.join(PACKAGES)})(?:\.\w+)*) import (\w+)")
# Names that look like module paths: groups of entry points, files, keys of other formats.
_NO_MODULES = {"embedstore.heads", "embedstore.identity", "embedstore.export", "embedstore.key"}
_FILE_ENDINGS = {"toml", "egg", "store", "html", "json", "md", "py", "cfg", "key", "wheel", "whl"}
MODULES = sorted(
    path.relative_to(PROJECT)
    for package in PACKAGES
    for path in (PROJECT / package).rglob("*.py")
    if path.name != "__init__.py"
)


def tracked(*endings: str) -> list[str]:
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [name for name in names if name.endswith(endings) and (PROJECT / name).is_file()]


@cache
def leads_somewhere(dotted: str) -> bool:
    """Say whether a dotted name is a module, or an attribute of one at any depth."""
    words = dotted.split(".")
    for count in range(len(words), 0, -1):
        try:
            found = importlib.import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        for word in words[count:]:
            # A dataclass field without a default is no attribute of its class.
            if word in getattr(found, "__dataclass_fields__", {}):
                return True
            if not hasattr(found, word):
                return False
            found = getattr(found, word)
        return True
    return False


def dotted_names(text: str) -> set[str]:
    found = {match.group(1) for match in _DOTTED.finditer(text)}
    # Programs in strings: `from a import b` names a.b.
    found |= {f"{room}.{name}" for room, name in _IMPORTED.findall(text)}
    return {
        name
        for name in found
        if name not in _NO_MODULES and name.rpartition(".")[2] not in _FILE_ENDINGS | {"parquet"}
    }


@pytest.mark.parametrize("package", [*PACKAGES, "tests", "benchmarks"])
def test_module_paths_in_strings_are_there(package):
    """Lazy commands, starters of child processes, package loaders, patches of tests, and names in docstrings."""
    lost = []
    for name in tracked(".py"):
        if not name.startswith(f"{package}/"):
            continue
        for node in ast.walk(ast.parse((PROJECT / name).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                lost += [(name, path) for path in dotted_names(node.value) if not leads_somewhere(path)]
    assert not lost


def test_module_paths_in_pages_and_settings_are_there():
    pages = [name for name in tracked(".md", ".cfg", ".toml", ".html") if name != "CHANGELOG.md"]
    lost = [
        (page, name)
        for page in pages
        for name in dotted_names((PROJECT / page).read_text())
        if not leads_somewhere(name)
    ]
    assert not lost


def test_every_entry_point_can_be_imported():
    settings = configparser.ConfigParser()
    settings.read(PROJECT / "setup.cfg")
    targets = [
        line.partition("=")[2].strip()
        for lines in settings["options.entry_points"].values()
        for line in lines.strip().splitlines()
    ]
    assert len(targets) > 10
    for target in targets:
        module, _, attribute = target.partition(":")
        assert hasattr(importlib.import_module(module), attribute), target


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_help_lists_is_found(name):
    assert cli.get_command(None, name).name == name


def test_tests_stand_beside_what_they_test():
    """A module has a test file of its name in the mirrored folder, or tests/README.md says where it is tested."""
    rows = re.findall(
        r"^\| `([\w/]+\.py)` \| (.+?) \|$", (PROJECT / "tests/README.md").read_text(), re.MULTILINE
    )
    listed = dict(rows)
    assert len(listed) == len(rows), "a module is listed twice"
    without = {
        str(module)
        for module in MODULES
        if not (PROJECT / "tests" / module.parent / f"test_{module.name}").is_file()
    }
    assert listed.keys() == without
    for module, places in listed.items():
        for place in re.findall(r"`([\w/]+\.py)`", places):
            assert (PROJECT / "tests" / place).is_file(), (module, place)


def test_rooms_are_small_and_no_deeper_than_two_levels():
    """About a dozen files a room and two levels below the top, so that a reader finds the room of a line."""
    for module in MODULES:
        assert len(module.parts) <= 3, module
    rooms = {module.parent for module in MODULES}
    for room in rooms:
        inside = [module for module in MODULES if module.parent == room and module.name != "__main__.py"]
        assert len(inside) <= 14, room
        sentence = (ast.get_docstring(ast.parse((PROJECT / room / "__init__.py").read_text())) or "").strip()
        assert sentence, room


def test_the_page_on_design_shows_the_floors_that_are_held():
    settings = configparser.ConfigParser()
    settings.read(PROJECT / "setup.cfg")
    layers = re.findall(r"[\w.]+", settings["importlinter:contract:floors"]["layers"])
    block = (PROJECT / "docs/design.md").read_text().partition("## Rooms and floors")[2].split("```")[1]
    for package in ("cli", "heads", "embedstore"):
        rows = re.search(rf"^{package} +(.*(?:\n +>.*)*)", block, re.MULTILINE).group(1)
        shown = re.findall(r"\w+", rows)
        assert shown == [
            name.removeprefix(f"{package}.") for name in layers if name.startswith(f"{package}.")
        ]
