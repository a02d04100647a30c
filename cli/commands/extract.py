"""``embed extract``: phase one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click

from cli.dataset_options import dataset_options, reader_options
from cli.exit_codes import DONE, FAILED, IMAGES_FAILED
from cli.options import (
    ProjectCommand,
    json_option,
    plural,
    print_facts,
    print_json,
    project_of,
    require,
    store_option,
)
from cli.printing.dry_run import show_dry_run
from cli.printing.progress import shown_progress
from cli.project import shown
from embedstore.datasets.base import dataset_reader
from embedstore.encoders.registry import image_encoder
from embedstore.extraction.extract import ExtractOptions, ExtractSummary, Observer, extract, retry_failed
from embedstore.extraction.on_devices import device_names, extract_on_devices, retry_failed_on_devices
from embedstore.extraction.shard import parse_shard
from embedstore.pipeline.chunk_work import Stopwatch
from embedstore.store.documents import read_store_document


@click.command(name="extract", cls=ProjectCommand)
@dataset_options
@store_option
@click.option("--encoder", default="hog", show_default=True, help="Encoder.")
@click.option("--preprocess", help="Preset: pad, eval or hf.  [default: the encoder's own]")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda, cuda:1, ...; several with commas (one process each), or all.",
)
@click.option(
    "--dtype",
    default="auto",
    show_default=True,
    help="Arithmetic of the encoder; auto is the store's own where there is one.",
)
@click.option(
    "--revision", help="Branch, tag or commit of a hub id.  [default: what the cache has, else main]"
)
@click.option(
    "--encoder-pooling", help="How patch tokens become one vector: map or mean.  [default: the encoder's]"
)
@click.option(
    "--execution",
    type=click.Choice(["eager", "compile", "graph"]),
    help="How the encoder's passes run.  [default: the device's]",
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images per forward pass."
)
@click.option(
    "--workers", type=click.IntRange(1), help="Decoding processes.  [default: one per core, at most 16]"
)
@click.option(
    "--chunk-rows",
    type=click.IntRange(1),
    help="Rows of a chunk in new parts.  [default: 16 MiB of its largest array, at most 256]",
)
@click.option(
    "--store-dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Number format of new parts.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="This machine, or every node of a Ray cluster.",
)
@click.option(
    "--ray-address", default="local", show_default=True, help="Ray cluster: local, auto or HOST:PORT."
)
@click.option("--limit", type=click.IntRange(1), help="Only the first N images of the data set.")
@click.option(
    "--shard", metavar="I/N", help="Only this share of the chunks, while other processes do others."
)
@click.option("--retry-failed", "retry", is_flag=True, help="Also try images again that failed before.")
@click.option(
    "--max-failed",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Share of failed images up to which the exit code stays 0.",
)
@click.option(
    "--dry-run", is_flag=True, help="Only say what would be read and refused, and what it would cost."
)
@click.option("--strict", is_flag=True, help="Exit code 3 if any image failed.")
@json_option
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Turn every image of a data set into a vector, once; run it again to continue or to add images.

    \b
    Example:
      embed extract --dataset mura --root MURA-v1.1 --store mura.store --encoder hog
    """
    return _extract(project_of(context).settings, **given)


