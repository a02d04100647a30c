"""Answers of a run as severity codes: what a generative model prints, behind which there are probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedstore.errors import UsageError
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.lumbar.severity_codes import write_response


def coded_answer(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return an answer (`heads.predict_units`) as a line that `read_responses` takes: ``study_id`` and ``response``.

    A target without an image has the class that is most common where the answer is meant for.

    Raises
    ------
    UsageError
        If it is not of the competition's 25 targets and three classes.
    """
    targets: Mapping[str, Any] = answer["targets"]
    missing = [target for target in TARGETS if target not in targets]
    if missing:
        raise UsageError(
            f"severity codes need a run of the competition's {len(TARGETS)} targets; found {len(targets)}, and no "
            f"{missing[0]!r}"
        )
    decided = [_decided(targets[name]) for name in TARGETS]
    unknown = next((name for name in decided if name not in CLASSES), None)
    if unknown is not None:
        raise UsageError(f"severity codes need the classes {', '.join(CLASSES)}; found {unknown!r}")
    return {
        "study_id": str(answer["unit_id"]),
        "response": write_response([CLASSES.index(name) for name in decided]),
    }


def _decided(answer: Mapping[str, Any]) -> str:
    """Return the decision, or without an image the commonest class."""
    shares: Mapping[str, float] = answer["prevalence"]["assumed"]
    decision = answer["decision"]
    return str(decision) if decision is not None else max(shares, key=lambda name: shares[name])
