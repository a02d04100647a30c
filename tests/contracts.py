"""What every data set reader and every encoder must do, checked the same way for all of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from embedstore.datasets.base import Collection, DatasetReader
from embedstore.encoders.base import Encoder
from embedstore.errors import UsageError
from embedstore.identity import identity_from_json
from embedstore.manifest import FIXED_COLUMNS, path_from_manifest
from embedstore.queries.manifest_columns import unit_names

ABSOLUTE = re.compile(r"^(/|[A-Za-z]:[\\/])")


def check_reader(reader: DatasetReader, root: Path, *, knows_patients: bool) -> Collection:
    """Assert the contract of a data set reader on `root` and return what it read."""
    collection = reader.read(root)
    again = reader.read(root)
    assert collection.dataset == reader.name
    assert again.manifest.table.equals(collection.manifest.table)
    assert again.manifest.to_parquet() == collection.manifest.to_parquet()
    labels = [[task.labels.to_pydict() for task in read.tasks] for read in (collection, again)]
    assert labels[0] == labels[1]
    assert dict(again.summary) == dict(collection.summary)
    _check_records(collection, knows_patients)
    _check_tasks(collection)
    _check_nothing_absolute(collection, root)
    return collection


def _check_records(collection: Collection, knows_patients: bool) -> None:
    manifest = collection.manifest
    assert len(manifest) > 0
    assert manifest.table.column_names[: len(FIXED_COLUMNS)] == list(FIXED_COLUMNS)
    for name, kind in FIXED_COLUMNS.items():
        assert manifest.table.schema.field(name).type == kind
    image_ids = manifest.column("image_id")
    assert len(set(image_ids)) == len(image_ids)
    assert all(frame is not None and frame >= 0 for frame in manifest.column("frame"))
    absent = [
        path for path in manifest.column("path") if not path_from_manifest(collection.root, path).is_file()
    ]
    stated = str(collection.summary.get("absent", "0 of"))
    assert int(stated.split(maxsplit=1)[0].replace(",", "")) == len(absent)
    assert collection.summary["images"] == len(manifest)
    if knows_patients:
        patients = manifest.column("patient_id")
        assert all(patients)
        assert collection.summary["patients"] == len(set(patients))
    studies = set(manifest.column("study_id")) - {None}
    if studies:
        assert collection.summary["studies"] == len(studies)


def _check_tasks(collection: Collection) -> None:
    names = [task.name for task in collection.tasks]
    assert len(set(names)) == len(names)
    columns = collection.manifest.table.column_names
    for task in collection.tasks:
        assert set(task.unit_ids) <= set(unit_names(collection.manifest.table, task.unit).tolist())
        assert set(task.subgroups) <= set(columns)


def _check_nothing_absolute(collection: Collection, root: Path) -> None:
    tables = [collection.manifest.table, *collection.tables.values()]
    tables += [task.labels for task in collection.tasks]
    cells = [
        cell
        for table in tables
        for column in table.columns
        for cell in column.to_pylist()
        if isinstance(cell, str)
    ] + [str(fact) for fact in collection.summary.values()]
    assert not [cell for cell in cells if ABSOLUTE.match(cell) or str(root.resolve()) in cell]


def check_encoder(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    """Assert the contract of an encoder on `pixels` (n >= 3 pictures) and return its vectors."""
    identity = encoder.identity  # known before load
    assert identity_from_json(identity.to_json(), source="test") == identity
    assert identity.preprocess == encoder.preprocess.to_json()
    encoder.load()
    encoder.load()
    vectors = encoder.encode(pixels)
    assert vectors.shape == (len(pixels), identity.dim)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert encoder.identity == identity
    for row in range(len(pixels)):
        np.testing.assert_array_equal(encoder.encode(pixels[row : row + 1])[0], vectors[row])
    np.testing.assert_array_equal(encoder.encode(pixels[::-1]), vectors[::-1])
    np.testing.assert_array_equal(encoder.encode(np.repeat(pixels[:1], 3, axis=0))[2], vectors[0])
    if pixels.ndim == 3:
        np.testing.assert_array_equal(encoder.encode(np.repeat(pixels[..., None], 3, axis=-1)), vectors)
    assert encoder.encode(pixels[:0]).shape == (0, identity.dim)
    stream = encoder.open_stream()
    through = [*stream.put(pixels[:2]), *stream.put(pixels[2:]), *stream.drain()]
    np.testing.assert_array_equal(np.concatenate([encoded.vectors for encoded in through]), vectors)
    assert all(encoded.busy_s > 0 for encoded in through)
    _check_further_arrays(encoder, pixels)
    assert encoder.device.partition(":")[0] in ("cpu", "cuda")  # known once it is loaded
    for wrong in (pixels[:, :-1], pixels.astype(np.float32), pixels[0]):
        with pytest.raises(UsageError, match="uint8"):
            encoder.encode(wrong)
    return vectors


def _check_further_arrays(encoder: Encoder, pixels: np.ndarray) -> None:
    """Assert that the stream returns what the identity declares, and that a row depends on its image alone."""

    def encoded(batch: np.ndarray) -> dict[str, np.ndarray]:
        stream = encoder.open_stream()
        (through,) = [*stream.put(batch), *stream.drain()]
        return dict(through.further)

    together = encoded(pixels)
    assert together.keys() == encoder.identity.arrays.keys()
    for name, spec in encoder.identity.arrays.items():
        found = together[name].shape
        assert found == (len(pixels), *spec.row_shape), (
            f"{name} must be rows of shape {spec.row_shape}; {found}"
        )
        assert together[name].dtype == np.float32
        assert np.isfinite(together[name]).all()
        for row in range(len(pixels)):
            np.testing.assert_array_equal(encoded(pixels[row : row + 1])[name][0], together[name][row])
