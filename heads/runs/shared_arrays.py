"""The arrays of several heads in one safetensors file, where an array that heads share is kept once.

The nearest-neighbour heads of 25 targets find their cases among the same training vectors. A tensor's name says
whose it is: ``0.labels`` belongs to head 0, ``0,1,2.vectors`` is one array of heads 0, 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

Arrays = Mapping[str, npt.NDArray[Any]]


def arrays_to_bytes(heads: Sequence[Arrays]) -> bytes:
    """Return a safetensors file of the arrays of every head.

    Parameters
    ----------
    heads
        By head: name -> array. Arrays of one name that are the same memory (address, shape, type and strides)
        are written once; arrays that are merely equal are not compared.
    """
    owners: dict[tuple[Any, ...], list[int]] = {}
    found: dict[tuple[Any, ...], npt.NDArray[Any]] = {}
    for index, arrays in enumerate(heads):
        for name, array in arrays.items():
            place = (name, array.__array_interface__["data"][0], array.shape, array.dtype.str, array.strides)
            owners.setdefault(place, []).append(index)
            found[place] = array
    return bytes(
        safetensors.numpy.save(
            {
                f"{','.join(map(str, indices))}.{place[0]}": np.ascontiguousarray(found[place])
                for place, indices in owners.items()
            }
        )
    )


def arrays_from_bytes(payload: bytes, count: int) -> list[dict[str, npt.NDArray[Any]]]:
    """Return name -> array for each of `count` heads; heads that shared an array share it again.

    Raises
    ------
    SafetensorError
        If the bytes are no safetensors file.
    """
    heads: list[dict[str, npt.NDArray[Any]]] = [{} for _ in range(count)]
    for full_name, array in safetensors.numpy.load(payload).items():
        indices, _, name = full_name.partition(".")
        for index in map(int, indices.split(",")):
            heads[index][name] = array
    return heads
