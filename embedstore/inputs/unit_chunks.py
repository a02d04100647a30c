"""Units of files with their vectors, some at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from embedstore.encoders.base import Encoder
from embedstore.inputs.input_rows import ANCHOR
from embedstore.manifest import path_from_manifest
from embedstore.view import Units


@dataclass(frozen=True, kw_only=True)
class FileUnitsChunk:
    """Some units with their vectors.

    Parameters
    ----------
    units
        Those of which an image has a vector.
    known
        Of each unit how many images it has (`embedstore.inputs.file_units.UnitImages.known`).
    stored_ids
        Of each image the store's id, ``""`` where the store does not hold its pixels.
    table
        Of each image its row, as `embedstore.inputs.input_rows.InputRows.table` has it.
    replaced
        Paths of files whose pixels are not those that the store holds of them.
    failed
        Of each image that gave no vector its path, and why.
    notes
        Code of `errors.Note` -> images.
    images
        Images of the chunk, with those that failed.
    lacking
        What units lack, for people -> how many of them.
    """

    units: Units
    known: Sequence[int]
    stored_ids: Sequence[str]
    table: pa.Table
    replaced: Sequence[str]
    failed: Sequence[tuple[str, str]]
    notes: Mapping[str, int]
    images: int
    lacking: Mapping[str, int] = field(default_factory=dict)

    @property
    def paths(self) -> list[str]:
        """Of each image the absolute path of its file."""
        return [str(path_from_manifest(ANCHOR, path)) for path in self.table.column("path").to_pylist()]


class EmbeddedUnits(Protocol):
    """Units of files whose vectors are computed when they are asked for."""

    @property
    def images(self) -> int:
        """How many images were given."""
        ...

    def embed(
        self, encoder: Encoder, *, store_dtype: str, workers: int, stopping: Callable[[], bool]
    ) -> Iterator[FileUnitsChunk]:
        """Compute the vectors and yield whole units, as `embedstore.inputs.file_units.FileUnits.embed`."""
        ...


def joined(chunks: Sequence[FileUnitsChunk]) -> FileUnitsChunk:
    """Return several chunks as one."""
    parts = [chunk.units for chunk in chunks]
    offsets = np.cumsum([0, *(len(part.unit_ids) for part in parts)])
    masks = [part.image_of_target for part in parts]
    units = Units(
        X=np.concatenate([part.X for part in parts]),
        image_ids=np.concatenate([part.image_ids for part in parts]),
        content_sha256=np.concatenate([part.content_sha256 for part in parts]),
        unit_of_image=np.concatenate(
            [part.unit_of_image + offset for part, offset in zip(parts, offsets, strict=False)]
        ),
        unit_ids=np.concatenate([part.unit_ids for part in parts]),
        metadata={
            name: np.concatenate([part.metadata[name] for part in parts]) for name in parts[0].metadata
        },
        image_of_target=np.concatenate([mask for mask in masks if mask is not None])
        if masks[0] is not None
        else None,
    )
    notes: Counter[str] = Counter()
    lacking: Counter[str] = Counter()
    for chunk in chunks:
        notes.update(chunk.notes)
        lacking.update(chunk.lacking)
    return FileUnitsChunk(
        units=units,
        known=[count for chunk in chunks for count in chunk.known],
        stored_ids=[name for chunk in chunks for name in chunk.stored_ids],
        table=pa.concat_tables([chunk.table for chunk in chunks], promote_options="permissive"),
        replaced=[path for chunk in chunks for path in chunk.replaced],
        failed=[entry for chunk in chunks for entry in chunk.failed],
        notes=dict(notes),
        images=sum(chunk.images for chunk in chunks),
        lacking=dict(lacking),
    )
