"""Vectors of images outside any store: for predictions and searches."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.encoders.base import Encoder, encoder_names, encoder_options, image_encoder
from embedstore.encoders.capabilities import report_to
from embedstore.engines.base import Stopwatch, UnitWork
from embedstore.engines.local import run_units
from embedstore.engines.series import SeriesRanges, series_members, with_series_ranges
from embedstore.errors import Reason
from embedstore.identity import Identity
from embedstore.images.decode import DecodeLimits
from embedstore.images.pool import DecoderPool
from embedstore.manifest import Record
from embedstore.store.writer import UnitResult, round_vectors

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Embedded:
    """Vectors of records that were not kept.

    Parameters
    ----------
    records
        The records.
    vectors
        (n, dim) float32, rounded as a store would round them; NaN where the image failed.
    content_sha256
        (n, 32) uint8 digests of the decoded pixels, as in a store; zeros where the image failed.
    failures
        ``{row: (reason, message)}``.
    """

    records: tuple[Record, ...]
    vectors: npt.NDArray[np.float32]
    content_sha256: npt.NDArray[np.uint8]
    failures: Mapping[int, tuple[Reason, str]]


def encoder_of_identity(
    identity: Identity,
    *,
    holder: str,
    name: str | None = None,
    device: str = "auto",
    say: Callable[[str], None] | None = None,
) -> Encoder:
    """Build the encoder that makes vectors of `identity`, at the commit of the hub that made them.

    How its passes run (`execution`) is no part of an identity, and is the device's default here.

    Parameters
    ----------
    identity
        Of a store or a run.
    holder
        What holds it, for the message (``store mura.store``).
    name
        Where to find the encoder, if not under its own name: the folder or hub id of a checkpoint.
    device
        Where to run it.
    say
        Takes the encoder's notices for people, now and later; without it they are Python warnings.

    Raises
    ------
    IdentityMismatch
        If that encoder makes vectors of another identity.
    UsageError
        If no encoder has that name.
    """
    place = name or identity.encoder
    revision = _commit_of(identity, place)
    offered = encoder_options(place, revision=revision)
    # An encoder with one way of pooling, or without a hub, has no such option.
    wanted: dict[str, Any] = {"pooling": identity.pooling, "revision": revision}
    encoder = image_encoder(
        place,
        preset=identity.preprocess["preset"],
        device=device,
        dtype=identity.compute_dtype,
        **{option: setting for option, setting in wanted.items() if option in offered},
    )
    if say is not None:
        report_to(encoder, say)
    identity.require_same(encoder.identity, holder=holder)
    return encoder


def _commit_of(identity: Identity, place: str) -> str | None:
    """Return the commit of the hub that made the vectors; a folder has no commits, whatever it holds."""
    is_folder = place not in encoder_names() and Path(place).is_dir()
    return identity.revision if _COMMIT.fullmatch(identity.revision) and not is_folder else None


def embed_records(
    records: Sequence[Record],
    root: Path,
    encoder: Encoder,
    *,
    store_dtype: str = "float16",
    known_ranges: Mapping[str, tuple[float, float]] | None = None,
    batch_size: int = 32,
    workers: int = 2,
    limits: DecodeLimits | None = None,
) -> Embedded:
    """Compute the vectors of records without keeping them.

    Parameters
    ----------
    records
        What to encode, at least one; paths are relative to `root`.
    root
        Folder of the paths.
    encoder
        The encoder; loaded here.
    store_dtype
        Vectors are rounded to it, so that an image has the same vector in and outside a store.
    known_ranges
        Value ranges of MR series that a store holds already; others are taken over the records given.
    batch_size, workers, limits
        As in `embedstore.extract.ExtractOptions`.
    """
    listed = tuple(records)
    work = UnitWork(0, 0, tuple(range(len(listed))), listed)
    encoder.load()
    with DecoderPool(encoder.preprocess, workers=min(workers, len(listed)), limits=limits) as decoder:
        ranges = SeriesRanges(
            root, series_members(listed), encoder.preprocess.mri_range, decoder, dict(known_ranges or {})
        )
        (output,) = run_units(
            with_series_ranges([work], ranges),
            root=root,
            encoder=encoder,
            decoder=decoder,
            batch_size=batch_size,
            stopwatch=Stopwatch(),
            stopping=lambda: False,
        )
    stored, failures = round_vectors(
        UnitResult(output.vectors, output.content, output.failures), dtype=store_dtype, start=0
    )
    named = {failure.row: (failure.reason, failure.message) for failure in failures}
    return Embedded(listed, stored.astype(np.float32), output.content, named)
