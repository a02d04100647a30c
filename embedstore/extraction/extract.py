"""Phase one: plan what is missing, compute it on the devices there are, commit chunk by chunk.

The same extraction continues an interrupted one, adds new images as a new part, and does nothing when
there is nothing to do; a finished store is recognised without loading the encoder or taking the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from embedstore.crops.crop_collection import with_crops
from embedstore.datasets.base import Collection, read_dataset
from embedstore.encoders.base import Encoder, OfCrops
from embedstore.encoders.registry import encoder_options, has_square_pixels, image_encoder
from embedstore.errors import UsageError
from embedstore.extraction.options import Choose, EncoderSource, ExtractOptions
from embedstore.extraction.pending import PendingChunk, pending_chunks
from embedstore.extraction.plan import (
    ensure_planned,
    library_versions,
    planned_store,
    revised_columns,
    revision_numbers,
    say_kept_tasks,
    say_rows_left_over,
    wanted_records,
    write_plan,
)
from embedstore.extraction.progress import ExtractSummary, Observer, Progress, RunningTotal
from embedstore.extraction.same_key import keep_key
from embedstore.extraction.shard import WHOLE, Shard
from embedstore.extraction.worker import ChunkLoop
from embedstore.files import StrPath
from embedstore.finetuned.trained_patients import keep_list, patients_digest_of
from embedstore.identity import Identity
from embedstore.lumbar.level_points import LevelPoints
from embedstore.manifest import Manifest
from embedstore.store.commit import ChunkWriter
from embedstore.store.documents import read_store_document
from embedstore.store.layout import StoreLayout
from embedstore.store.reader import Store, open_store
from embedstore.store.writer import join_writers, open_writer
from embedstore.tokens.grid import TOKENS, tokens_of

__all__ = [
    "Choose",
    "ExtractOptions",
    "ExtractSummary",
    "Extraction",
    "InProcess",
    "Observer",
    "Progress",
    "extract",
]


def extract(
    collection: Collection | str,
    store: StrPath,
    encoder: Encoder | str = "hog",
    *,
    root: StrPath | None = None,
    tokens: int | None = None,
    crops: StrPath | LevelPoints | None = None,
    crop_mm: float | None = None,
    crop_neighbours: int | None = None,
    choose: Choose = Choose.NEW,
    options: ExtractOptions | None = None,
    observer: Observer | None = None,
) -> ExtractSummary:
    """Bring a store, or a shard of it, up to date with a data set; everything runs in this process.

    Parameters
    ----------
    collection
        What a data set reader found (`embedstore.datasets.base.read_dataset`; its `root` may be a string), or the
        name of a reader, which then reads `root`.
    store
        Folder of the store; created if missing.
    encoder
        The encoder, or its name (`embedstore.encoders.registry.image_encoder`), which then prepares and calculates
        as the store does where there is one. It is loaded only if something is to be computed.
    root
        Folder or file of the data set, where `collection` is a name.
    tokens
        Numbers to keep of each of the encoder's tokens, read by `Store.tokens`, where `encoder` is a name; None for
        as many as the store has, and none without a store.
    crops
        Embed crops around level points in place of whole images: ``oracle`` for the points of the data set's own table
        of coordinates, the folder of a localiser's run, or the points themselves.
    crop_mm, crop_neighbours
        Side of a crop, and slices on each side of the one that is nearest to its point; None for those of the store,
        and 50 mm and 1 without one.
    choose
        Whether images that failed before are tried again.
    options
        See `ExtractOptions`.
    observer
        See `Observer`.

    Raises
    ------
    IdentityMismatch
        If the store holds embeddings of another identity.
    StoreBusy
        If another process writes to the store, or does the same shard.
    StoreError
        If the store cannot be used or written; what was committed before stays.
    UsageError
        If a name is unknown, or a data set is named without its root.

    Examples
    --------
    >>> summary = es.extract("mura", "other.store", "hog", root="MURA-v1.1", options=es.ExtractOptions(limit=8))
    >>> summary.valid, summary.pending, dict(summary.failed)
    (8, 0, {})
    """
    store = Path(store)
    if isinstance(collection, str):
        if root is None:
            raise UsageError(
                f"`root` is needed with the name of a data set, {collection!r}: the folder that it reads"
            )
        collection = read_dataset(collection, root)
    collection = replace(collection, root=Path(collection.root))
    if crops is not None:
        collection = with_crops(collection, crops, size_mm=crop_mm, neighbours=crop_neighbours, store=store)
    elif crop_mm is not None or crop_neighbours is not None:
        raise UsageError("`crop_mm` and `crop_neighbours` are for crops; give `crops` as well")
    if isinstance(encoder, str):
        encoder = image_encoder(
            encoder,
            dtype=dtype_of_store(store),
            square_pixels=square_pixels_of_store(store),
            tokens=tokens_of_store(store, encoder) if tokens is None else tokens,
        )
    elif tokens is not None:
        raise UsageError("`tokens` is for an encoder that is given by name; build this one with them")
    extraction = Extraction(
        collection, store, _Built(encoder), options or ExtractOptions(), observer or Observer()
    )
    return extraction.run(choose=choose, executor=InProcess())


def dtype_of_store(path: Path) -> str:
    """Return the arithmetic of a store's vectors, which every later vector must have; ``auto`` without a store."""
    identity = _identity_of_store(path)
    return "auto" if identity is None else identity.compute_dtype