def _extract(
    settings: Mapping[str, Any],
    *,
    dataset: str | None,
    root: Path | None,
    store: Path | None,
    encoder: str,
    preprocess: str | None,
    device: str,
    dtype: str,
    revision: str | None,
    encoder_pooling: str | None,
    execution: str | None,
    batch_size: int,
    workers: int | None,
    chunk_rows: int | None,
    store_dtype: str,
    limit: int | None,
    engine: str,
    ray_address: str,
    shard: str | None,
    retry: bool,
    max_failed: float,
    dry_run: bool,
    strict: bool,
    as_json: bool,
    **reader: Any,
) -> int:
    target = Path(require(store, "--store"))
    collection = dataset_reader(
        require(dataset, "--dataset"), reader_options(reader, settings.get("options", {}))
    ).read(Path(require(root, "--root")))
    if not as_json:
        print_facts(collection.summary)
    options = ExtractOptions(
        chunk_rows=chunk_rows,
        store_dtype=store_dtype,
        batch_size=batch_size,
        workers=workers or min(os.cpu_count() or 1, 16),
        limit=limit,
        shard=parse_shard(shard) if shard else None,
    )
    build = partial(
        image_encoder,
        encoder,
        preset=preprocess,
        dtype=_dtype_of(target, dtype),
        revision=revision,
        pooling=encoder_pooling,
        execution=execution,
    )
    devices = device_names(device)
    if dry_run:
        show_dry_run(collection, target, build(device=devices[0]), options, as_json=as_json)
        return DONE
    with shown_progress() as progress, _stop_on_signal() as stopping:
        observer = Observer(say=lambda line: click.echo(line, err=True), progress=progress, stopping=stopping)
        if engine == "ray":
            # Here, so that the other engine pays nothing for it.
            from embedstore.extraction.on_cluster import extract_on_cluster, retry_failed_on_cluster

            on_cluster = retry_failed_on_cluster if retry else extract_on_cluster
            summary = on_cluster(
                collection,
                target,
                build,
                address=ray_address,
                device=device,
                options=options,
                observer=observer,
            )
        elif len(devices) > 1:
            on_devices = retry_failed_on_devices if retry else extract_on_devices
            summary = on_devices(collection, target, build, devices, options=options, observer=observer)
        else:
            alone = retry_failed if retry else extract
            summary = alone(collection, target, build(device=devices[0]), options=options, observer=observer)
    allowed = 0.0 if strict else max_failed
    too_many = summary.failed_share > allowed
    if as_json:
        print_json(_as_json(summary, target))
    else:
        _print(summary, target)
        if too_many:
            click.echo(
                f"{sum(summary.failed.values()):,} images failed ({summary.failed_share:.1%}), more than the "
                f"{allowed:.1%} allowed; `embed info` names them, --retry-failed tries them again",
                err=True,
            )
    if summary.interrupted:
        return FAILED
    return IMAGES_FAILED if too_many else DONE


def _dtype_of(store: Path, asked: str) -> str:
    """Return what ``auto`` means: the store's arithmetic, whatever this machine would choose."""
    if asked == "auto" and (store / "store.json").exists():
        return read_store_document(store)[0].compute_dtype
    return asked


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request to stop; the second acts at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del frame
        asked = True
        signal.signal(number, before[number])
        click.echo(
            "\nstopping: the chunk at hand is abandoned, finished ones stay (again to stop at once)", err=True
        )

    before: dict[int, Any] = {
        number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(summary: ExtractSummary, store: Path) -> None:
    click.echo(f"{shown(store)}: {summary.valid:,} of {plural(summary.images, 'image')} have a vector")
    for reason, count in summary.failed.items():
        click.echo(f"  failed, {reason}: {count:,}")
    if summary.computed:
        speed = summary.computed / summary.seconds
        watch = summary.stopwatch
        click.echo(
            f"  {plural(summary.computed, 'image')} in {summary.seconds:.1f} s, {speed:.1f} images/s, bound by the "
            f"{watch.bound()} (waiting for pixels {watch.decode_s:.1f} s, encoding {watch.encode_s:.1f} s, "
            f"waiting for the disk {watch.write_s:.1f} s)"
        )
        click.echo(f"  {_device_line(watch)}")
    elif not summary.pending:
        click.echo("  nothing to do")
    if summary.pending:
        click.echo(f"  {plural(summary.pending, 'image')} left; run the same command to continue")


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
        "computed": summary.computed,
        "seconds": round(summary.seconds, 3),
        "images_per_s": round(summary.computed / summary.seconds, 2) if summary.computed else None,
        "bound_by": watch.bound() if summary.computed else None,
        "device_idle_share": None if idle is None else round(idle, 4),
        # Absent for an encoder whose operations nobody has counted.
        **({} if tflops is None else {"tflops_per_s": round(tflops, 4)}),
        "interrupted": summary.interrupted,
    }
