"""The rule: from the evidence to one of five answers, each reason with its numbers (explained in docs/escalate.md).

Questions are asked from the cheapest way out to the dearest: is it reached already, can these labels show it, does
another encoder do better, is there anything to learn, would more data do; only then does fine-tuning come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from finetune.escalation.evidence import OtherRun, RunEvidence
from finetune.escalation.predicted_gain import PredictedGain

# Two-sided, of another encoder's being better.
BETTER_P = 0.05
# One-sided, of no head's being better than chance, times the number of heads.
SIGNAL_P = 0.025
# More data are worth waiting for if so many times the patients would reach the goal.
MOST_TIMES_THE_DATA = 4
# Below this AUROC of the best head the vectors hold little of what is asked for, and the lower blocks must change, too:
# LoRA reaches all of them; above it the published recipe, which trains the top blocks, is cheaper.
LITTLE_AUROC = 0.75
TOP_BLOCKS = 2


class Decision(StrEnum):
    """What to do."""

    ENOUGH = "enough already"
    MORE_DATA = "more data first"
    ANOTHER_ENCODER = "another encoder first"
    FINE_TUNE = "fine-tune"
    UNLIKELY = "unlikely to help"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the rule says.

    Parameters
    ----------
    decision
        What to do.
    reasons
        Why, in numbers; the one that decided stands first.
    """

    decision: Decision
    reasons: tuple[str, ...]


def decide(evidence: RunEvidence, gain: PredictedGain | None, *, untrainable: str = "") -> Verdict:
    """Apply the rule.

    Parameters
    ----------
    evidence
        What the runs say.
    gain
        What fine-tuning may bring; None where that is not known for the metric.
    untrainable
        Why the encoder cannot be trained; empty where it can.
    """
    for question in (_reached, _calibration, _labels, _encoders, _signal, _data):
        found = question(evidence)
        if found is not None:
            return found
    if untrainable:
        return _verdict(
            Decision.ANOTHER_ENCODER,
            f"{untrainable}: probe an encoder whose weights can be trained, such as medsiglip-448",
            evidence,
        )
    return _fine_tuning(evidence, gain)


def has_signal(evidence: RunEvidence) -> bool:
    """Whether some head on these vectors, or on those of another encoder, is better than chance."""
    p_values = [other.chance_p for other in evidence.encoders]
    # Where another encoder sees something, this one may learn to.
    seen_elsewhere = bool(p_values) and min(p_values) * len(p_values) < SIGNAL_P
    return evidence.signal_p < SIGNAL_P or seen_elsewhere


def recommended_method(evidence: RunEvidence) -> tuple[str, int | None]:
    """Return the method, and the number of blocks (None for all)."""
    best = max([evidence.auroc.value, *(other.auroc.value for other in evidence.heads)])
    return ("lora", None) if best < LITTLE_AUROC else ("unfreeze", TOP_BLOCKS)


def _reached(evidence: RunEvidence) -> Verdict | None:
    goal, found = evidence.goal, evidence.value
    if goal.is_met(found.value):
        ends = found.low if goal.sign > 0 else found.high
        sure = (
            "and so does the whole interval"
            if goal.is_met(ends)
            else f"the interval does not: what can be promised is {goal.metric} {ends:.3f}"
            if np.isfinite(ends)
            else "no interval can be stated"
        )
        return _verdict(Decision.ENOUGH, f"{_estimate(goal.metric, found)} reaches {goal}, {sure}", evidence)
    heads = [other for other in evidence.heads if goal.is_met(other.value.value)]
    if heads:
        best = _best(heads, evidence)
        return _verdict(
            Decision.ENOUGH,
            f"another head on the same vectors reaches {goal}: {best.name}, "
            f"{_estimate(goal.metric, best.value)}; use {best.folder}",
            evidence,
        )
    return None


def _calibration(evidence: RunEvidence) -> Verdict | None:
    goal = evidence.goal
    if not goal.row.binned:
        return None
    return _verdict(
        Decision.UNLIKELY,
        f"{goal.metric} says whether probabilities mean what they say, which an encoder does not decide: "
        f"{_estimate(goal.metric, evidence.value)}; more patients to calibrate on would",
        evidence,
    )


def _labels(evidence: RunEvidence) -> Verdict | None:
    labels, goal = evidence.labels, evidence.goal
    if np.isnan(labels.ceiling) or goal.is_met(labels.ceiling):
        return None
    return _verdict(
        Decision.UNLIKELY,
        f"wrong labels stand in the way: where the head is surest it contradicts {labels.surest_errors:,} of "
        f"{labels.surest:,} labels, about as often as elsewhere ({labels.other_errors:,} of {labels.others:,}), so "
        f"{labels.wrong_share:.1%} of labels or more are wrong, with which an answer that is always right comes to "
        f"{goal.metric} {labels.ceiling:.3f}. Look at label_noise.parquet of the run first",
        evidence,
    )


def _encoders(evidence: RunEvidence) -> Verdict | None:
    goal = evidence.goal
    reaching = [other for other in evidence.encoders if goal.is_met(other.value.value)]
    if reaching:
        best = _best(reaching, evidence)
        return _verdict(
            Decision.ANOTHER_ENCODER,
            f"{best.name} reaches {goal}: {_estimate(goal.metric, best.value)}, {_difference(best)}",
            evidence,
        )
    better = [
        other
        for other in evidence.encoders
        if other.difference.estimate.value > 0
        and min(1.0, other.difference.p_value * len(evidence.encoders)) < BETTER_P
    ]
    if better:
        best = _best(better, evidence)
        return _verdict(
            Decision.ANOTHER_ENCODER,
            f"{best.name} is better: {_estimate(goal.metric, best.value)}, {_difference(best)}; start from "
            "it, and ask again of its run",
            evidence,
        )
    return None


