"""What a run, and those beside it, say of a goal; nothing is fitted here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.errors import UsageError, did_you_mean
from finetune.escalation.goal import Goal
from finetune.escalation.label_ceiling import LabelEvidence, label_evidence
from heads.comparing.compared_names import compared_names, head_name
from heads.comparing.matched_units import match_units
from heads.runs.run import Run
from heads.runs.run_warnings import TRAINED
from heads.statistics.bootstrap import Difference, Draws, Estimate, draw_patients, paired_difference
from heads.statistics.evaluation import Drawn, Scored, draw_metrics
from heads.statistics.metrics import METRICS

# Of fewer draws no small p-value can be stated.
LEAST_DRAWS = 1000
# AUROC of a head that knows nothing.
CHANCE = 0.5


@dataclass(frozen=True, kw_only=True)
class OtherRun:
    """Another run of the task, on the units that it has in common with the one that is judged.

    Parameters
    ----------
    name, encoder, head, folder
        What it is called, and where it lies.
    same_vectors
        Whether it is another head on the same vectors.
    value, own
        The goal's metric of it and of the run that is judged.
    difference
        Better by how much: positive where it is better, paired on the same draws of patients.
    auroc, chance_p
        Its AUROC, and the one-sided p-value of its being no better than chance.
    """

    name: str
    encoder: str
    head: str
    folder: str
    same_vectors: bool
    value: Estimate
    own: float
    difference: Difference
    auroc: Estimate
    chance_p: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return self.__dict__ | {
            "value": self.value.to_json(),
            "difference": self.difference.estimate.to_json() | {"p_value": self.difference.p_value},
            "auroc": self.auroc.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class Beyond:
    """What more patients would bring, by the run's learning curve.

    Parameters
    ----------
    times, patients
        As many times the patients of the curve's last point, and how many that is.
    gain
        How much better the goal's metric would be.
    reached
        Value, lower and upper end of the run's metric with this gain.
    """

    times: int
    patients: int
    gain: Estimate
    reached: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return self.__dict__ | {"gain": self.gain.to_json(), "reached": list(self.reached)}


@dataclass(frozen=True, kw_only=True)
class RunEvidence:
    """All that the rule looks at.

    Parameters
    ----------
    goal
        What is to be reached.
    run, run_id, task, encoder, head
        The run that is judged.
    value, met_share
        The goal's metric with its interval, and the share of the draws of patients in which it reaches the goal.
    auroc, chance_p
        Its AUROC, and the one-sided p-value of its being no better than chance.
    patients_learned, patients_evaluated, images_learned
        How many.
    others
        Other runs of the task: heads on the same vectors, and other encoders.
    points
        The learning curve: patients and the goal's metric; empty without one.
    beyond
        Its extrapolation.
    no_curve
        Why there is no extrapolation; empty where there is one.
    labels
        What out-of-fold answers say of the labels.
    calibration
        ECE, calibration slope, and log loss before and after calibration, those of them that the run has.
    notes
        What must be known: runs that could not be compared, and what was left out of a comparison.
    """

    goal: Goal
    run: str
    run_id: str
    task: str
    encoder: str
    head: str
    value: Estimate
    met_share: float
    auroc: Estimate
    chance_p: float
    patients_learned: int
    patients_evaluated: int
    images_learned: int
    others: tuple[OtherRun, ...]
    points: tuple[tuple[int, Estimate], ...]
    beyond: tuple[Beyond, ...]
    no_curve: str
    labels: LabelEvidence
    calibration: Mapping[str, Estimate]
    notes: tuple[str, ...]

    @property
    def heads(self) -> tuple[OtherRun, ...]:
        """Other heads on the same vectors."""
        return tuple(other for other in self.others if other.same_vectors)

    @property
    def encoders(self) -> tuple[OtherRun, ...]:
        """Runs of other encoders."""
        return tuple(other for other in self.others if not other.same_vectors)

    @property
    def signal_p(self) -> float:
        """Smallest p-value of any head on these vectors being no better than chance, times the number of heads."""
        found = [self.chance_p, *(other.chance_p for other in self.heads)]
        return min(1.0, min(found) * len(found))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return self.__dict__ | {
            "goal": str(self.goal),
            "value": self.value.to_json(),
            "auroc": self.auroc.to_json(),
            "signal_p": self.signal_p,
            "others": [other.to_json() for other in self.others],
            "points": [{"patients": patients, **found.to_json()} for patients, found in self.points],
            "beyond": [further.to_json() for further in self.beyond],
            "labels": self.labels.to_json(),
            "calibration": {name: found.to_json() for name, found in self.calibration.items()},
            "notes": list(self.notes),
        }


def gather_evidence(
    run: Run, goal: Goal, others: Sequence[Run] = (), *, curve: Mapping[str, Any] | None = None
) -> RunEvidence:
    """Read what a run, and others of its task, say of a goal.

    Parameters
    ----------
    run
        The run that is judged.
    goal
        What is to be reached.
    others
        Other runs of its task; those that cannot be compared are noted.
    curve
        A learning curve as `heads.protocol.learning_curve.LearningCurve.to_json` gives it; the run's own by default.

    Raises
    ------
    UsageError
        If the run has no such target, or its task no such metric, or it was evaluated on patients whom its encoder has
        seen.
    """
    if _is_of_trained_patients(run):
        raise UsageError(
            f"run {run.folder} was evaluated on patients on whom its encoder was fine-tuned, so it says nothing of new "
            "ones; probe its store with `trained_patients=leave-out`"
        )
    column = _column(run, goal)
    part = run.evaluated
    drawn = _draws_of(run, part.y[:, column], part.probabilities[:, column], _patients_drawn(run), goal)
    value = drawn[goal.metric].estimate()
    compared, notes = _compared(run, goal, others)
    own_curve = run.document.get("learning_curve") if curve is None else curve
    points, beyond, missing = _curve(run, goal, own_curve, value, given=curve is not None)
    document, out = run.document, run.out_of_fold
    measured = document.get("by_target", {}).get(goal.target, document["metrics"])
    before = {} if measured is not document["metrics"] else document.get("before_calibration", {})
    calibration = {
        name: _estimate(found)
        for name, found in (
            ("ece", measured.get("ece")),
            ("calibration_slope", measured.get("calibration_slope")),
            ("log_loss", measured.get("log_loss")),
            ("log_loss_before_calibration", before.get("log_loss")),
        )
        if found and found.get("value") is not None
    }
    return RunEvidence(
        goal=goal,
        run=str(run.folder),
        run_id=run.run_id,
        task=document["task"]["name"],
        encoder=run.identity.encoder,
        head=head_name(run),
        value=value,
        met_share=float(np.mean([goal.is_met(each) for each in drawn[goal.metric].drawn])),
        auroc=drawn["auroc"].estimate(),
        chance_p=_chance_p(drawn["auroc"]),
        patients_learned=int(document["counts"]["patients_fitted"]),
        patients_evaluated=int(document["counts"]["patients_evaluated"]),
        images_learned=len(run.learned_images),
        others=compared,
        points=points,
        beyond=beyond,
        no_curve=missing,
        labels=label_evidence(
            out.y[:, column],
            out.probabilities[:, column],
            run.classes,
            evaluated=part.y[:, column],
            metric=goal.metric,
        ),
        calibration=calibration,
        notes=notes,
    )


def _is_of_trained_patients(run: Run) -> bool:
    return any(entry["kind"] == TRAINED for entry in run.document["warnings"])


def _column(run: Run, goal: Goal) -> list[int]:
    """Return the columns of the targets that count."""
    if goal.target is not None and goal.target not in run.targets:
        raise UsageError(
            f"`goal` {str(goal)!r}: the run has no target {goal.target!r}; it has {', '.join(run.targets)}"
            f"{did_you_mean(goal.target, run.targets)}"
        )
    held = run.document["metrics"]
    if goal.metric not in held:
        known = ", ".join(name for name in METRICS if name in held)
        raise UsageError(f"`goal` {str(goal)!r}: the run has no {goal.metric}; it has {known}")
    return [*range(len(run.targets))] if goal.target is None else [run.targets.index(goal.target)]


def _patients_drawn(run: Run) -> Draws:
    settings = run.document["settings"]
    draws = max(int(settings["draws"]), LEAST_DRAWS)
    return draw_patients(run.evaluated.patients, draws=draws, seed=settings["seed"])


def _draws_of(run: Run, y: Any, probabilities: Any, draws: Draws, goal: Goal) -> dict[str, Drawn]:
    task = run.document["task"]
    weights = task.get("class_weights")
    scored = Scored(
        y, probabilities, draws, None if weights is None else tuple(weights), bool(task.get("ordered"))
    )
    return draw_metrics(scored, tuple(dict.fromkeys((goal.metric, "auroc"))))


def _chance_p(auroc: Drawn) -> float:
    """Return the one-sided p-value of an AUROC's being chance's, each draw counted, and one more."""
    defined = auroc.drawn[np.isfinite(auroc.drawn)]
    return float((1 + np.sum(defined <= CHANCE)) / (1 + len(defined)))


def _compared(run: Run, goal: Goal, others: Sequence[Run]) -> tuple[tuple[OtherRun, ...], tuple[str, ...]]:
    found, notes, known = [], [], {run.run_id}
    names = compared_names([run, *others])
    for name, other in zip(names[1:], others, strict=True):
        if other.run_id in known:
            continue  # the same run, kept twice
        known.add(other.run_id)
        if _is_of_trained_patients(other):
            notes.append(f"{other.folder} is left out: its encoder was fine-tuned on patients of its run")
            continue
        try:
            matched = match_units([run, other], [names[0], name])
        except UsageError as error:
            notes.append(f"{other.folder} is left out: {error}")
            continue
        if goal.target is not None and goal.target not in matched.targets:
            notes.append(f"{other.folder} is left out: it has no target {goal.target!r}")
            continue
        notes += matched.notes
        columns = (
            [*range(len(matched.targets))] if goal.target is None else [matched.targets.index(goal.target)]
        )
        settings = run.document["settings"]
        draws = draw_patients(
            matched.patients, draws=max(int(settings["draws"]), LEAST_DRAWS), seed=settings["seed"]
        )
        mine, theirs = (
            _draws_of(run, matched.y[:, columns], said[:, columns], draws, goal)
            for said in matched.probabilities
        )
        found.append(_other(name, run, other, goal, mine, theirs))
    return tuple(found), tuple(dict.fromkeys(notes))


def _other(
    name: str, run: Run, other: Run, goal: Goal, mine: Mapping[str, Drawn], theirs: Mapping[str, Drawn]
) -> OtherRun:
    pair = theirs[goal.metric], mine[goal.metric]
    return OtherRun(
        name=name,
        encoder=other.identity.encoder,
        head=head_name(other),
        folder=str(other.folder),
        same_vectors=other.identity == run.identity,
        value=pair[0].estimate(),
        own=pair[1].value,
        difference=paired_difference(
            (goal.sign * pair[0].value, goal.sign * pair[1].value),
            (goal.sign * pair[0].drawn, goal.sign * pair[1].drawn),
            n=pair[0].n,
        ),
        auroc=theirs["auroc"].estimate(),
        chance_p=_chance_p(theirs["auroc"]),
    )


def _curve(
    run: Run, goal: Goal, curve: Mapping[str, Any] | None, value: Estimate, *, given: bool
) -> tuple[tuple[tuple[int, Estimate], ...], tuple[Beyond, ...], str]:
    """Return the points and the extrapolation in the goal's metric, or why there is none."""
    if curve is None:
        return (), (), "the run has no learning curve"
    if goal.target is not None and len(run.targets) > 1 and not given:
        return (), (), f"the run's learning curve is of the mean over {len(run.targets)} targets"
    points = tuple(
        (int(point["patients"]), _estimate(point["metrics"][goal.metric]))
        for point in curve["points"]
        if goal.metric in point["metrics"]
    )
    if not points:
        held = ", ".join(dict.fromkeys(name for point in curve["points"] for name in point["metrics"]))
        return (), (), f"the learning curve has no {goal.metric}" + (f", only {held}" if held else "")
    beyond = tuple(_beyond(goal, value, entry) for entry in _extrapolated(curve, goal))
    if beyond:
        return points, beyond, ""
    return points, (), f"the learning curve has {len(points)} sizes, of which no law can be extrapolated"


def _extrapolated(curve: Mapping[str, Any], goal: Goal) -> Iterator[Mapping[str, Any]]:
    for entry in curve.get("extrapolated", ()):
        if goal.metric in entry["gains"]:
            yield entry


def _beyond(goal: Goal, value: Estimate, entry: Mapping[str, Any]) -> Beyond:
    gain = _estimate(entry["gains"][goal.metric])
    # Draws that all agree have no interval.
    ends = (gain.value, gain.value) if np.isnan(gain.low) else (gain.low, gain.high)
    low, high = sorted(goal.better_by(value.value, end) for end in ends)
    return Beyond(
        times=entry["times"],
        patients=entry["patients"],
        gain=gain,
        # Of the interval of a gain, not of the run's value, which is who was evaluated.
        reached=(goal.better_by(value.value, gain.value), low, high),
    )


def _estimate(found: Mapping[str, Any]) -> Estimate:
    """Return an estimate of ``run.json``; what is null there is NaN."""
    value, low, high = (np.nan if found.get(key) is None else found[key] for key in ("value", "low", "high"))
    return Estimate(float(value), float(low), float(high), int(found["n"]))
