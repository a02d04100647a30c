"""How to extract: options that change no vector, and what is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from embedstore.decoding.decode import DecodeLimits
from embedstore.encoders.base import Encoder
from embedstore.extraction.shard import Shard


class Choose(StrEnum):
    """Which images of a data set are computed."""

    NEW = "new"
    """Those that were never tried."""

    NEW_OR_FAILED = "new-or-failed"
    """Those as well that were tried and failed; vectors that are there are kept."""


class EncoderSource(Protocol):
    """Builds the same encoder for any device; travels to other processes by pickle."""

    def __call__(self, *, device: str) -> Encoder:
        """Return the encoder, not loaded yet."""
        ...


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract; none of these changes a vector.

    Parameters
    ----------
    chunk_rows
        Rows of a chunk in a newly planned part; None for about 16 MiB of its largest array, 256 rows at most.
    store_dtype
        ``float16`` or ``float32`` for a newly planned part.
    batch_size
        Images per forward pass.
    workers
        Decoding processes.
    limits
        What a file may cost before it is refused.
    limit
        Plan at most the first so many records of the data set; None for all.
    shard
        Do this share of the chunks only, while other processes do others; None to have the store alone.
    """

    chunk_rows: int | None = None
    store_dtype: str = "float16"
    batch_size: int = 32
    workers: int = 2
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    limit: int | None = None
    shard: Shard | None = None
