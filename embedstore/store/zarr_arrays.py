"""The Zarr side of a part: array metadata, made by Zarr itself, so that plain Zarr reads every store."""

from __future__ import annotations

import os
from pathlib import Path

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from embedstore.files import fsync_folder, make_folder_durable
from embedstore.store.layout import CONTENT, CONTENT_BYTES, VECTORS, PartLayout, PartPlan

# A chunk that is not done reads as NaN through plain Zarr, which returns the fill value for a missing chunk.
_FILL = {VECTORS: float("nan"), CONTENT: 0}


def create_arrays(layout: PartLayout, plan: PartPlan) -> None:
    """Write ``zarr.json`` of both arrays and make it durable; chunks already there stay."""
    for name, (width, dtype) in array_shapes(plan).items():
        folder = layout.array(name)
        (folder / "zarr.json").unlink(missing_ok=True)
        make_folder_durable(folder / "c")
        zarr.create_array(
            store=folder,
            shape=(plan.rows, width),
            chunks=(plan.chunk_rows, width),
            dtype=dtype,
            fill_value=_FILL[name],
            serializer=BytesCodec(endian=None if dtype == "uint8" else "little"),
            compressors=[Crc32cCodec()],
            filters=None,
            zarr_format=3,
        )
        _fsync_file(folder / "zarr.json")
        fsync_folder(folder)


def array_shapes(plan: PartPlan) -> dict[str, tuple[int, str]]:
    """Return ``{array: (width, dtype)}``."""
    return {VECTORS: (plan.dim, plan.dtype), CONTENT: (CONTENT_BYTES, "uint8")}


def metadata_problem(layout: PartLayout, plan: PartPlan, name: str) -> str:
    """Say how an array's ``zarr.json`` differs from the plan; ``""`` if it does not."""
    width, dtype = array_shapes(plan)[name]
    try:
        array = zarr.open_array(layout.array(name), mode="r", zarr_format=3)
    except Exception as error:  # noqa: BLE001 - a damaged zarr.json raises whatever its parser trips over
        return f"cannot be read by Zarr: {error!r}"
    found = (
        array.shape,
        array.chunks,
        str(array.dtype),
        [type(codec).__name__ for codec in array.compressors],
    )
    wanted = ((plan.rows, width), (plan.chunk_rows, width), dtype, ["Crc32cCodec"])
    return "" if found == wanted else f"describes {found}, must be {wanted}"


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
