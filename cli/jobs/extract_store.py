"""From the names of an encoder and of devices to an extraction: what ``embed extract`` does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from embedstore.datasets.base import Collection
from embedstore.encoders.registry import encoder_options, image_encoder
from embedstore.errors import UsageError
from embedstore.extraction.dry_run import DryRun, dry_run
from embedstore.extraction.extract import (
    Executor,
    Extraction,
    InProcess,
    dtype_of_store,
    square_pixels_of_store,
    tokens_of_store,
)
from embedstore.extraction.on_devices import OnDevices, device_names
from embedstore.extraction.options import Choose, EncoderSource, ExtractOptions
from embedstore.extraction.progress import ExtractSummary, Observer
from embedstore.files import StrPath
from embedstore.images.preprocess import PreprocessSpec
from embedstore.tokens.grid import TOKENS

_MOST_WORKERS = 16


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """An encoder by its name.

    Parameters
    ----------
    name, preset, revision, pooling, execution, options
        As `embedstore.encoders.registry.image_encoder`.
    dtype
        Arithmetic of the encoder; ``auto`` is the store's own where there is one. So are square pixels.
    tokens
        Numbers to keep of each token; None for the store's own, and none without a store.
    """

    name: str
    preset: str | None = None
    dtype: str = "auto"
    revision: str | None = None
    pooling: str | None = None
    execution: str | None = None
    tokens: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def require_known(self) -> None:
        """Refuse what the encoder does not have, before anything is read; raises UsageError."""
        offered = encoder_options(self.name, revision=self.revision)
        if self.tokens is not None and TOKENS not in offered:
            raise UsageError(f"encoder {self.name!r} has no tokens; leave `tokens` out")
        if self.preset is not None:
            PreprocessSpec(preset=self.preset)

    def source(self, store: StrPath) -> EncoderSource:
        """Return what builds the encoder for a store, on any device."""
        # Whatever this machine would choose, a store has one arithmetic.
        dtype = dtype_of_store(Path(store)) if self.dtype == "auto" else self.dtype
        tokens = self.tokens or tokens_of_store(Path(store), self.name, revision=self.revision)
        return partial(
            image_encoder,
            self.name,
            preset=self.preset,
            dtype=dtype,
            revision=self.revision,
            pooling=self.pooling,
            execution=self.execution,
            square_pixels=square_pixels_of_store(Path(store)),
            tokens=tokens,
            options=self.options,
        )


@dataclass(frozen=True, kw_only=True)
class ExtractJob:
    """An extraction as people ask for it.

    Parameters
    ----------
    collection
        What a data set reader found.
    store
        Folder of the store; created if missing.
    encoder
        The encoder.
    devices
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...; several with commas between, or ``all``.
    ray_address
        Ray cluster: ``local``, ``auto`` or ``host:port``; None for this machine without Ray.
    choose
        Whether images that failed before are tried again.
    options
        See `ExtractOptions`.
    """

    collection: Collection
    store: StrPath
    encoder: EncoderChoice
    devices: str = "auto"
    ray_address: str | None = None
    choose: Choose = Choose.NEW
    options: ExtractOptions = field(default_factory=ExtractOptions)


def extract_store(job: ExtractJob, *, observer: Observer) -> ExtractSummary:
    """Bring a store up to date with a data set.

    Raises
    ------
    UsageError
        If there is no such encoder or device.
    EmbedError
        As `Extraction.run`.
    """
    extraction = Extraction(
        job.collection, Path(job.store), job.encoder.source(job.store), job.options, observer
    )
    return extraction.run(choose=job.choose, executor=executor_of(job.devices, ray_address=job.ray_address))


def dry_run_store(job: ExtractJob) -> DryRun:
    """Return what `extract_store` would meet, measured on the first device; nothing is written."""
    build = job.encoder.source(job.store)
    first = device_names(job.devices)[0]
    return dry_run(job.collection, job.store, build(device=first), choose=job.choose, options=job.options)


def executor_of(devices: str, *, ray_address: str | None) -> Executor:
    """Return where an extraction is computed; see `ExtractJob`.

    Raises
    ------
    UsageError
        If a device's name is empty or stands there twice, or ``all`` finds none.
    """
    names = device_names(devices)
    if ray_address is not None:
        # Here, so that whoever does without Ray pays nothing for it.
        from embedstore.extraction.on_cluster import OnCluster

        return OnCluster(ray_address, devices)
    return OnDevices(names) if len(names) > 1 else InProcess(names[0])


def default_workers() -> int:
    """Return how many decoding processes suit this machine."""
    return min(os.cpu_count() or 1, _MOST_WORKERS)
