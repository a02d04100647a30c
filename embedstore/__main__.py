"""``python -m embedstore`` is the ``embed`` command."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points


def main() -> None:
    """Run the command, which is installed beside this package and found by its name."""
    found = [
        entry
        for entry in entry_points(group="console_scripts", name="embed")
        if entry.dist is not None and entry.dist.name == "embedstore"
    ]
    if not found:
        sys.exit("the embed command is not installed: pip install embedstore")
    found[0].load()()


if __name__ == "__main__":
    main()
