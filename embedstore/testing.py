"""Contract tests for encoders and data set readers of any package; those of heads are in `heads.testing`.

Each function raises AssertionError with what was broken, so that it serves under pytest, unittest or alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.datasets.base import Collection, DatasetReader
from embedstore.encoders.base import Encoder
from embedstore.errors import UsageError, first_few
from embedstore.identity import identity_from_json
from embedstore.images.preprocess import PreprocessSpec
from embedstore.manifest import FIXED_COLUMNS, path_from_manifest
from embedstore.queries.manifest_columns import unit_names

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]

_ABSOLUTE = re.compile(r"^(/|[A-Za-z]:[\\/])")
_PICTURES = 5


def example_pictures(spec: PreprocessSpec, *, count: int = _PICTURES, seed: int = 0) -> Pixels:
    """Return (count, size, size) uint8 pictures of random blocks, as an encoder with `spec` takes them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    places = np.arange(spec.size_px) * 8 // spec.size_px
    return coarse[:, places[:, None], places[None, :]]


def check_encoder(encoder: Encoder, pixels: Pixels | None = None) -> Vectors:
    """Check that an encoder keeps its contract (`embedstore.encoders.base.Encoder`).

    Its identity is known before `load` and survives JSON; vectors are finite float32 of the stated length; a row
    has the same bits alone, in another order, in other company, and through a stream; grey and its RGB copy are
    the same picture; pixels of another type or shape are refused.

    Parameters
    ----------
    encoder
        Not loaded yet.
    pixels
        (n, size, size) or (n, size, size, 3) uint8, at least three pictures; None for generated ones.

    Returns
    -------
    (n, dim) float32 vectors of the pictures.

    Raises
    ------
    AssertionError
        With what was broken.
    """
    pixels = example_pictures(encoder.preprocess) if pixels is None else pixels
    identity = encoder.identity
    again = identity_from_json(identity.to_json(), source="check_encoder")
    _require(again == identity, f"the identity must survive JSON; {identity} became {again}")
    _require(
        identity.encoder == encoder.name,
        f"identity.encoder must be the encoder's name {encoder.name!r}; found {identity.encoder!r}",
    )
    _require(
        identity.preprocess == encoder.preprocess.to_json(),
        "identity.preprocess must be preprocess.to_json(): what the pictures go through is part of a vector",
    )
    encoder.load()
    encoder.load()
    vectors = encoder.encode(pixels)
    wanted = (len(pixels), identity.dim)
    _require(
        vectors.shape == wanted and vectors.dtype == np.float32,
        f"encode must return float32 of shape {wanted}; found {vectors.dtype} of shape {vectors.shape}",
    )
    _require(bool(np.isfinite(vectors).all()), "encode must return finite numbers for any picture")
    _require(encoder.identity == identity, "the identity must stay the same when weights are loaded")
    _require(
        encoder.device.partition(":")[0] in ("cpu", "cuda"),
        f"a loaded encoder's device must be cpu, cuda or cuda:<index>; found {encoder.device!r}",
    )
    _check_rows_stand_alone(encoder, pixels, vectors)
    _check_stream(encoder, pixels, vectors)
    _check_further_arrays(encoder, pixels)
    _check_refusals(encoder, pixels)
    return vectors


def _check_rows_stand_alone(encoder: Encoder, pixels: Pixels, vectors: Vectors) -> None:
    for row in range(len(pixels)):
        _require_same(encoder.encode(pixels[row : row + 1])[0], vectors[row], f"picture {row} alone")
    _require_same(encoder.encode(pixels[::-1]), vectors[::-1], "the pictures in reverse order")
    _require_same(
        encoder.encode(np.repeat(pixels[:1], 3, axis=0))[2], vectors[0], "a picture beside its copies"
    )
    if pixels.ndim == 3:
        colour = np.repeat(pixels[..., None], 3, axis=-1)
        _require_same(encoder.encode(colour), vectors, "grey pictures as RGB")
    empty = encoder.encode(pixels[:0]).shape
    _require(
        empty == (0, vectors.shape[1]), f"no pictures must give shape {(0, vectors.shape[1])}; found {empty}"
    )


