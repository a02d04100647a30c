"""An answer about a run, on the terminal."""

from __future__ import annotations

import click

from cli.wording import for_command_line
from finetune.escalation.cost import UNMEASURED, Cost
from finetune.escalation.decide import Decision
from finetune.escalation.escalation import Escalation, Recommendation
from heads.runs.answers import NOTICE


def print_answer(answer: Escalation) -> None:
    """Print the decision, its reasons, and what fine-tuning would take unless the goal is reached."""
    click.echo(f"{answer.evidence.goal}: {answer.decision}")
    first, *others = answer.verdict.reasons
    click.echo(f"\n{first}\n")
    for line in others:
        click.echo(f"  {line}")
    for line in answer.evidence.notes:
        click.echo(f"  note: {for_command_line(line)}")
    recommended = answer.recommendation
    if answer.decision is Decision.ENOUGH or recommended is None:
        return
    _print_recommendation(answer, recommended)


def _print_recommendation(answer: Escalation, recommended: Recommendation) -> None:
    how = "LoRA in all blocks" if recommended.blocks is None else f"the top {recommended.blocks} blocks"
    heading = "Fine-tuning" if answer.decision is Decision.FINE_TUNE else "If you fine-tune all the same"
    click.echo(f"\n{heading}, {how}:")
    if recommended.cost is None:
        click.echo(f"  hours, memory and disk: not known, {for_command_line(recommended.unknown)}")
    else:
        for line in cost_in_words(recommended.cost):
            click.echo(f"  {line}")
    if answer.gain is None:
        click.echo(f"  gain in {answer.evidence.goal.metric}: not known (docs/escalate.md)")
    else:
        low, middle, high = answer.gain.low, answer.gain.middle, answer.gain.high
        click.echo(
            f"  gain: {answer.evidence.goal.metric} better by {middle:.3f} [{low:.3f}, {high:.3f}] where it was "
            "simulated (docs/escalate.md)"
        )
    click.echo(f"\n  {recommended.command}\n")
    click.echo(NOTICE)


def cost_in_words(found: Cost) -> list[str]:
    """Return hours, memory and disk, a line each; what nobody measured is a formula."""
    rate = found.rate
    cached = f", {found.passes_cached:.1f} with --cache-views 1" if found.cache_bytes else ""
    lines = [
        f"{found.images:,} images x {found.epochs} epochs: {found.passes:.1f} forward passes for each image{cached}"
    ]
    hours = "" if found.hours is None else _hours(found.hours)
    if found.hours_cached is not None and found.cache_bytes:
        hours += f", {_hours(found.hours_cached)} with --cache-views 1"
    measured = (
        ""
        if rate is None
        else f"at {rate.images_per_s:.1f} images/s on {rate.device}, measured {rate.source}"
    )
    if rate is not None and rate.is_gpu:
        lines.append(f"GPU hours: {hours}, {measured}")
    else:
        lines.append(
            f"GPU hours: {UNMEASURED}; {found.formula}, with images/s of `embed doctor --encoder` on the GPU (--doctor)"
        )
        lines += [f"hours on this CPU: {hours}, {measured}"] if rate is not None else []
    lines += [
        f"memory: {_size(found.state_bytes)} for weights and {found.trained:,} trained parameters, and "
        f"{_size(found.picture_bytes)} for each picture of a micro-batch (counted, {UNMEASURED})",
        f"disk: {_size(found.encoder_bytes)} for the encoder, {_size(found.store_bytes)} for its store"
        + (f", {_size(found.cache_bytes)} for a cache of one view" if found.cache_bytes else ""),
    ]
    return lines


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{hours * 60:.1f} minutes" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"


def _size(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
