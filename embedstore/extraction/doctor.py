"""Checks what an extraction needs: library versions, processor, devices, weights, disk, speed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.checkpoints.checkpoint import CONFIG_FILE, SINGLE_FILE
from embedstore.checkpoints.hub import HubUnreachable, check_access, hub_file
from embedstore.encoders.base import Encoder
from embedstore.errors import CorruptStore, EmbedError, StoreError
from embedstore.extraction.installed import Finding, State, library_findings, plugin_findings
from embedstore.extraction.plan import library_versions
from embedstore.keys.key_file import Key
from embedstore.manifest import Manifest, path_to_manifest
from embedstore.pipeline.canary import embed_again
from embedstore.queries.image_files import ImageFiles
from embedstore.store.reader import VALID, open_store

WEIGHTS = ("medsiglip-448", "medgemma-896")
MURA_IMAGES = 40_005  # train and valid together, https://arxiv.org/abs/1712.06957
_FSYNCS = 20
_FSYNC_BYTES = 64 * 1024
_SLOW_FSYNC_MS = 50.0
_LITTLE_DISK = 2 * 10**9
_TRIAL_S = 5.0
_HUB_TIMEOUT_S = 3.0
_ABSENT = "weights are not there"
_OFFLINE = "weights are not there, and this is offline"


def examine(
    store: Path | None,
    build: Callable[[str], Encoder],
    encoder: str,
    *,
    key: Key | None = None,
    load_head: Callable[[str], object] | None = None,
) -> Iterator[Finding]:
    """Run every check, quick ones first; an error that a check raises becomes a finding.

    The hub is not asked again after it has not answered once.

    Parameters
    ----------
    store
        The store's folder, or where it will be; None to look at the current folder's disk only.
    build
        Makes an encoder from its name.
    encoder
        Name of the one whose speed is measured.
    key
        Key of a store whose paths are hidden.
    load_head
        As of `plugin_findings`.
    """
    yield from library_findings()
    yield from plugin_findings(load_head)
    yield processor_finding()
    yield from device_findings()
    timeout_s: float | None = _HUB_TIMEOUT_S
    lacking = set()
    for name in WEIGHTS:
        finding = weights_finding(name, build, timeout_s=timeout_s)
        if finding.found == _OFFLINE:
            timeout_s = None
        if finding.found in (_ABSENT, _OFFLINE):
            lacking.add(name)
        yield finding
    if store is not None:
        found = store_finding(store)
        yield found
        if found.state is State.FINE:
            yield vectors_finding(store, key=key)
    yield from disk_findings(store or Path.cwd())
    if encoder in lacking:
        yield Finding(_speed_of(encoder), State.BROKEN, f"did not run: {_ABSENT}", f"see {encoder} above")
    else:
        yield speed_finding(build, encoder, timeout_s=timeout_s)


def processor_finding() -> Finding:
    """Say whether the processor multiplies bfloat16 in hardware."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    names = ("avx2", "avx512_f", "avx512_bf16", "amx_tile", "amx_bf16")
    held = {name: bool(capabilities.get(name)) for name in names}
    listed = ", ".join(name for name, there in held.items() if there) or "none of " + ", ".join(names)
    return Finding("processor", State.FINE, f"{os.cpu_count()} cores; {listed}", values=dict(held))


def device_findings() -> Iterator[Finding]:
    """List the CUDA devices with their memory."""
    import torch

    if not torch.cuda.is_available():
        yield Finding(
            "gpu", State.NOTE, "none that torch sees", "MedSigLIP runs on a CPU, slowly; hog runs well"
        )
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Finding(
            f"cuda:{index}",
            State.FINE,
            f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free",
            values={"name": name, "free_bytes": free, "total_bytes": total},
        )


