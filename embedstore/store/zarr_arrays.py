"""The Zarr side of a part: metadata of its arrays and its group, so that plain Zarr reads every store."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from embedstore.files import fsync_folder, make_folder_durable, write_durable
from embedstore.store.layout import PartLayout, PartPlan


def create_arrays(layout: PartLayout, plan: PartPlan) -> None:
    """Write ``zarr.json`` of every array and of the group, and make them durable; chunks already there stay."""
    for name, array in plan.stored_arrays.items():
        folder = layout.array(name)
        layout.metadata(name).unlink(missing_ok=True)
        make_folder_durable(folder / "c")
        # Zarr makes the metadata itself. A chunk that is not done reads as NaN through plain Zarr, which
        # returns the fill value for a missing chunk.
        zarr.create_array(
            store=folder,
            shape=(plan.rows, *array.row_shape),
            chunks=(plan.chunk_rows, *array.row_shape),
            dtype=array.dtype,
            fill_value=array.fill,
            serializer=BytesCodec(endian=None if array.dtype == "uint8" else "little"),
            compressors=[Crc32cCodec()],
            filters=None,
            zarr_format=3,
            dimension_names=array.dimension_names,
        )
        _fsync_file(layout.metadata(name))
        fsync_folder(folder)
    payload = json.dumps(_group(layout, plan), indent=2).encode()
    write_durable(layout.group_metadata, payload, label="group")


def array_problem(layout: PartLayout, plan: PartPlan, name: str) -> str:
    """Say how an array's ``zarr.json`` differs from the plan; ``""`` if it does not."""
    array = plan.stored_arrays[name]
    try:
        found = _described(layout.array(name))
    except Exception as error:  # noqa: BLE001 - a damaged zarr.json raises whatever its parser trips over
        return f"cannot be read by Zarr: {error!r}"
    wanted = (
        (plan.rows, *array.row_shape),
        (plan.chunk_rows, *array.row_shape),
        array.dtype,
        ["Crc32cCodec"],
        array.dimension_names,
    )
    return "" if found == wanted else f"describes {found}, must be {wanted}"


def group_problem(layout: PartLayout, plan: PartPlan) -> str:
    """Say what is wrong with the part's own ``zarr.json``, given sound ones of its arrays; ``""`` if nothing is."""
    try:
        found = json.loads(layout.group_metadata.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return f"cannot be read: {error}"
    return "" if found == _group(layout, plan) else "does not describe the part's arrays"


def _group(layout: PartLayout, plan: PartPlan) -> dict[str, Any]:
    # With the arrays' metadata inside, Zarr and xarray need not list the folder, which holds more than arrays.
    arrays = {name: json.loads(layout.metadata(name).read_bytes()) for name in plan.stored_arrays}
    return {
        "attributes": {},
        "zarr_format": 3,
        "node_type": "group",
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": arrays},
    }


def _described(folder: Path) -> tuple[object, ...]:
    array = zarr.open_array(folder, mode="r", zarr_format=3)
    codecs = [type(codec).__name__ for codec in array.compressors]
    names = array.metadata.to_dict().get("dimension_names")
    return array.shape, array.chunks, str(array.dtype), codecs, names


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
