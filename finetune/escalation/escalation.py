"""The whole answer: decision, reasons, what fine-tuning may bring and take, and the line that would start it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.escalation.base_encoder import BaseEncoder
from finetune.escalation.cost import Cost, Plan, Rate, cost
from finetune.escalation.decide import Decision, Verdict, decide, has_signal, recommended_method
from finetune.escalation.evidence import RunEvidence, gather_evidence
from finetune.escalation.goal import Goal
from finetune.escalation.predicted_gain import PredictedGain, predicted_gain
from heads.runs.run import Run

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """How to fine-tune.

    Parameters
    ----------
    method, blocks
        As ``embed finetune`` takes them; None for all blocks.
    command
        The line that starts it.
    cost
        What it takes; None where the tower's shape is not known.
    unknown
        Why the cost is not known; empty where it is.
    """

    method: str
    blocks: int | None
    command: str
    cost: Cost | None
    unknown: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return self.__dict__ | {"cost": self.cost and self.cost.to_json()}


@dataclass(frozen=True, kw_only=True)
class Escalation:
    """What to do about a run that is to reach a goal.

    Parameters
    ----------
    verdict
        Decision and reasons.
    evidence
        What they rest on.
    gain
        What fine-tuning may bring; None where that is not known for the metric, or nothing is known to be learned.
    recommendation
        How to fine-tune; None where the encoder cannot be trained.
    """

    verdict: Verdict
    evidence: RunEvidence
    gain: PredictedGain | None
    recommendation: Recommendation | None

    @property
    def decision(self) -> Decision:
        """What to do."""
        return self.verdict.decision

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "decision": str(self.decision),
            "reasons": list(self.verdict.reasons),
            "evidence": self.evidence.to_json(),
            "predicted_gain": self.gain and self.gain.to_json(),
            "recommendation": self.recommendation and self.recommendation.to_json(),
        }


def escalate(
    run: Run,
    goal: Goal,
    others: Sequence[Run] = (),
    *,
    curve: Mapping[str, Any] | None = None,
    base: BaseEncoder,
    rate: Rate | None = None,
    stores: Sequence[str] = (),
) -> Escalation:
    """Say whether a run is worth fine-tuning its encoder, from what is there; nothing is trained.

    Parameters
    ----------
    run, goal, others, curve
        As `finetune.escalation.evidence.gather_evidence`.
    base
        The encoder that would be trained.
    rate
        How fast it embeds images; None where nobody measured it.
    stores
        The run's stores, as the command line would name them; by default those that the run names.

    Raises
    ------
    UsageError
        As `gather_evidence`.
    """
    evidence = gather_evidence(run, goal, others, curve=curve)
    gain = (
        predicted_gain(goal, evidence.value.value, evidence.labels.ceiling) if has_signal(evidence) else None
    )
    verdict = decide(evidence, gain, untrainable=base.untrainable)
    if base.untrainable:
        return Escalation(verdict=verdict, evidence=evidence, gain=gain, recommendation=None)
    method, blocks = recommended_method(evidence)
    named = list(stores) or [source["store"] for source in run.document["sources"]]
    shape = base.shape
    plan = Plan(
        method="lora" if method == "lora" else "unfreeze",
        blocks=blocks or (shape.num_hidden_layers if shape is not None else 1),
    )
    return Escalation(
        verdict=verdict,
        evidence=evidence,
        gain=gain,
        recommendation=Recommendation(
            method=method,
            blocks=blocks,
            command=_command(run, goal, base, method, blocks, named),
            cost=None if shape is None else cost(shape, plan, images=evidence.images_learned, rate=rate),
            unknown=base.unknown,
        ),
    )


def _command(
    run: Run, goal: Goal, base: BaseEncoder, method: str, blocks: int | None, stores: Sequence[str]
) -> str:
    words = ["embed", "finetune"]
    for store in stores:
        words += ["--store", store]
    words += ["--task", run.document["task"]["name"]]
    words += [] if goal.target is None or len(run.targets) == 1 else ["--target", goal.target]
    words += ["--encoder", base.place, "--method", method]
    words += [] if blocks is None else ["--blocks", str(blocks)]
    words += [
        "--out",
        f"encoders/{run.document['task']['name']}-{method}{'' if blocks is None else f'-{blocks}'}",
    ]
    return shlex.join(words)