def weights_finding(
    name: str, build: Callable[[str], Encoder], *, timeout_s: float | None = _HUB_TIMEOUT_S
) -> Finding:
    """Say whether an encoder's weights are there; nothing but a configuration is ever fetched for it.

    `timeout_s` is that of `embedstore.checkpoints.hub.check_access`.
    """
    try:
        origin = build(name).origin or name
        check_access(origin, CONFIG_FILE, timeout_s=timeout_s)
        config = hub_file(origin, CONFIG_FILE)
    except HubUnreachable as error:
        return Finding(name, State.NOTE, _OFFLINE, str(error))
    except (EmbedError, OSError) as error:
        return Finding(name, State.NOTE, _ABSENT, " ".join(str(error).split()))
    if config is None or not any(config.parent.glob("*.safetensors")):
        found = "access is granted, weights are not downloaded yet"
        return Finding(
            name, State.NOTE, found, f"run `hf download {origin}`, or let the first extraction do it"
        )
    return Finding(name, State.FINE, f"weights of {origin} are in the cache")


def store_finding(path: Path) -> Finding:
    """Say whether there is a store, and how many vectors it holds."""
    try:
        store = open_store(path)
    except CorruptStore as error:
        return Finding("store", State.BROKEN, f"{path} is damaged", str(error))
    except StoreError as error:
        if (path / "store.json").exists():
            return Finding("store", State.BROKEN, f"{path} cannot be read", str(error))
        fix = "check `store`; the first extraction makes a store there"
        return Finding("store", State.NOTE, f"none at {path}", fix)
    held = int((store.status == VALID).sum())
    return Finding("store", State.FINE, f"{path}: {held:,} of {store.rows:,} images have a vector")


def vectors_finding(path: Path, *, key: Key | None = None) -> Finding:
    """Embed a few of a store's images again, and say whether this machine still makes its vectors."""
    from embedstore.decoding.pool import DecoderPool
    from embedstore.encoders.registry import encoder_of_identity

    store, topic = open_store(path), "vectors of the store"
    if store.identity.declared:
        return Finding(topic, State.NOTE, "imported, not computed here: there is nothing to compare")
    files = {name: path_to_manifest(str(file)[1:]) for name, file in ImageFiles(key).paths(store).items()}
    known = store.table.filter(
        pc.is_in(store.table.column("image_id"), value_set=pa.array(files, pa.string()))
    )
    place = known.column_names.index("path")
    wanted = Manifest(known.set_column(place, "path", pa.nulls(known.num_rows, pa.string())), files)
    try:
        encoder = encoder_of_identity(store.identity, holder=f"store {path}")
        encoder.load()
        with DecoderPool(encoder.preprocess, workers=1) as decoder:
            canary = embed_again(store, wanted, Path("/"), encoder, decoder, versions=library_versions())
    except EmbedError as error:
        return Finding(topic, State.NOTE, "not compared", str(error))
    if not canary.differences and not canary.refused:
        return Finding(topic, State.NOTE, "not compared: none of its image files is where it was")
    try:
        canary.require(f"store {path}")
    except StoreError as error:
        return Finding(topic, State.BROKEN, canary.line, str(error))
    words = canary.line or f"{len(canary.differences)} images embedded again: the same to the bit"
    return Finding(topic, State.FINE, words, values={"largest_difference": canary.largest})


def disk_findings(folder: Path) -> Iterator[Finding]:
    """Measure free space and the time of a durable write where the store lies."""
    existing = folder.resolve()
    while not existing.is_dir():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    fix = "a MURA store takes 0.1 GB; make room before larger ones" if free < _LITTLE_DISK else ""
    state = State.NOTE if fix else State.FINE
    yield Finding("disk", state, f"{free / 1e9:.1f} GB free at {existing}", fix, {"free_bytes": free})
    try:
        milliseconds = _fsync_ms(existing)
    except OSError as error:
        yield Finding(
            "fsync",
            State.BROKEN,
            f"cannot write at {existing}: {error.strerror}",
            "choose another folder by `store`, or ask for write permission",
        )
        return
    slow = milliseconds > _SLOW_FSYNC_MS
    yield Finding(
        "fsync",
        State.NOTE if slow else State.FINE,
        f"{milliseconds:.1f} ms for 64 KiB",
        "keep the store on a local disk, or raise `chunk_rows`" if slow else "",
        {"fsync_ms": milliseconds},
    )


