"""What a run is called beside others: its encoder and head, and more only where these are not enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from heads.runs.run import Run

_DIGITS = 6
_FIELDS_SHOWN = 3


def encoder_names(runs: Sequence[Run]) -> list[str]:
    """Return each run's encoder, with digits of the identity's digest where two identities have one name.

    Returns
    -------
    list of str
        ``hog``, or ``hog 3fa2b1`` where runs of another ``hog`` (another recipe, other weights) are among them.
    """
    digests: dict[str, set[str]] = {}
    for run in runs:
        digests.setdefault(run.identity.encoder, set()).add(run.identity.sha256)
    return [
        run.identity.encoder
        if len(digests[run.identity.encoder]) == 1
        else f"{run.identity.encoder} {run.identity.sha256[:_DIGITS]}"
        for run in runs
    ]


def head_name(run: Run) -> str:
    """Return the preset or head of a run, with the number of cases where it learned from a few."""
    settings = run.document["settings"]
    shots = settings.get("shots", 0)
    named = str(settings["preset"] or settings["head"])
    return f"{named}, {shots} cases" if shots and not settings["preset"] else named


def compared_names(runs: Sequence[Run]) -> list[str]:
    """Return a name of its own for each run: encoder and head, and its folder and id where these are not enough."""
    names = [f"{encoder}, {head_name(run)}" for encoder, run in zip(encoder_names(runs), runs, strict=True)]
    often = Counter(names)
    names = [
        name if often[name] == 1 else f"{name} ({run.folder.absolute().name})"
        for name, run in zip(names, runs, strict=True)
    ]
    often = Counter(names)
    return [
        name if often[name] == 1 else f"{name} {run.folder}" for name, run in zip(names, runs, strict=True)
    ]


def encoder_differences(runs: Sequence[Run], baseline: int) -> list[str]:
    """Return a line for each other identity of the baseline's encoder: in which fields they differ."""
    names, own = encoder_names(runs), runs[baseline].identity
    lines = []
    for name, run in zip(names, runs, strict=True):
        fields = own.differences(run.identity) if run.identity.encoder == own.encoder else {}
        if not fields:
            continue
        listed = [f"{field} ({theirs!r}, not {mine!r})" for field, (mine, theirs) in fields.items()]
        more = f" and {len(listed) - _FIELDS_SHOWN} more" if len(listed) > _FIELDS_SHOWN else ""
        lines.append(f"{name} differs from {names[baseline]} in {', '.join(listed[:_FIELDS_SHOWN])}{more}")
    return list(dict.fromkeys(lines))