def square_pixels_of_store(path: Path) -> bool | None:
    """Return `PreprocessSpec.square_pixels` of a store's vectors; None without a store."""
    identity = _identity_of_store(path)
    return None if identity is None else has_square_pixels(identity)


def tokens_of_store(path: Path, encoder: str, *, revision: str | None = None) -> int | None:
    """Return how many numbers of each token a store keeps; None without a store or tokens, or for no such encoder."""
    identity = _identity_of_store(path)
    kept = None if identity is None else tokens_of(identity)
    return kept if kept and TOKENS in encoder_options(encoder, revision=revision) else None


def _identity_of_store(path: Path) -> Identity | None:
    """Return what the vectors of a store are, None without a store; refuse one whose vectors were imported."""
    if not StoreLayout(path).store_file.exists():
        return None
    identity, _ = read_store_document(path)
    identity.require_computed(holder=f"store {path}")
    return identity


class Executor(Protocol):
    """Where an extraction is computed: this process, several devices, a cluster."""

    def execute(self, extraction: Extraction, choose: Choose, total: RunningTotal) -> Store:
        """Plan what is missing, compute and commit what is pending, and count it in `total`.

        Returns
        -------
        The store as it was before the first commit, with every record planned.

        Raises
        ------
        EmbedError
            The first error of a worker; what was committed stays.
        """
        ...


@dataclass(frozen=True)
class Extraction:
    """A data set, a store and an encoder; `run` brings the store up to date with the data set.

    Parameters
    ----------
    collection
        What a data set reader found.
    store_path
        Folder of the store; created if missing.
    build
        Makes the encoder.
    options
        See `ExtractOptions`.
    observer
        See `Observer`.
    """

    collection: Collection
    store_path: Path
    build: EncoderSource
    options: ExtractOptions = field(default_factory=ExtractOptions)
    observer: Observer = field(default_factory=Observer)

    def run(self, *, choose: Choose, executor: Executor) -> ExtractSummary:
        """Compute what is missing and return how the store stands.

        Parameters
        ----------
        choose
            Whether images that failed before are tried again. Vectors that are there are never computed again:
            they are carried over from the store's own bytes.
        executor
            `InProcess`, `OnDevices` or `OnCluster`.

        Raises
        ------
        IdentityMismatch
            If the store holds embeddings of another identity.
        StoreBusy
            If another process writes to the store, or does the same shard.
        StoreError
            If the store cannot be used or written; what was committed before stays.
        """
        total = RunningTotal(self.observer)
        collection = keep_key(self.collection, self.store_path, say=self.observer.say)
        build = self.build if collection.crop is None else OfCropsSource(self.build, collection.crop)
        extraction = replace(self, collection=collection, build=build)
        say_kept_tasks(self.store_path, self.collection, self.observer.say)
        before = revision_numbers(self.store_path)
        store = executor.execute(extraction, choose, total)
        say_rows_left_over(store, self.collection, self.observer.say)
        if patients_digest_of(store.identity) is not None:
            keep_list(store.path, store.identity, Path(self.build(device="cpu").origin))
        return replace(
            total.summary(store, self.wanted, self.shard), revised=revised_columns(store, since=before)
        )

    @property
    def wanted(self) -> Manifest:
        """The records that are asked for."""
        return wanted_records(self.collection, self.options)

    @property
    def shard(self) -> Shard:
        """The share of the chunks that is asked for."""
        return self.options.shard or WHOLE

    def planned_store(self, identity: Identity) -> Store | None:
        """Return the store if everything that is asked for is planned, else None."""
        return planned_store(self.store_path, identity, self.collection, self.wanted)

    def ensure_planned(self, identity: Identity) -> Store:
        """Return the store when everything is planned, by this process or by another."""
        return ensure_planned(
            self.store_path, identity, self.collection, self.wanted, self.options, say=self.observer.say
        )

    def pending(self, store: Store, choose: Choose, say: Callable[[str], None]) -> list[PendingChunk]:
        """Return the chunks to compute; say how many others nobody may compute from this data set."""
        pending = pending_chunks(store, self.collection.manifest, say, choose=choose, shard=self.shard)
        return [entry.located(self.collection) for entry in pending]


