"""Small pictures of units and files that a page shows, from the images that stores were made of."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedstore.decoding.decode import DecodeJob
from embedstore.decoding.pool import DecoderPool
from embedstore.errors import ImageRefused
from embedstore.images.preprocess import PreprocessSpec
from embedstore.keys.key_file import Key
from embedstore.manifest import path_from_manifest
from embedstore.pipeline.chunk_work import box_of
from embedstore.queries.image_files import ImageFiles
from embedstore.queries.manifest_columns import own_unit_names
from embedstore.store.reader import Store

SIZE_PX = 160
_QUALITY = 75


def thumbnails_of_units(
    stores: Sequence[Store], unit_ids: Iterable[str], unit: str, *, key: Key | None = None
) -> dict[str, bytes]:
    """Return a JPEG of the first image of each unit.

    Parameters
    ----------
    stores
        The opened stores; each manifest says where its own images lie.
    unit_ids
        Wanted units.
    unit
        As `embedstore.task.Task.unit`.
    key
        The key of stores whose paths are hidden; without it their images are left out.

    Returns
    -------
    dict
        Unit id -> JPEG of `SIZE_PX` pixels square. A unit whose file has moved or cannot be decoded is left
        out: a report is worth having without its pictures.
    """
    return thumbnails_of_jobs(jobs_of_units(stores, unit_ids, unit, key=key))


def jobs_of_units(
    stores: Sequence[Store], unit_ids: Iterable[str], unit: str, *, key: Key | None = None
) -> dict[str, DecodeJob]:
    """Return unit id -> what decodes its first image, where the file lies where it lay; as `thumbnails_of_units`."""
    wanted = set(unit_ids)
    jobs: dict[str, DecodeJob] = {}
    files = ImageFiles(key)
    for store, part in [(owner, part) for owner in stores for part in owner.parts]:
        names = own_unit_names(part.manifest.table, unit).tolist()
        first: dict[str, int] = {}
        for row, name in enumerate(names):
            if name in wanted and name not in jobs:
                first.setdefault(name, row)
        image_ids = part.manifest.table.column("image_id")
        name_of = {image_ids[row].as_py(): name for name, row in first.items()}
        for image_id, root, path in files.of_part(store, part) if first else ():
            if image_id in name_of:
                (record,) = part.manifest.records(first[name_of[image_id]], first[name_of[image_id]] + 1)
                place = str(path_from_manifest(root, path))
                jobs[name_of[image_id]] = DecodeJob(place, record.frame, record.modality, crop=box_of(record))
    return {name: job for name, job in jobs.items() if Path(job.path).is_file()}


def thumbnails_of_jobs(jobs: Mapping[str, DecodeJob]) -> dict[str, bytes]:
    """Return name -> JPEG of `SIZE_PX` pixels square; what cannot be decoded is left out."""
    if not jobs:
        return {}
    found = {}
    with DecoderPool(PreprocessSpec(size_px=SIZE_PX), workers=1) as decoder:
        for name, outcome in zip(jobs, decoder.decode(iter(jobs.values()), ahead=2), strict=True):
            if not isinstance(outcome, ImageRefused):
                found[name] = _jpeg(outcome.pixels)
    return found


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
