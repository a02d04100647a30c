"""Packages as pip would leave them in a folder, so that their entry points are found."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path


def install(
    folder: Path,
    package: str,
    entry_points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str],
    *,
    version: str = "1.2",
) -> None:
    """Write modules (name -> source) and the metadata of a package with `entry_points` (group -> name -> place)."""
    metadata = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (metadata / "RECORD").write_text("")
    lines = []
    for group, members in entry_points.items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in members.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
