"""What every benchmark prints and keeps: a table, and JSON with the machine it ran on."""

from __future__ import annotations

import json
import os
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def parse(parser: ArgumentParser) -> Namespace:
    """Add ``--json FILE`` and parse the command line."""
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows and the machine as JSON"
    )
    return parser.parse_args()


def show(title: str, rows: Sequence[Mapping[str, Any]], *, json_path: Path | None) -> None:
    """Print rows of one shape as a table, and write them to `json_path` if there is one."""
    print(f"{title} ({machine()})")
    names = list(rows[0])
    cells = [names, *([_text(row[name]) for name in names] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if json_path:
        document = {"title": title, "machine": machine(), "rows": list(rows)}
        json_path.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> str:
    """Return processor, cores and Python in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _text(entry: Any) -> str:
    return (
        f"{entry:,.3g}"
        if isinstance(entry, float) and abs(entry) < 1000
        else (
            f"{entry:,.0f}" if isinstance(entry, (int, float)) and not isinstance(entry, bool) else str(entry)
        )
    )
