"""What ``embed extract`` prints at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli.options import plural, print_json
from cli.printing.next_command import command_on
from cli.project import shown
from embedstore.errors import words_of_note
from embedstore.extraction.progress import ExtractSummary
from embedstore.pipeline.chunk_work import Stopwatch


def print_summary(
    summary: ExtractSummary,
    store: Path,
    *,
    data: Mapping[str, Any],
    allowed: float,
    verbose: bool,
    as_json: bool,
) -> None:
    """Print how the store stands; say on stderr if a larger share of images failed than is allowed.

    `verbose` adds where the time went; JSON always says it.
    """
    if as_json:
        print_json(_as_json(summary, store) | dict(data))
        return
    _print(summary, store)
    if verbose and summary.computed:
        _print_times(summary)
    if summary.failed_share > allowed:
        click.echo(
            f"{sum(summary.failed.values()):,} images failed ({summary.failed_share:.1%}), more than the "
            f"{allowed:.1%} allowed; --retry-failed tries them again",
            err=True,
        )


def _print(summary: ExtractSummary, store: Path) -> None:
    click.echo(f"{shown(store)}: {summary.valid:,} of {plural(summary.images, 'image')} have a vector")
    for reason, count in summary.failed.items():
        click.echo(f"  failed, {reason}: {count:,}")
    if summary.failed:
        click.echo(f"  which they are: {command_on(store, 'info', '--failures')}")
    for code, count in summary.notes.items():
        click.echo(f"  note, {code}: {plural(count, 'image')}: {words_of_note(code)}")
    if summary.computed:
        speed = summary.computed / summary.seconds
        click.echo(f"  {plural(summary.computed, 'image')} in {summary.seconds:.1f} s, {speed:.1f} images/s")
    elif not summary.pending:
        click.echo("  nothing to do")
    if summary.pending:
        click.echo(f"  {plural(summary.pending, 'image')} left; run the same command to continue")


def _print_times(summary: ExtractSummary) -> None:
    watch = summary.stopwatch
    click.echo(
        f"  bound by the {watch.bound()} (waiting for pixels {watch.decode_s:.1f} s, encoding {watch.encode_s:.1f} s, "
        f"waiting for the disk {watch.write_s:.1f} s)"
    )
    click.echo(f"  {_device_line(watch)}")


def _device_line(watch: Stopwatch) -> str:
    idle = f"device idle {watch.idle_share or 0:.1%} of {watch.wall_s:.1f} s"
    speed = watch.tflops_per_s
    # Said of GPUs only: it is what their makers advertise and what a run is compared with.
    return f"{idle}, {speed:.1f} TFLOP/s while busy" if watch.on_gpu and speed is not None else idle


def _as_json(summary: ExtractSummary, store: Path) -> dict[str, object]:
    watch = summary.stopwatch
    idle, tflops = watch.idle_share, watch.tflops_per_s
    return {
        "store": str(store),
        "images": summary.images,
        "valid": summary.valid,
        "pending": summary.pending,
        "failed": dict(summary.failed),
        "notes": dict(summary.notes),
        "computed": summary.computed,
        "seconds": round(summary.seconds, 3),
        "images_per_s": round(summary.computed / summary.seconds, 2) if summary.computed else None,
        "bound_by": watch.bound() if summary.computed else None,
        "device_idle_share": None if idle is None else round(idle, 4),
        # Absent for an encoder whose operations nobody has counted.
        # To digits, not decimals: a small encoder on a busy machine does less than 1e-4.
        **({} if tflops is None else {"tflops_per_s": float(f"{tflops:.4g}")}),
        "interrupted": summary.interrupted,
        "revised": dict(summary.revised),
    }