def _signal(evidence: RunEvidence) -> Verdict | None:
    if has_signal(evidence):
        return None
    heads = f"no head of {1 + len(evidence.heads)}" if evidence.heads else "the head"
    verb = "is" if evidence.heads else "is not"
    return _verdict(
        Decision.UNLIKELY,
        f"{heads} {verb} shown to be better than chance: {_estimate('AUROC', evidence.auroc)} "
        f"(p = {evidence.signal_p:.3f}, {SIGNAL_P} asked for). Either the labels have nothing to do with the images, "
        f"or {evidence.patients_evaluated:,} patients are too few to show it, or these vectors lack it altogether; a "
        f"probe of another encoder tells{'' if evidence.encoder == 'hog' else ', such as hog, which needs no weights'}",
        evidence,
    )


def _data(evidence: RunEvidence) -> Verdict | None:
    goal = evidence.goal
    for beyond in evidence.beyond:
        if beyond.times <= MOST_TIMES_THE_DATA and goal.is_met(beyond.reached[0]):
            return _verdict(
                Decision.MORE_DATA,
                f"the learning curve still climbs: {beyond.times} x the patients ({beyond.patients:,}) would bring "
                f"{goal.metric} {beyond.reached[0]:.3f} [{beyond.reached[1]:.3f}, {beyond.reached[2]:.3f}], "
                f"{beyond.gain.value:+.3f}, if the law holds that far",
                evidence,
            )
    return None


def _fine_tuning(evidence: RunEvidence, gain: PredictedGain | None) -> Verdict:
    goal, missing = evidence.goal, abs(evidence.goal.number - evidence.value.value)
    if gain is None:
        return _verdict(
            Decision.FINE_TUNE,
            f"{goal.metric} lacks {missing:.3f}, and nothing cheaper closes that; what fine-tuning brings in "
            f"{goal.metric} was not simulated",
            evidence,
        )
    low, middle, high = gain.reached
    words = (
        f"fine-tuning closed {{}} of what a probe lacked in simulated tasks, which here is {goal.metric} "
        f"{middle:.3f} [{low:.3f}, {high:.3f}]"
    )
    shares = (
        f"{gain.low / gain.headroom:.0%} to {gain.high / gain.headroom:.0%}" if gain.headroom else "nothing"
    )
    if not goal.is_met(high):
        return _verdict(
            Decision.UNLIKELY,
            f"{goal.metric} lacks {missing:.3f}: {words.format(shares)}, and not {goal}",
            evidence,
        )
    return _verdict(
        Decision.FINE_TUNE,
        f"{goal.metric} lacks {missing:.3f}, and nothing cheaper closes that: {words.format(shares)}",
        evidence,
    )


def _verdict(decision: Decision, first: str, evidence: RunEvidence) -> Verdict:
    return Verdict(decision=decision, reasons=(first, *_further(evidence)))


def _further(evidence: RunEvidence) -> list[str]:
    """Return what else the evidence says, in numbers."""
    goal, labels = evidence.goal, evidence.labels
    lines = [
        f"{evidence.encoder}, {evidence.head}: {_estimate(goal.metric, evidence.value)}; {evidence.met_share:.1%} of "
        f"the draws of {evidence.patients_evaluated:,} patients reach {goal}"
    ]
    lines += [
        f"{other.name}: {_estimate(goal.metric, other.value)}, {_difference(other)}"
        for other in evidence.others
    ]
    if evidence.no_curve:
        lines.append(f"more data: not known, {evidence.no_curve} (--learning-curve makes one)")
    lines += [
        f"more data: {beyond.times} x the patients would bring {goal.metric} {beyond.reached[0]:.3f} "
        f"[{beyond.reached[1]:.3f}, {beyond.reached[2]:.3f}]"
        for beyond in evidence.beyond
    ]
    lines.append(
        f"labels: {labels.doubtful:,} of {labels.labelled:,} are doubtful; of the surest quarter the head contradicts "
        f"{labels.surest_errors:,} of {labels.surest:,}, "
        + (
            f"so {labels.wrong_share:.1%} or more are wrong: {goal.metric} {labels.ceiling:.3f} at most"
            if labels.saturated
            else "which sets no ceiling"
        )
    )
    if "ece" in evidence.calibration:
        slope = evidence.calibration.get("calibration_slope")
        lines.append(
            f"calibration: {_estimate('ECE', evidence.calibration['ece'])}"
            + ("" if slope is None else f", {_estimate('slope', slope)}")
        )
    return lines


def _best(others: Sequence[OtherRun], evidence: RunEvidence) -> OtherRun:
    return max(others, key=lambda other: evidence.goal.sign * other.value.value)


def _difference(other: OtherRun) -> str:
    """Return by how much a run is better (+) or worse (-)."""
    found = other.difference.estimate
    ends = "[no interval]" if np.isnan(found.low) else f"[{found.low:+.3f}, {found.high:+.3f}]"
    word = "the same" if found.value == 0 else "better" if found.value > 0 else "worse"
    return f"{word} by {found.value:+.3f} {ends}" if found.value else f"{word} {ends}"


def _estimate(name: str, found: object) -> str:
    value, low, high = (getattr(found, end) for end in ("value", "low", "high"))
    if np.isnan(low):
        return f"{name} {value:.3f} [no interval]"
    return f"{name} {value:.3f} [{low:.3f}, {high:.3f}]"
