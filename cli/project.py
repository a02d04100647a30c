"""``embed.toml``: the defaults of a project, looked for upward from the current folder."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedstore.errors import UsageError

FILE_NAME = "embed.toml"

# Key -> (type, what it means). The same words as the options of the commands.
KEYS: dict[str, tuple[type, str]] = {
    "dataset": (str, "reader of the data set"),
    "root": (str, "the data set's folder or table, relative to this file"),
    "store": (str, "the store's folder, relative to this file"),
    "encoder": (str, "registered encoder"),
    "preprocess": (str, "preset: pad, eval or hf"),
    "device": (str, "auto, cpu, cuda, cuda:1, ..."),
    "dtype": (str, "arithmetic of the encoder: auto, float32, bfloat16, float16"),
    "batch_size": (int, "images per forward pass"),
    "workers": (int, "decoding processes"),
    "chunk_rows": (int, "rows of a chunk in new parts"),
    "store_dtype": (str, "float16 or float32, for new parts"),
    "max_failed": (float, "share of failed images up to which extract succeeds"),
    "task": (str, "task to probe"),
    "head": (str, "head to fit"),
    "seed": (int, "seed of folds and draws"),
    "runs": (str, "folder of the runs, relative to this file"),
    "levels": (str, "run of the lumbar localiser, relative to this file"),
    "key_file": (str, "file with the secret behind the ids, relative to this file; keep it out of stores"),
    "options": (dict, "options of the data set's reader"),
    "encoder_options": (dict, "the encoder's own options, part of the store's identity"),
}
_PATH_KEYS = ("root", "store", "runs", "levels", "key_file")


@dataclass(frozen=True)
class Project:
    """Settings of a project.

    Parameters
    ----------
    folder
        Where ``embed.toml`` lies; the current folder if there is none.
    settings
        Key -> value; paths are resolved against `folder`.
    """

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)


def find_project(start: Path) -> Project:
    """Read the nearest ``embed.toml`` in `start` or above; an empty project if there is none.

    Raises
    ------
    UsageError
        If the file is no TOML, or a key is unknown or of the wrong type.
    """
    for folder in (start, *start.parents):
        path = folder / FILE_NAME
        if path.is_file():
            return Project(folder, _resolved(read_settings(path), folder))
    return Project(start)


def read_settings(path: Path) -> dict[str, Any]:
    """Read and check an ``embed.toml``; paths are returned as written."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    for key, entry in settings.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.0)
            raise UsageError(f"{path}: unknown key {key!r}; the nearest valid one is {near[0]!r}")
        wanted = KEYS[key][0]
        accepted = (int, float) if wanted is float else (wanted,)
        if not isinstance(entry, accepted) or isinstance(entry, bool):
            raise UsageError(f"{path}: {key} must be {_kind(wanted)}; found {entry!r}")
    return settings


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write an ``embed.toml`` with a comment behind each key."""
    lines = ["# Defaults of `embed` in this folder and below; options on the command line win."]
    tables = []
    for key, entry in settings.items():
        if isinstance(entry, Mapping):
            tables += [
                "",
                f"[{key}]  # {KEYS[key][1]}",
                *(f"{name} = {_toml(value)}" for name, value in entry.items()),
            ]
        else:
            lines.append(f"{key} = {_toml(entry)}  # {KEYS[key][1]}")
    path.write_text("\n".join([*lines, *tables]) + "\n", encoding="utf-8")


def shown(path: Path) -> str:
    """Return `path` relative to the current folder where it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _resolved(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    resolved = {key: str(folder / entry) if key in _PATH_KEYS else entry for key, entry in settings.items()}
    options = settings.get("options", {})
    if isinstance(options.get("images_root"), str):
        resolved["options"] = options | {"images_root": str(folder / options["images_root"])}
    return resolved


def _kind(wanted: type) -> str:
    return {str: "text in quotes", int: "a whole number", float: "a number", dict: "a table"}[wanted]


def _toml(entry: Any) -> str:
    if isinstance(entry, str):
        escaped = "".join(
            f"\\u{ord(character):04x}" if ord(character) < 32 or character in '"\\' else character
            for character in entry
        )
        return f'"{escaped}"'
    if isinstance(entry, bool):
        return str(entry).lower()
    if isinstance(entry, Mapping):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(value)}" for key, value in entry.items()) + "}"
    if isinstance(entry, (list, tuple)):
        return f"[{', '.join(_toml(item) for item in entry)}]"
    return str(entry)
