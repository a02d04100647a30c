"""An answer in plain words: what its numbers claim, and what they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedstore.lumbar.levels import CONDITIONS, LEVELS, TARGETS
from heads.lumbar.coded_answers import coded_answer

_PERCENT = 100
# Probabilities of calibrated heads are seldom known to more than a percent.
_ALMOST = 0.995


def answer_in_words(
    answer: Mapping[str, Any], *, classes: Sequence[str], positive: str | None, unit: str
) -> dict[str, Any]:
    """Return an answer as the page shows it.

    Parameters
    ----------
    answer
        As `cli.jobs.predict_inputs.AnswerBatch.units`.
    classes
        The run's classes, in their order.
    positive
        The class that one acts on, or None.
    unit
        What the answer is about, as `embedstore.task.Task.unit`.

    Returns
    -------
    dict
        ``notes``, ``targets`` (a list, with ``words``, ``set_words`` and the bars), ``lumbar`` where the targets are
        those of the competition, and ``codes``, their severities as a generative model prints them.
    """
    coverage = answer["conformal_coverage"]
    return {
        "stored": answer["image_id"] is not None,
        "images": answer["images"],
        "notes": notes_in_words(answer),
        "unlike": answer["unlike_training"],
        "targets": [
            {
                "name": name,
                "title": target_in_words(name),
                # What is promised of cases like those that were learned from is not promised of others.
                "words": ""
                if answer["unlike_training"]
                else probability_in_words(of, positive=positive, unit=unit),
                "set_words": "" if answer["unlike_training"] else set_in_words(of, coverage),
                "decision": of["decision"],
                "bars": [
                    {
                        "name": label,
                        "share": of["probabilities"][label],
                        "in_set": label in (of["conformal_set"] or ()),
                    }
                    for label in classes
                ]
                if of["probabilities"] is not None
                else [],
            }
            for name, of in answer["targets"].items()
        ],
        "lumbar": is_lumbar(answer["targets"]),
        "codes": coded_answer(answer)["response"] if set(TARGETS) <= set(answer["targets"]) else None,
        "run_id": answer["run_id"],
        "notice": answer["notice"],
    }


def is_lumbar(targets: Mapping[str, Any]) -> bool:
    """Say whether several targets, all of the RSNA lumbar competition, belong into a table of levels."""
    return len(targets) > 1 and set(targets) <= set(TARGETS)


def lumbar_table() -> dict[str, Any]:
    """Return rows (levels) and columns (conditions) of the table of a spine, with the name of each cell's target."""
    words = {
        "spinal_canal_stenosis": "Canal",
        "left_neural_foraminal_narrowing": "Foramen left",
        "right_neural_foraminal_narrowing": "Foramen right",
        "left_subarticular_stenosis": "Subarticular left",
        "right_subarticular_stenosis": "Subarticular right",
    }
    return {
        "columns": [words[condition] for condition in CONDITIONS],
        "rows": [
            {
                "level": level.upper().replace("_", "/"),
                "targets": [f"{condition}_{level}" for condition in CONDITIONS],
            }
            for level in LEVELS
        ],
    }


def target_in_words(name: str) -> str:
    """Return the name of a target as people write it.

    Examples
    --------
    >>> target_in_words("left_subarticular_stenosis_l5_s1"), target_in_words("pleural_effusion")
    ('Left subarticular stenosis L5/S1', 'pleural effusion')
    """
    words = name.replace("_", " ")
    if name not in TARGETS:
        return words
    level = next(level for level in LEVELS if name.endswith(f"_{level}"))
    condition = words[: -len(level) - 1]
    return f"{condition[0].upper()}{condition[1:]} {level.upper().replace('_', '/')}"


def probability_in_words(of: Mapping[str, Any], *, positive: str | None, unit: str) -> str:
    """Return what a probability claims.

    Examples
    --------
    >>> of = {"probabilities": {"normal": 0.8159, "abnormal": 0.1841}, "decision": "normal"}
    >>> probability_in_words(of, positive="abnormal", unit="study")
    'Of 100 studies with this answer, about 18 are abnormal.'
    """
    shares = of["probabilities"]
    if shares is None:
        return "No image that was sent speaks for this."
    # Of grades the one that was decided for is named; of two classes the one that one acts on.
    named = positive if positive in shares and len(shares) == 2 else of["decision"]
    share = shares[named]
    things = {"study": "studies", "image": "images"}.get(unit, "cases")
    if share > _ALMOST:
        return f"Of 100 {things} with this answer, nearly all are {named}."
    if share < 1 - _ALMOST:
        return f"Of 100 {things} with this answer, hardly any is {named}."
    return f"Of 100 {things} with this answer, about {round(share * _PERCENT)} are {named}."


def set_in_words(of: Mapping[str, Any], coverage: float) -> str:
    """Return what a conformal set says.

    Examples
    --------
    >>> set_in_words({"probabilities": {}, "conformal_set": ["normal", "abnormal"]}, 0.9)
    'At 90 % it stays open: normal or abnormal.'
    """
    held, level = of["conformal_set"], f"{round(coverage * _PERCENT)} %"
    if of["probabilities"] is None:
        return ""
    if held is None:
        return f"No set at {level}: a class had too few cases to promise one."
    if not held:
        return f"At {level} no class fits: it looks like none of the cases of either class."
    if len(held) == 1:
        return f"At {level} only {held[0]} remains: sets like this hold the truth in {level} of cases."
    return f"At {level} it stays open: {', '.join(held[:-1])} or {held[-1]}."


def notes_in_words(answer: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what must be known before the numbers are read: ``kind`` (``warning`` or ``plain``) and ``text``."""
    notes = []
    unlike = answer["unlike_training"]
    if unlike:
        notes.append(("warning", "Unlike the images that the run learned from: do not rely on this answer."))
    elif unlike is None:
        notes.append(
            (
                "plain",
                "The run keeps no vectors, so nothing says whether this is like what it learned from.",
            )
        )
    else:
        notes.append(("plain", "Looks like the images that the run learned from."))
    for column, kinds in answer.get("kinds_unseen", {}).items():
        notes.append(("warning", f"The run never saw {column} {', '.join(kinds)}."))
    for column, values in answer.get("metadata_unseen", {}).items():
        notes.append(
            ("warning", f"The run never saw {column} {', '.join(values)}; it counts as none of its values.")
        )
    if answer["learned_from"]:
        notes.append(("warning", "The run learned from this very case: its answer is no evidence."))
    if answer["partial"]:
        notes.append(("plain", "Answered from a part of the images that the case has."))
    if answer.get("level_unsure"):
        notes.append(("warning", "The names of the levels are unsure and may be one off."))
    return [{"kind": kind, "text": text} for kind, text in notes]
