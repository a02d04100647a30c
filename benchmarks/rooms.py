"""Count what docs/design.md says of the rooms: rooms, floors and arrows of each package, long functions and files.

A room is a module or folder directly below a package; an arrow is an import from one room of a package to another; the
floors are the rooms on the longest way along the arrows. The body of a function is counted without signature and
docstring.
"""

from __future__ import annotations

import ast
from argparse import ArgumentParser
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
from table import parse, show

PACKAGES = ("embedstore", "heads", "finetune", "cli")
LONG_BODY, LONG_FILE = 60, 400


def rooms_and_arrows(package: str) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the rooms of a package, and the pairs of rooms of which the first imports the second."""
    graph = grimp.build_graph(package)
    inside = [name for name in graph.modules if name.startswith(f"{package}.")]

    def room(name: str) -> str:
        return name.split(".")[1]

    arrows = {
        (room(name), room(other))
        for name in inside
        for other in graph.find_modules_directly_imported_by(name)
        if other.startswith(f"{package}.") and room(other) != room(name)
    }
    return {room(name) for name in inside}, arrows


def floors(rooms: set[str], arrows: set[tuple[str, str]]) -> int | None:
    """Return how many rooms the longest way visits; None where a circle makes it endless."""

    @cache
    def height(room: str) -> int:
        return 1 + max((height(below) for above, below in arrows if above == room), default=0)

    try:
        return max(height(room) for room in rooms)
    except RecursionError:
        return None


def bodies(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of body and the name of every function of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body:
                yield (body[-1].end_lineno or 0) - body[0].lineno + 1, f"{path}: {node.name}"


def main() -> None:
    """Print a line for each package, then what is too long."""
    arguments = parse(ArgumentParser(description=__doc__))
    rows, too_long = [], []
    for package in PACKAGES:
        rooms, arrows = rooms_and_arrows(package)
        files = sorted(Path(package).rglob("*.py"))
        lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
        lengths = sorted((length for path in files for length in bodies(path)), reverse=True)
        rows.append(
            {
                "package": package,
                "files": len(files),
                "rooms": len(rooms),
                "floors": floors(rooms, arrows) if rooms else 0,
                "arrows": len(arrows),
                "longest body": lengths[0][0] if lengths else 0,
                "longest file": max(lines.values()),
            }
        )
        too_long += [f"{name}: {length} lines of body" for length, name in lengths if length > LONG_BODY]
        too_long += [f"{path}: {length} lines" for path, length in lines.items() if length > LONG_FILE]
    show("rooms", rows, json_path=arguments.json)
    print("\n".join(too_long) or f"no body above {LONG_BODY} lines, no file above {LONG_FILE}")


if __name__ == "__main__":
    main()