@dataclass(frozen=True)
class InProcess:
    """Compute in this process, on one device; only the decoding has processes of its own.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
    """

    device: str = "auto"

    def execute(self, extraction: Extraction, choose: Choose, total: RunningTotal) -> Store:
        """Do what `Executor.execute` says; the encoder is loaded only if something is pending."""
        encoder = extraction.build(device=self.device)
        encoder.report_to(extraction.observer.say)
        store = extraction.planned_store(encoder.identity)
        if store is not None and not extraction.pending(store, choose, total.notice):
            return store
        with _writer(extraction, encoder.identity, store) as (writer, current):
            pending = extraction.pending(current, choose, total.notice)
            if pending:
                _compute(extraction, encoder, writer, current, pending, total)
            return current


def _compute(
    extraction: Extraction,
    encoder: Encoder,
    writer: ChunkWriter,
    store: Store,
    pending: list[PendingChunk],
    total: RunningTotal,
) -> None:
    """Compute and commit the pending chunks."""
    total.begin(pending)
    with ChunkLoop(
        extraction.collection, encoder, writer, store=store, options=extraction.options, say=total.notice
    ) as loop:
        stopping = extraction.observer.stopping
        for finished in loop.run(
            pending, stopping=stopping, stopwatch=total.stopwatch, advance=total.advance
        ):
            total.add([finished])
    total.end()


@contextmanager
def _writer(
    extraction: Extraction, identity: Identity, store: Store | None
) -> Iterator[tuple[ChunkWriter, Store]]:
    """Plan, and hold the store: alone, or as one of many workers.

    `store` is what was found without the lock, if everything was planned. Another process may have planned,
    committed or retried since then, so what is to be done follows from the store as it is under the lock.
    """
    say, path, versions = extraction.observer.say, extraction.store_path, library_versions()
    if extraction.options.shard is None:
        with open_writer(path, identity, say=say, versions=versions) as alone:
            yield (
                alone,
                write_plan(alone, extraction.collection, extraction.wanted, extraction.options, say=say),
            )
        return
    if store is None:
        extraction.ensure_planned(identity)
    with join_writers(path, identity, worker=extraction.shard.name, say=say, versions=versions) as worker:
        yield worker, open_store(path)


@dataclass(frozen=True)
class _Built:
    """An encoder that is there already, whatever the device."""

    encoder: Encoder

    def __call__(self, *, device: str) -> Encoder:
        del device
        return self.encoder


@dataclass(frozen=True)
class OfCropsSource:
    """Builds an encoder for a collection of crops.

    Parameters
    ----------
    build
        Builds the encoder.
    rule
        As `embedstore.encoders.base.OfCrops`.
    """

    build: EncoderSource
    rule: Mapping[str, Any]

    def __call__(self, *, device: str) -> Encoder:
        return OfCrops(self.build(device=device), self.rule)
