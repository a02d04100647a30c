"""What is installed, beside the versions that the project is tested with, and the plug-ins of other packages."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from embedstore.errors import PluginError, UsageError
from embedstore.plugins import DATASETS, ENCODERS, HEADS, KINDS, plugins

_OWN_PACKAGE = "embedstore"
# Those of constraints.txt, which does not travel with the package.

TESTED_PYTHON = ((3, 11), (3, 12), (3, 13))
TESTED_VERSIONS = {
    "click": "8.5.1",
    "faiss-cpu": "1.15.1",
    "google-crc32c": "1.9.0",
    "h5py": "3.16.0",
    "imagecodecs": "2026.3.6",
    "jinja2": "3.1.6",
    "markupsafe": "3.0.4",
    "matplotlib": "3.11.2",
    "numpy": "2.4.6",
    "pillow": "13.0.0",
    "pyarrow": "26.0.1",
    "pydicom": "3.0.2",
    "ray": "2.60.0",
    "rich": "15.0.0",
    "safetensors": "0.8.0",
    "scikit-learn": "1.9.1",
    "scipy": "1.17.1",
    "sentencepiece": "0.2.3",
    "simplejpeg": "1.9.0",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "xgboost": "3.2.0",
    "zarr": "3.1.6",
}
# Those of extras; their absence is no fault.
OPTIONAL_VERSIONS = ("ray", "sentencepiece")


class State(StrEnum):
    """How serious a finding is; ``broken`` means that extractions fail."""

    FINE = "fine"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Parameters
    ----------
    topic
        What was checked.
    state
        How serious it is.
    found
        What was found, with numbers.
    fix
        What to do about it; empty if nothing.
    values
        The numbers, for machines.
    """

    topic: str
    state: State
    found: str
    fix: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def library_findings() -> Iterator[Finding]:
    """Compare Python and the libraries with the versions that the project is tested with."""
    running = platform.python_version()
    if sys.version_info[:2] in TESTED_PYTHON:
        yield Finding("python", State.FINE, running)
    else:
        known = ", ".join(f"{major}.{minor}" for major, minor in TESTED_PYTHON)
        yield Finding("python", State.NOTE, f"{running}; tested with {known}", f"use Python {known}")
    for name, tested in TESTED_VERSIONS.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            if name not in OPTIONAL_VERSIONS:
                yield Finding(name, State.BROKEN, "not installed", f"pip install {name}=={tested}")
            continue
        if installed.partition("+")[0] == tested:
            yield Finding(name, State.FINE, installed)
        else:
            yield Finding(
                name, State.NOTE, f"{installed}; tested with {tested}", f"pip install {name}=={tested}"
            )


def plugin_findings(load_head: Callable[[str], object] | None = None) -> Iterator[Finding]:
    """List the encoders, data sets and heads of other packages, and say of each whether it can be imported.

    Parameters
    ----------
    load_head
        Loads a head by its name and raises where it lacks a part of the contract (`heads.registry.head_family`); by
        default heads are imported and no more.
    """
    for group in (ENCODERS, DATASETS, HEADS):
        for plugin in plugins(group):
            if plugin.package == _OWN_PACKAGE:
                continue
            topic, package = f"{KINDS[group]} {plugin.name}", f"{plugin.package} {plugin.version}".strip()
            values = {
                "group": group,
                "name": plugin.name,
                "package": plugin.package,
                "version": plugin.version,
            }
            try:
                if group == HEADS and load_head is not None:
                    load_head(plugin.name)
                else:
                    plugin.load()
            except (PluginError, UsageError) as error:
                yield Finding(
                    topic, State.NOTE, f"{package}: does not load", str(error), values | {"loads": False}
                )
            else:
                yield Finding(topic, State.FINE, f"{package}: loads", values=values | {"loads": True})