def _check_stream(encoder: Encoder, pixels: Pixels, vectors: Vectors) -> None:
    stream = encoder.open_stream()
    through = [*stream.put(pixels[:2]), *stream.put(pixels[2:]), *stream.drain()]
    _require(len(through) == 2, f"a stream must return each of 2 batches once; found {len(through)}")
    _require_same(
        np.concatenate([encoded.vectors for encoded in through]), vectors, "pictures through a stream"
    )
    _require(
        all(encoded.busy_s > 0 for encoded in through), "a stream must state busy_s above 0 of each batch"
    )


def _check_further_arrays(encoder: Encoder, pixels: Pixels) -> None:
    """Check that the stream returns what the identity declares, and that a row depends on its image alone."""

    def encoded(batch: Pixels) -> Mapping[str, Vectors]:
        stream = encoder.open_stream()
        (through,) = [*stream.put(batch), *stream.drain()]
        return through.further

    declared, together = encoder.identity.arrays, encoded(pixels)
    _require(
        together.keys() == declared.keys(),
        f"a stream must return the arrays that the identity declares, {sorted(declared)}; found {sorted(together)}",
    )
    for name, spec in declared.items():
        found, wanted = together[name], (len(pixels), *spec.row_shape)
        _require(
            found.shape == wanted and found.dtype == np.float32,
            f"array {name!r} must be float32 of shape {wanted}; found {found.dtype} of shape {found.shape}",
        )
        _require(bool(np.isfinite(found).all()), f"array {name!r} must hold finite numbers for any picture")
        for row in range(len(pixels)):
            alone = encoded(pixels[row : row + 1])[name][0]
            _require_same(alone, found[row], f"array {name!r} of picture {row} alone")


def _check_refusals(encoder: Encoder, pixels: Pixels) -> None:
    others: list[npt.NDArray[Any]] = [pixels[:, :-1], pixels.astype(np.float32), pixels[0]]
    for wrong in others:
        found = f"{wrong.dtype} of shape {wrong.shape}"
        try:
            encoder.encode(wrong)
        except UsageError as error:
            _require(
                "uint8" in str(error), f"the refusal of {found} must say that uint8 is taken; found: {error}"
            )
        else:
            raise AssertionError(f"encode must raise UsageError for {found}")


def check_encoder_options(
    build: Callable[..., Encoder], changed: Mapping[str, Any], pixels: Pixels | None = None
) -> None:
    """Check that an encoder's own options are in its identity, so that vectors of two settings never mix.

    Parameters
    ----------
    build
        What the entry point names: class or function.
    changed
        Own option -> a plain JSON value other than its default.
    pixels
        As `check_encoder`.

    Raises
    ------
    AssertionError
        If the identity does not state the option, or is the same as with the default.
    """
    plain = build(device="cpu")
    for option, setting in changed.items():
        other = build(device="cpu", **{option: setting})
        stated = other.identity.options.get(option)
        _require(
            stated == setting, f"identity.options must state {option!r} as {setting!r}; found {stated!r}"
        )
        _require(
            other.identity != plain.identity,
            f"{option}={setting!r} must have another identity than the default; if it is the default, give another",
        )
        again = identity_from_json(other.identity.to_json(), source="check_encoder_options").options
        rebuilt = build(device="cpu", **again)
        _require(
            rebuilt.identity == other.identity,
            f"the encoder must come back from the options of its identity {dict(again)}; {option!r} does not",
        )
        pictures = example_pictures(other.preprocess) if pixels is None else pixels
        for encoder in (other, rebuilt):
            encoder.load()
        _require_same(rebuilt.encode(pictures), other.encode(pictures), f"{option}={setting!r}, built again")


def check_reader(reader: DatasetReader, root: Path, *, knows_patients: bool) -> Collection:
    """Check that a data set reader keeps its contract (`embedstore.datasets.base.DatasetReader`) on a folder.

    Reading twice gives the same manifest, labels and summary; image ids are unique; the summary counts images,
    patients, studies and absent files truly; labels belong to records; no absolute path is kept.

    Parameters
    ----------
    reader
        The reader.
    root
        A small folder or file in the data set's true format.
    knows_patients
        Whether the data set says which patient each image shows.

    Returns
    -------
    What the reader found.

    Raises
    ------
    AssertionError
        With what was broken.
    """
    collection, again = reader.read(root), reader.read(root)
    _require(
        collection.dataset == reader.name,
        f"collection.dataset must be the reader's name {reader.name!r}; found {collection.dataset!r}",
    )
    _require(
        again.manifest.to_parquet() == collection.manifest.to_parquet(),
        "reading a folder twice must give the same manifest in the same order; sort what the disk lists",
    )
    labels = [[task.labels.to_pydict() for task in read.tasks] for read in (collection, again)]
    _require(labels[0] == labels[1], "reading a folder twice must give the same labels in the same order")
    _require(
        dict(again.summary) == dict(collection.summary), "reading a folder twice must give the same summary"
    )
    _check_records(collection, knows_patients=knows_patients)
    _check_tasks(collection)
    stated = getattr(reader, "task_names", None)
    strangers = [task.name for task in collection.tasks if stated is not None and task.name not in stated]
    _require(
        not strangers, f"task_names of the reader must hold every task; {strangers} is not among {stated}"
    )
    _check_nothing_absolute(collection, root)
    return collection


