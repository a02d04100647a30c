"""Where ``embed probe`` leaves its run: a name that tells options apart, and a folder that may be written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.project import shown
from embedstore.errors import UsageError, first_few
from embedstore.files import TEMPORARY_SUFFIX, sha256_bytes
from heads.estimators.presets import preset
from heads.protocol.options import ProbeOptions
from heads.reporting.page import REPORT_FILE
from heads.runs.run_files import ESCALATION_FILE, EVIDENCE_FILE, FILES, RUN_FILE, TIMING_FILE

_NAMED_FILES = 3
# File systems end a name at 255 bytes; the task and the head come before.
_LONGEST_CHOICE = 60
_DIGITS = 6


def run_suffix(options: ProbeOptions, *, stores: Sequence[str] = (), prompts: str | None = None) -> str:
    """Return ``""``, or what stands behind task and head: ``-with-anatomy-select``.

    Only what makes another run of the same task and head is named; defaults leave no trace.

    Parameters
    ----------
    options
        Of the probe. Head and preset stand before; draws and device change nothing that a head says.
    stores
        Names of the stores, where they are not the project's own one.
    prompts
        Name of the file of prompts.
    """
    usual = ProbeOptions()
    of_preset = None if options.preset is None else preset(options.preset).shots
    several = (("on", stores), ("target", options.targets), ("with", options.with_columns))
    flags = (
        ("select", options.select_inputs),
        ("imbalance", options.select_imbalance),
        ("cv", options.cross_validate),
        ("curve", options.learning_curve),
        ("no-bank", not options.bank),
    )
    settings = (
        ("pool", options.pooling, usual.pooling),
        ("weights", options.class_weights, usual.class_weights),
        ("shots", None if options.shots == of_preset else options.shots, usual.shots),
        ("folds", options.folds, usual.folds),
        ("final", options.final, usual.final),
        ("repeats", options.repeats, usual.repeats),
        ("coverage", options.coverage, usual.coverage),
        ("seed", options.seed, usual.seed),
        ("prompts", prompts and listed([prompts]), None),
    )
    return "".join(
        [
            *(f"-{word}-{listed(names)}" for word, names in several if names),
            *(f"-{word}" for word, is_set in flags if is_set),
            *(f"-{word}-{setting}" for word, setting, default in settings if setting != default),
        ]
    )


def require_run_folder(folder: Path) -> None:
    """Refuse a place where a run cannot be written, or would lie among other files; before anything is fitted.

    Raises
    ------
    UsageError
        If the place or a folder above it is a file or may not be written, or the folder holds files and no run.
    """
    require_folder(folder)
    if not folder.is_dir() or (folder / RUN_FILE).is_file():
        return
    # Of a run that was stopped while it was written.
    own = {*FILES, EVIDENCE_FILE, REPORT_FILE, TIMING_FILE, ESCALATION_FILE}
    others = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name not in own and not entry.name.endswith(TEMPORARY_SUFFIX)
    )
    if others:
        named = first_few(others, shown=_NAMED_FILES)
        raise UsageError(
            f"--out: {shown(folder)} must be new, empty or a run; it holds {named} and no {RUN_FILE}; "
            "choose another folder"
        )


def require_own_run(folder: Path, stores: Collection[str]) -> None:
    """Refuse to replace a run of other stores in a place that nobody named.

    Parameters
    ----------
    folder
        Where the new run goes by default.
    stores
        Names of the stores that it is made from.

    Raises
    ------
    UsageError
        If there is a run, and it names other stores.
    """
    try:
        sources = json.loads((folder / RUN_FILE).read_bytes())["sources"]
        held = {source["store"] for source in sources}
    except (OSError, ValueError, KeyError, TypeError):
        return
    if held and stores and held != set(stores):
        raise UsageError(
            f"{shown(folder)} holds a run of {', '.join(sorted(held))}, this one is of {', '.join(sorted(stores))}; "
            "name another folder with --out, or delete that one"
        )


def require_folder(folder: Path) -> None:
    """Refuse a folder that is a file, lies below one, or may not be written; raises UsageError."""
    existing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not existing.is_dir():
        where = "" if existing == folder else f", and {shown(existing)} above it is a file"
        found = "; found a file" if existing == folder else ""
        raise UsageError(f"--out: {shown(folder)} must be a folder{found}{where}; choose another place")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"--out: {shown(existing)} may not be written; choose another place for {folder}")


def existing_run(folder: Path) -> str | None:
    """Return ``the run of 2026-07-01 12:30 UTC in runs/...`` where there is a run, else None."""
    if not (folder / RUN_FILE).is_file():
        return None
    try:
        created = datetime.fromisoformat(_timing(folder)["created"]).astimezone(UTC)
    except FileNotFoundError:
        return f"the run in {shown(folder)}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"a run that cannot be read in {shown(folder)}"
    return f"the run of {created:%Y-%m-%d %H:%M} UTC in {shown(folder)}"


def _timing(folder: Path) -> dict[str, Any]:
    """Return what holds the time of a run: run.json itself in format version 4."""
    found = json.loads((folder / RUN_FILE).read_bytes())
    if not isinstance(found, dict):
        raise TypeError(f"{RUN_FILE} must hold an object; found {type(found).__name__}")
    if "created" in found:
        return found
    timing: dict[str, Any] = json.loads((folder / TIMING_FILE).read_bytes())
    return timing


def listed(names: Sequence[str]) -> str:
    """Return names as one part of a file's name; where characters have to go, digits keep two names apart."""
    joined = "+".join(names)
    kept = "+".join(re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.") for name in names)
    if kept == joined and len(kept) <= _LONGEST_CHOICE:
        return kept
    digits = sha256_bytes("\0".join(names).encode())[:_DIGITS]
    return f"{kept[:_LONGEST_CHOICE].rstrip('-+.')}-{digits}"