def speed_finding(
    build: Callable[[str], Encoder], name: str, *, timeout_s: float | None = _HUB_TIMEOUT_S
) -> Finding:
    """Decode and encode generated pictures for five seconds; `timeout_s` as in `weights_finding`."""
    try:
        _check_access_to_weights(build, name, timeout_s)
        encoder = build(name)
        encoder.load()
        per_s = _images_per_s(encoder)
    except (EmbedError, OSError) as error:
        return Finding(_speed_of(name), State.BROKEN, "did not run", " ".join(str(error).split()))
    hours = MURA_IMAGES / per_s / 3600
    return Finding(
        _speed_of(name),
        State.FINE,
        f"{per_s:.1f} images/s on {encoder.device}; MURA would take {_duration(hours)}",
        values={"images_per_s": per_s, "mura_hours": hours, "device": encoder.device},
    )


def _speed_of(encoder: str) -> str:
    return f"speed of {encoder}"


def _check_access_to_weights(build: Callable[[str], Encoder], name: str, timeout_s: float | None) -> None:
    """Ask once for what loading would ask for again and again, if the encoder's weights come from the hub."""
    origin = name if _is_hub_id(name) else build(name).origin
    if not _is_hub_id(origin):
        return
    check_access(origin, CONFIG_FILE, timeout_s=timeout_s)
    config = hub_file(origin, CONFIG_FILE)
    if config is not None and not any(config.parent.glob("*.safetensors")):
        check_access(origin, SINGLE_FILE, timeout_s=timeout_s)


def _is_hub_id(origin: str) -> bool:
    return "/" in origin and not origin.startswith((".", "/", "~")) and not Path(origin).is_dir()


def _fsync_ms(folder: Path) -> float:
    payload = os.urandom(_FSYNC_BYTES)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".embed-doctor-") as file:
        started = time.perf_counter()
        for _ in range(_FSYNCS):
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        return (time.perf_counter() - started) / _FSYNCS * 1000


def _images_per_s(encoder: Encoder) -> float:
    """Return the speed of decoding and encoding side by side, on pictures of MURA's size."""
    from embedstore.decoding.decode import DecodeJob
    from embedstore.decoding.pool import DecoderPool
    from embedstore.errors import ImageRefused
    from embedstore.pipeline.run_chunks import stack_pixels

    with tempfile.TemporaryDirectory() as name:
        paths = _write_pictures(Path(name))
        done = 0
        with DecoderPool(encoder.preprocess, workers=min(os.cpu_count() or 1, 16)) as decoder:

            def jobs() -> Iterator[DecodeJob]:
                while True:
                    yield from (DecodeJob(str(path), 0, "") for path in paths)

            outcomes = decoder.decode(jobs(), ahead=32)
            first = next(outcomes)  # the processes start outside the measurement
            if isinstance(first, ImageRefused):
                raise first
            encoder.encode(stack_pixels([first.pixels]))
            started = time.perf_counter()
            while time.perf_counter() - started < _TRIAL_S:
                pictures = [
                    outcome.pixels for outcome in _take(outcomes, 4) if not isinstance(outcome, ImageRefused)
                ]
                encoder.encode(stack_pixels(pictures))
                done += len(pictures)
            return done / (time.perf_counter() - started)


def _take(outcomes: Iterator[Any], count: int) -> list[Any]:
    return [next(outcomes) for _ in range(count)]


def _write_pictures(folder: Path) -> list[Path]:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    paths = []
    for number in range(8):
        coarse = Image.fromarray(generator.integers(0, 256, (64, 48), dtype=np.uint8))
        paths.append(folder / f"{number}.png")
        coarse.resize((384, 512)).save(paths[-1])
    return paths


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