def _check_records(collection: Collection, *, knows_patients: bool) -> None:
    manifest, summary = collection.manifest, collection.summary
    _require(
        len(manifest) > 0, "a reader must raise DataError for a folder without images; it found none here"
    )
    names = manifest.table.column_names[: len(FIXED_COLUMNS)]
    _require(names == list(FIXED_COLUMNS), f"a manifest must begin with {list(FIXED_COLUMNS)}; found {names}")
    for name, kind in FIXED_COLUMNS.items():
        found = manifest.table.schema.field(name).type
        _require(found == kind, f"column {name!r} must be of type {kind}; found {found}")
    image_ids = manifest.column("image_id")
    _require(len(set(image_ids)) == len(image_ids), "image ids must be unique")
    frames = manifest.column("frame")
    _require(
        all(frame is not None and frame >= 0 for frame in frames),
        "every record must have a frame, 0 for a file with one",
    )
    absent = [
        record
        for record in manifest.records()
        if not path_from_manifest(collection.root, record.path).is_file()
    ]
    stated = int(str(summary.get("absent", "0 of")).split(maxsplit=1)[0].replace(",", ""))
    _require(
        stated == len(absent),
        f"the summary's 'absent' must count the records without a file: {len(absent)}; found {stated}",
    )
    _require_count(collection, "images", len(manifest))
    if knows_patients:
        patients = manifest.column("patient_id")
        _require(all(patients), "every record must name its patient, by whom splits and folds are made")
        _require_count(collection, "patients", len(set(patients)))
    studies = set(manifest.column("study_id")) - {None}
    if studies:
        _require_count(collection, "studies", len(studies))


def _check_tasks(collection: Collection) -> None:
    names = [task.name for task in collection.tasks]
    _require(len(set(names)) == len(names), f"names of tasks must be unique; found {names}")
    columns = collection.manifest.table.column_names
    for task in collection.tasks:
        strangers = set(task.unit_ids) - set(unit_names(collection.manifest.table, task.unit).tolist())
        _require(
            not strangers,
            f"task {task.name!r} has labels of units that no record has: {first_few(sorted(strangers), shown=3)}",
        )
        lost = set(task.subgroups) - set(columns)
        _require(
            not lost, f"subgroups of task {task.name!r} must be columns of the manifest; found {sorted(lost)}"
        )


def _check_nothing_absolute(collection: Collection, root: Path) -> None:
    tables = [collection.manifest.table, *collection.tables.values()]
    tables += [task.labels for task in collection.tasks]
    cells = [cell for table in tables for column in table.columns for cell in column.to_pylist()]
    texts = [cell for cell in cells if isinstance(cell, str)]
    texts += [str(fact) for fact in collection.summary.values()]
    found = [text for text in texts if _ABSOLUTE.match(text) or str(root.resolve()) in text]
    _require(
        not found,
        f"paths must be relative to the root, so that a store may be handed on; found {first_few(found, shown=3)}",
    )


def _require_count(collection: Collection, name: str, count: int) -> None:
    found = collection.summary.get(name)
    _require(found == count, f"the summary's {name!r} must be {count}; found {found!r}")


def _require_same(found: Vectors, wanted: Vectors, what: str) -> None:
    if found.shape != wanted.shape or not np.array_equal(found, wanted):
        apart = np.abs(found - wanted).max() if found.shape == wanted.shape else np.nan
        raise AssertionError(
            f"{what}: vectors must have the same bits; the largest difference is {apart:.3g} "
            f"(shapes {found.shape} and {wanted.shape}). embedstore.encoders.torch_module sees to it"
        )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
