"""Answers of a run as severity codes: what a generative model prints, behind which there are probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedstore.errors import UsageError
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.lumbar.severity_codes import write_response
from embedstore.view import MISSING


def coded_answer(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return an answer (`heads.predict_units`) as a line that `read_responses` takes: ``study_id`` and ``response``.

    A target without an image has no code.

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
    decided = [targets[name]["decision"] for name in TARGETS]
    unknown = next((name for name in decided if name is not None and name not in CLASSES), None)
    if unknown is not None:
        raise UsageError(f"severity codes need the classes {', '.join(CLASSES)}; found {unknown!r}")
    return {
        "study_id": str(answer["unit_id"]),
        "response": write_response(MISSING if name is None else CLASSES.index(name) for name in decided),
    }
