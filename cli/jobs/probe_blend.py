"""Several heads on one task, and one run of their blend that answers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cli.jobs.open_probe import OpenedProbe, ProbeJob, open_probe
from cli.jobs.probe_store import family_of, finished_run, keep_result, kept_run, say_what_stays
from cli.jobs.run_folder import existing_run, listed
from cli.notify import Notify, ignore
from embedstore.errors import EmbedError, UsageError, did_you_mean
from heads.blending.blend import BLEND, blend, blend_decided_by
from heads.protocol.probe import probe
from heads.protocol.probe_result import ProbeResult
from heads.registry import head_names
from heads.runs.run import Run
from heads.stages import stage


def probe_blend(job: ProbeJob, *, notify: Notify = ignore) -> Run:
    """Probe with each part, and leave one run folder: that of their blend, which needs no other.

    A part whose run lies in its usual place, whole and of equal inputs, is not fitted again.

    Parameters
    ----------
    job
        What to probe, with its parts; without any all installed heads, but for those that cannot run.
    notify
        As `cli.jobs.probe_store.probe_store`.

    Raises
    ------
    UsageError
        If a part is no installed head or named twice, or the run's place cannot be used; before anything is fitted.
    EmbedError
        If a part that was named cannot run, or none can.
    """
    named = tuple(sorted(job.parts))
    require_parts(named)
    opened = open_probe(job, notify=notify)
    usual = opened.place(f"{BLEND}-of-{listed(named)}" if named else BLEND)
    folder = usual if job.out is None else Path(job.out)
    opened.require_folder(folder)
    try:
        with stage(BLEND):
            parts = _parts(named, opened, notify)
            return blend_into(folder, opened, parts, notify=notify)
    except KeyboardInterrupt:
        say_what_stays(folder, notify)
        raise


def require_parts(names: Sequence[str]) -> None:
    """Refuse parts that are no installed heads, or are named twice; raises UsageError."""
    installed = head_names()
    for name in names:
        if name not in installed:
            raise UsageError(
                f"`parts`: no head named {name!r}; installed: {', '.join(installed) or 'none'}"
                f"{did_you_mean(name, installed)}"
            )
        if list(names).count(name) > 1:
            raise UsageError(f"`parts` must be different heads; found {name!r} twice")


def blend_into(
    folder: Path, opened: OpenedProbe, parts: Mapping[str, Run | ProbeResult], *, notify: Notify = ignore
) -> Run:
    """Join parts and leave the run in `folder`, which has been checked; the finished one that lies there is kept."""
    decided = blend_decided_by([_decided_by(part) for part in parts.values()])
    found = kept_run(folder, opened, decided)
    if found is not None:
        notify(f"{BLEND}: kept, equal inputs made {existing_run(folder)}")
        return found
    result = blend(opened.view, list(parts.values()), opened.options)
    fitted = {name: part for name, part in parts.items() if isinstance(part, ProbeResult)}
    seconds = {name: sum(part.seconds.values()) for name, part in fitted.items()}
    return keep_result(folder, opened, replace(result, seconds={**seconds, **result.seconds}), notify=notify)


def _decided_by(part: Run | ProbeResult) -> Mapping[str, object]:
    decided: Mapping[str, object] = part.document["decided_by"] if isinstance(part, Run) else part.decided_by
    return decided


def _parts(named: Sequence[str], opened: OpenedProbe, notify: Notify) -> dict[str, Run | ProbeResult]:
    """Return each part, fitted or found; of heads that nobody named, those that can run."""
    names = named or head_names()
    parts: dict[str, Run | ProbeResult] = {}
    skipped: dict[str, Exception] = {}
    for number, name in enumerate(names, start=1):
        with stage(f"head {number} of {len(names)}: {name}"):
            try:
                parts[name] = _part(name, opened, notify)
            except (EmbedError, ImportError) as error:
                if named:
                    raise
                skipped[name] = error
                notify(f"{name}: left out of the blend: {error}")
    if not parts:
        raise next(iter(skipped.values()))
    return parts


def _part(name: str, opened: OpenedProbe, notify: Notify) -> Run | ProbeResult:
    options = opened.options_of(name)
    family = family_of(opened, options, notify)
    place = opened.place(name)
    found = finished_run(place, opened, options, family)
    if found is not None:
        notify(f"{name}: taken from {existing_run(place)}, which equal inputs made")
        return found
    return probe(opened.view, options, family=family)
