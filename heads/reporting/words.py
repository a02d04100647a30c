"""What a page says in words and numbers: estimates, names of runs, the data, the preprocess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from heads.runs.run import Run

PHANTOM = "phantom: computer-drawn images, not patients"


def number_text(value: float | None, digits: int = 3) -> str:
    """Return a number with so many digits behind the point, and a dash for none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def interval_text(entry: Mapping[str, Any]) -> str:
    """Return ``[0.780, 0.845]``, or ``[–]`` without an interval."""
    if entry["low"] is None:
        return "[–]"
    return f"[{number_text(entry['low'])}, {number_text(entry['high'])}]"


def estimate_text(entry: Mapping[str, Any] | None) -> Markup:
    """Return ``0.812 [0.780, 0.845]``, whose interval does not wrap; a dash where the metric does not exist."""
    if not entry or entry["value"] is None:
        return Markup("–")
    return Markup('{} <span class="whole">{}</span>').format(
        number_text(entry["value"]), interval_text(entry)
    )


def binned_text(entry: Mapping[str, Any] | None) -> str:
    """Return ``debiased 0.031; of a perfect head 0.058`` for a calibration error, ``""`` for all else."""
    if not entry or "debiased" not in entry:
        return ""
    return f"debiased {number_text(entry['debiased'])}; of a perfect head {number_text(entry['if_perfect'])}"


def counted_text(entry: Mapping[str, Any] | None) -> str:
    """Return ``rule of three, 12 patients`` for an interval of a metric at its end, ``""`` for all else."""
    patients = (entry or {}).get("rule_of_three_patients")
    return f"rule of three, {patients:,} patient{'' if patients == 1 else 's'}" if patients else ""


def bins_text(bins_of_target: Mapping[str, int | None]) -> str:
    """Return ``5 bins``, or of several targets ``2 bins (12 targets), too few units (13 targets)``."""
    often = Counter(f"{bins} bins" if bins else "too few units" for bins in bins_of_target.values())
    if len(bins_of_target) == 1:
        return next(iter(often))
    return ", ".join(f"{words} ({count} target{'' if count == 1 else 's'})" for words, count in often.items())


def setting_text(value: object) -> str:
    """Return a chosen setting with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return what each run is called: its preset or head and its id, and its folder where heads are the same."""
    heads = [run.document["settings"]["preset"] or run.document["settings"]["head"] for run in runs]
    often = Counter(heads)
    return [
        f"{head}, {run.folder.absolute().name} ({run.run_id})"
        if often[head] > 1
        else f"{head} ({run.run_id})"
        for head, run in zip(heads, runs, strict=True)
    ]


def data_in_words(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return ``mura (MURA-v1.1) in mura.store`` for the data sets of ``run.json``; a phantom is called one."""
    return "; ".join(
        f"{source['dataset']}{_in_brackets(source['folder'])} in {source['store']}"
        + (f", {PHANTOM}" if source["phantom"] else "")
        for source in sources
    )


def _in_brackets(folder: str) -> str:
    """Return the name of a data set's folder in brackets; nothing where it is hidden or has no name of its own."""
    return f" ({folder})" if folder else ""


def preprocess_rows(preprocess: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the preprocess of an identity as terms and what they are, nested ones in one line each."""
    rows = []
    for name, entry in preprocess.items():
        if isinstance(entry, Mapping) and all(isinstance(part, Mapping) for part in entry.values()):
            # Recipes by modality; the one without a name is for all others.
            rows += [(f"{_words(name)}, {key or 'other'}", _value(part)) for key, part in entry.items()]
        else:
            rows.append((_words(name), _value(entry)))
    return rows


def lacks_interval(entries: object) -> bool:
    """Whether an estimate anywhere in a part of ``run.json`` has a value and no interval."""
    return any(entry["low"] is None and entry["value"] is not None for entry in _estimates(entries))


def _estimates(part: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(part, Mapping):
        if {"value", "low", "n"} <= part.keys():
            yield part
        else:
            for entry in part.values():
                yield from _estimates(entry)


def _value(entry: object) -> str:
    if isinstance(entry, Mapping):
        return "; ".join(f"{_words(name)} {_value(part)}" for name, part in entry.items())
    if isinstance(entry, list | tuple):
        if len(entry) == 2 and all(isinstance(part, int | float) for part in entry):
            return f"{entry[0]:g} to {entry[1]:g}"
        return ", ".join(_value(part) for part in entry)
    return f"{entry:g}" if isinstance(entry, float) else str(entry)


def _words(name: str) -> str:
    return name.replace("_", " ")
