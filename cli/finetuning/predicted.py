"""What ``embed escalate`` had predicted of a fine-tuning, beside what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.errors import EmbedError
from finetune.escalation.goal import Goal, parse_goal
from heads.comparing.comparison_table import ComparisonTable
from heads.runs.run_files import ESCALATION_FILE, read_document
from heads.statistics.bootstrap import Difference


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """An answer of ``embed escalate``, and what was obtained in its metric.

    Parameters
    ----------
    run
        The run that was asked about.
    goal
        What it was to reach.
    decision
        What the answer was.
    gain
        Lowest tenth, median and highest tenth of what fine-tuning was to bring, 0 or more; None where the answer did
        not know it.
    hours
        Hours that it reckoned with, on the device of its `measured` rate; None where no rate was measured.
    obtained
        The paired difference of the probes, after less before; None where the comparison lacks the metric.
    """

    run: Path
    goal: Goal
    decision: str
    gain: tuple[float, float, float] | None
    hours: float | None
    obtained: Difference | None

    @property
    def obtained_gain(self) -> tuple[float, float, float] | None:
        """Value, lower and upper end of the gain that was obtained; more is better, whatever the metric."""
        if self.obtained is None:
            return None
        found, sign = self.obtained.estimate, self.goal.sign
        low, high = sorted((sign * found.low, sign * found.high))
        return sign * found.value, low, high

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "run": str(self.run),
            "goal": str(self.goal),
            "decision": self.decision,
            "predicted_gain": self.gain and list(self.gain),
            "obtained_gain": self.obtained_gain and list(self.obtained_gain),
            "predicted_hours": self.hours,
        }


def predicted_of(table: ComparisonTable, identity: str, places: Sequence[Path]) -> Predicted | None:
    """Return the newest answer about a run of the same task on the same vectors; None if nobody asked.

    Parameters
    ----------
    table
        The probes before (the baseline) and after.
    identity
        SHA-256 of the identity of the vectors before.
    places
        Folders of runs.
    """
    files = sorted(
        {file for place in places for file in place.glob(f"*/{ESCALATION_FILE}")},
        key=lambda file: (file.stat().st_mtime_ns, file),
        reverse=True,
    )
    return next((found for file in files if (found := _read(file, table, identity)) is not None), None)


def _read(file: Path, table: ComparisonTable, identity: str) -> Predicted | None:
    try:
        run = read_document(file.parent)
        said = json.loads(file.read_bytes())
        if run["task"]["name"] != table.task or run["identity_sha256"] != identity:
            return None
        goal, gain = parse_goal(said["evidence"]["goal"]), said["predicted_gain"]
        cost = (said["recommendation"] or {}).get("cost") or {}
    except (EmbedError, OSError, ValueError, KeyError, TypeError):
        return None  # of another version, or edited: no answer to hold against anything
    after = next(entry for place, entry in enumerate(table.runs) if place != table.baseline)
    whole = goal.target is None or table.targets == (goal.target,)
    return Predicted(
        run=file.parent,
        goal=goal,
        decision=str(said["decision"]),
        gain=None if gain is None else (gain["low"], gain["middle"], gain["high"]),
        hours=cost.get("hours"),
        obtained=after.differences.get(goal.metric) if whole else None,
    )
